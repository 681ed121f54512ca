"""`make bench-history`: does the journal level off, and at whose cost.

    python -m tests.bench.history [--minutes 30] [--hours 0.1] [--business 50] [--telemetry 200]

A real router, one publisher and one consumer at the sustained target of a region, each message at
its moment whether or not the ones before were answered; a twentieth of the business is emergencies.
The history is so short that pruning begins after `--hours`. Prints a row a minute and judges: at
the end the journal is no larger than a tenth above what it was two minutes after the pruning began,
and the p99 of the minutes since is within 1.2 times that of the minutes before, or 5 ms. The exit
status is 1 when that is missed, and the last line is one JSON object.
"""

import argparse
import asyncio
import json
import shutil
import statistics
import sys
import tempfile
import time
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path

from proto.client import BusClient
from proto.message import Priority
from tests.bench.router import BenchRouter

BUSINESS_BYTES = 1_800
TELEMETRY_BYTES = 250
URGENT_EVERY = 20
CREDIT = 1_000
GROWTH_MAX = 1.1
P99_MAX = 1.2
P99_FLOOR_MS = 5.0
MIB = 1024 * 1024


@dataclass
class Minute:
    """What was measured in one; latencies in ms, from a message's moment."""

    accepted: list[float] = field(default_factory=list)
    delivered: list[float] = field(default_factory=list)
    urgent: list[float] = field(default_factory=list)
    journal_bytes: int = 0
    empty_bytes: int = 0

    def row(self, number: int) -> str:
        """Return a line of the table."""
        return (
            f"{number:6}  {self.journal_bytes / MIB:8.1f}  {self.empty_bytes / MIB:8.1f}"
            f"  {len(self.delivered):8}  {p99(self.accepted):8.2f}  {p99(self.delivered):8.2f}"
            f"  {p99(self.urgent):8.2f}"
        )


def p99(values: list[float]) -> float:
    """Return what 99 % stay under."""
    return statistics.quantiles(values, n=100)[98] if len(values) > 1 else 0.0


class Run:
    """Publishes and consumes by the clock."""

    def __init__(self, router: BenchRouter, asked: argparse.Namespace) -> None:
        self.router = router
        self.asked = asked
        self.minutes: defaultdict[int, Minute] = defaultdict(Minute)
        self.began = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    def client(self, name: str) -> BusClient:
        """Return a session of one of the two peers."""
        keys = self.router.folder / "keys"
        return BusClient(
            self.router.address, name=name, key=keys / f"{name}.key",
            server_key=keys / "router.pub",
        )  # fmt: skip

    async def play(self) -> None:
        """Play it to its end, a row a minute."""
        async with self.client("producer") as producer, self.client("consumer") as consumer:
            taking = asyncio.create_task(self.take(consumer))
            self.began = time.monotonic() + 0.2
            sending = [
                asyncio.create_task(self.send(producer, "business", self.asked.business)),
                asyncio.create_task(self.send(producer, "telemetry", self.asked.telemetry)),
            ]
            for number in range(self.asked.minutes):
                await asyncio.sleep(max(0.0, self.began + 60 * (number + 1) - time.monotonic()))
                self.note(number)
            await asyncio.gather(*sending)
            await asyncio.gather(*self._tasks)
            taking.cancel()

    def note(self, number: int) -> None:
        """Ask for the journal's size, and print the minute."""
        store = self.router.status()["store"]
        minute = self.minutes[number]
        minute.journal_bytes, minute.empty_bytes = store["bytes"], store["empty_bytes"]
        print(minute.row(number + 1), flush=True)

    async def send(self, bus: BusClient, kind: str, rate: float) -> None:
        """Publish `rate` messages a second, each at its moment."""
        size = BUSINESS_BYTES if kind == "business" else TELEMETRY_BYTES
        for number in range(round(60 * self.asked.minutes * rate)):
            due = self.began + number / rate
            if (ahead := due - time.monotonic()) > 0:
                await asyncio.sleep(ahead)
            urgent = kind == "business" and number % URGENT_EVERY == 0
            task = asyncio.create_task(self.publish(bus, kind, due, size, urgent))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def publish(self, bus: BusClient, kind: str, due: float, size: int, urgent: bool) -> None:
        """Publish one message, and note when it was accepted."""
        body = json.dumps({"due": due, "filling": "x" * size}).encode()
        priority = Priority.EMERGENCY if urgent else Priority.ROUTINE
        subject = f"{kind}-{round(due) % 4_000}"
        message = bus.message(f"bench.{kind}.v1", body, subject=subject, priority=priority)
        await bus.publish(message)
        self.minute_of(due).accepted.append(1000 * (time.monotonic() - due))

    async def take(self, bus: BusClient) -> None:
        """Acknowledge what comes, and note when it did."""
        async for delivery in bus.consume("sink", credit=CREDIT):
            due = float(json.loads(delivery.message.body)["due"])
            late_ms = 1000 * (time.monotonic() - due)
            minute = self.minute_of(due)
            minute.delivered.append(late_ms)
            if delivery.message.priority == Priority.EMERGENCY:
                minute.urgent.append(late_ms)
            delivery.ack("taken")

    def minute_of(self, due: float) -> Minute:
        """Return the minute that a moment belongs to."""
        return self.minutes[int((due - self.began) // 60)]


def judge(minutes: list[Minute], hours: float) -> dict[str, object]:
    """Return the verdict: what the pruning made of size and latency."""
    first = round(60 * hours)  # the minute in which it begins
    before, since = minutes[1:first], minutes[first + 1 :]
    if len(before) < 2 or len(since) < 2:
        raise SystemExit(f"too short: the pruning begins after {first} minutes")
    settled = max(one.journal_bytes for one in minutes[: first + 3])
    growth = since[-1].journal_bytes / settled
    told: dict[str, object] = {"growth": round(growth, 3)}
    fine = growth <= GROWTH_MAX
    for name in ("accepted", "delivered", "urgent"):
        was = statistics.median(p99(getattr(one, name)) for one in before)
        now = statistics.median(p99(getattr(one, name)) for one in since)
        told[f"{name}_p99_ms"] = [round(was, 2), round(now, 2)]
        fine = fine and now <= max(P99_MAX * was, P99_FLOOR_MS)
    return {"ok": fine, **told}


def main() -> int:
    """Run it and print the table; return the exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.history")
    parser.add_argument("--minutes", type=int, default=30)
    parser.add_argument("--hours", type=float, default=0.1, help="of history")
    parser.add_argument("--business", type=float, default=50.0, help="messages/s")
    parser.add_argument("--telemetry", type=float, default=200.0, help="messages/s")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="smpbus-history-"))
    router = BenchRouter(folder)
    try:
        router.stop()
        config = folder / "smpbus.toml"
        hours = f"history_hours = {asked.hours}\ndedup_hours = {asked.hours}\n[log]"
        config.write_text(config.read_text().replace("[log]", hours))
        router.start()
        print("minute   journal     empty  messages  accepted  delivered   urgent")
        print("             MiB       MiB               p99 ms     p99 ms   p99 ms")
        run = Run(router, asked)
        asyncio.run(run.play())
        verdict = judge([run.minutes[number] for number in range(asked.minutes)], asked.hours)
    finally:
        router.stop()
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps(verdict))
    return 0 if verdict["ok"] else 1


if __name__ == "__main__":
    sys.exit(main())
