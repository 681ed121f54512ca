"""One message from one bus to the other: what changes in it, and what an answer means.

Nothing but the source changes: BUS.NAME, the bus that accepted the message first and its source
there (proto/SPEC.md 3.4). So the other bus finds a repeat by the same source and id, whichever way
it came, and what began at a bus never comes back to it.
"""

import msgspec

from proto.client import BusClient, Reject, Retry
from proto.errors import FATAL, TEMPORARY, BusError, Code, Refused
from proto.message import Message
from proto.note import coded


class SessionEnded(Exception):
    """The session ended for good before the bus answered; this says nothing of the message."""


def passed_on(message: Message, here: str, there: str) -> Message | None:
    """Return the message as bus `there` is told it by bus `here`; None when it began `there`."""
    if "." not in message.source:
        return msgspec.structs.replace(message, source=f"{here}.{message.source}")
    return None if message.source.partition(".")[0] == there else message


async def pass_on(message: Message, here: BusClient, there: BusClient) -> bool:
    """Publish at `there` what `here` delivered; returns when it is on the disk there, and False at
    once when it began there. Waits while the link is down.

    Raises Retry for a refusal that may pass, Reject for one that stays, SessionEnded.
    """
    try:
        if not there.bus:  # its name is not known before it has welcomed us once
            await there.wait_welcomed()
        told = passed_on(message, here.bus, there.bus)
        if told is None:
            return False
        await there.publish(told)
    except Refused as refused:
        raise verdict(refused) from None
    except BusError:
        raise SessionEnded from None
    return True


def verdict(refused: Refused) -> Exception:
    """Return what a refusal means for the delivery at hand.

    One whose time is over there is tried again: this bus ends it as expired by its own clock.
    """
    if refused.code in FATAL:
        return SessionEnded()
    note = coded("replication.refused", code=refused.code)
    if refused.code in TEMPORARY or refused.code == Code.EXPIRED:
        return Retry(note)
    return Reject(note)
