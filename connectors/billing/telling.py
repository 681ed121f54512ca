"""Tells the bus what the fund said to each card, once each.

The ledger knows what is told already. A repeat after a crash has the same ids, so that the router
takes it for what it is.
"""

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, Literal

from connectors.billing.billed import ACCEPTED, PAID, Billed, Told
from connectors.runtime.door.door import message_id
from proto import clinical
from proto.client import BusClient
from proto.errors import BusError
from proto.message import Message

TYPE: Final = "register.state.v1"
BATCH: Final = 500
PATIENCE_S: Final = 30.0  # for one batch to be on the router's disk


class NotTold(Exception):
    """The bus did not take it; the ledger knows what is still to be told."""


def message_of(told: Told, register: str, source: str) -> Message:
    """Return the message about one card."""
    state: Literal["accepted", "refused", "paid"] = "refused"
    if told.state in (ACCEPTED, PAID):
        state = "paid" if told.state == PAID else "accepted"
    event = f"tfoms-{register}-{told.card}-{state}-{told.codes}-{told.paid or ''}"
    body = clinical.RegisterState(
        event_id=event[:400],
        call_id=told.call,
        card_id=told.card,
        register=register,
        state=state,
        codes=told.codes.split(),
        sum=told.paid,
        at=datetime.now(UTC),
    )
    return Message.new(
        TYPE,
        source,
        body,
        subject=told.subject,
        id=message_id(TYPE, event),
        correlation_id=told.call,
    )


async def tell(
    bus: BusClient, billed: Billed, register: str, progress: Callable[[int], None]
) -> int:
    """Publish what is untold of a register; return how many. Raises NotTold."""
    count = 0
    try:
        async with asyncio.timeout(PATIENCE_S):
            await bus.wait_welcomed()
        while batch := list(billed.untold(register, BATCH)):
            messages = [message_of(one, register, bus.name) for one in batch]
            async with asyncio.timeout(PATIENCE_S):
                refusals = await bus.publish_many(messages)
            taken = [one for one, no in zip(batch, refusals, strict=True) if no is None]
            billed.told(register, taken)
            count += len(taken)
            progress(count)
            if refused := next(filter(None, refusals), None):
                raise NotTold(f"{refused.code}: {refused.sentence}")
    except TimeoutError:
        raise NotTold("timeout") from None
    except BusError as error:
        raise NotTold(f"{error.code}: {error.sentence}") from None
    return count
