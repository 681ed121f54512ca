"""The good peer: 50 emergencies a second published and consumed, by the clock.

    python -m tests.siege.good FOLDER

Each message has its moment, fixed before; times are measured from it, so that a bus that falls
behind cannot hide it. What is accepted and what is taken is noted before anything follows. While
the file `shelve` is there, one message a second goes to the queue that the villain fills as well.
It ends when the file `stop` appears, and all that was accepted has been taken.
"""

import asyncio
import contextlib
import gc
import sys
import time
from pathlib import Path
from typing import Final

import uvloop

from proto.client import BusClient
from proto.errors import BusError
from tests.chaos.ledger import Ledger

RATE: Final = 50
SUBJECTS: Final = 12
PAD: Final = "x" * 900
PATIENCE_S: Final = 30.0
STEP_S: Final = 0.05


class Good:
    """Publishes and takes on one session."""

    def __init__(self, bus: BusClient, ledger: Ledger, folder: Path) -> None:
        self._bus = bus
        self._ledger = ledger
        self._folder = folder
        self._open: set[asyncio.Task[None]] = set()
        self._untaken: set[str] = set()
        self._taken: set[str] = set()

    async def run(self) -> None:
        """Work until told to stop."""
        taking = asyncio.create_task(self._take())
        publishing = asyncio.create_task(self._publish())
        done, _ = await asyncio.wait({taking, publishing}, return_when=asyncio.FIRST_COMPLETED)
        for task in done:
            task.result()
        deadline = time.monotonic() + PATIENCE_S
        while (self._open or self._untaken) and time.monotonic() < deadline:  # noqa: ASYNC110
            await asyncio.sleep(STEP_S)
        for task in (taking, *self._open):
            task.cancel()
        await asyncio.gather(taking, *self._open, return_exceptions=True)

    async def _publish(self) -> None:
        begin, number = time.monotonic() + 0.2, 0
        while not (self._folder / "stop").exists():
            due = begin + number / RATE
            await asyncio.sleep(max(0.0, due - time.monotonic()))
            shelved = number % RATE == 0 and (self._folder / "shelve").exists()
            task = asyncio.create_task(self._one(number, due, shelved))
            self._open.add(task)
            task.add_done_callback(self._open.discard)
            number += 1

    async def _one(self, number: int, due: float, shelved: bool) -> None:
        kind = "siege.shelved.v1" if shelved else "siege.call.v1"
        body = {"number": number, "pad": PAD}
        subject = f"good-{number % SUBJECTS}"
        message = self._bus.message(kind, body, subject=subject, priority=0)
        self._ledger.add(id=message.id, number=number, subject=subject, due=due)
        try:
            await self._bus.publish(message)
        except BusError as error:
            self._ledger.add(refused=message.id, code=error.code, at=time.monotonic())
            return
        self._ledger.add(accepted=message.id, at=time.monotonic())
        if message.id not in self._taken:
            self._untaken.add(message.id)

    async def _take(self) -> None:
        async for delivery in self._bus.consume("siege", credit=200):
            id = delivery.message.id
            body = delivery.message.json()
            assert isinstance(body, dict)
            self._ledger.add(taken=id, at=time.monotonic(), delivery=delivery.key,
                             subject=delivery.message.subject, number=body["number"])  # fmt: skip
            self._taken.add(id)
            self._untaken.discard(id)
            delivery.ack()


async def main() -> None:
    """Run."""
    folder = Path(sys.argv[1])
    gc.freeze()
    gc.disable()  # no pause of our own in what is measured; ten minutes make no garbage to speak of
    keys = folder / "keys"
    bus = BusClient(f"ipc://{folder}/bus.sock", name="good", key=keys / "good.key",
                    server_key=keys / "router.pub")  # fmt: skip
    async with bus:
        await Good(bus, Ledger(folder / "good.ledger"), folder).run()


if __name__ == "__main__":
    with contextlib.suppress(KeyboardInterrupt):
        uvloop.run(main())
