"""`smpbus connector replication --check`: does each bus take us, and give us our queue."""

import asyncio
from typing import Final

from proto import frames
from proto.client import BusClient
from proto.errors import BusError
from proto.wording import text

ANSWER_S: Final = 5.0
REFUSAL_S: Final = 1.0  # a queue that is given is answered by silence
STEP_S: Final = 0.05

Found = list[tuple[bool, str]]


async def probe(near: BusClient, queue: str, far: BusClient, far_queue: str) -> Found:
    """Return what is found at both buses, each good or not, with a sentence."""
    found = [*await _one(near, queue), *await _one(far, far_queue)]
    if near.bus and near.bus == far.bus:
        found.append((False, text("note.replication.same_bus", bus=near.bus)))
    return found


async def _one(bus: BusClient, queue: str) -> Found:
    where = {"address": bus.address, "name": bus.name, "queue": queue}
    errors: list[frames.Error] = []
    bus.on_error = errors.append
    await bus.start()
    try:
        async with asyncio.timeout(ANSWER_S):
            await bus.wait_welcomed()
        bus.consume(queue, credit=0)
        for _ in range(round(REFUSAL_S / STEP_S)):
            if not errors:
                await asyncio.sleep(STEP_S)
        bus.raise_if_dead()
    except TimeoutError:
        reason = bus.trouble or text("connector.check_silent", seconds=f"{ANSWER_S:g}")
        return [(False, text("connector.check_no_bus", address=bus.address, reason=reason))]
    except BusError as error:
        reason = error.sentence
        return [(False, text("connector.check_no_bus", address=bus.address, reason=reason))]
    finally:
        await bus.close()
    if errors:
        return [(False, text("replication.check_no_queue", code=errors[0].code, **where))]
    return [(True, text("replication.check_bus", bus=bus.bus, **where))]
