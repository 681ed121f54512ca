"""What a region does to its bus, by the clock: nothing waits for the answer to what came before.

Each card, telephone call, question and position has its moment, fixed before the run begins; times
are measured from that moment, so that a bus which falls behind cannot hide it.
"""

import asyncio
import itertools
import json
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

import msgspec

from connectors.runtime.partner.http import HttpClient, Unreachable
from connectors.simulators.demo.callers import token_of
from connectors.simulators.kit.simulation import ASKED, SimulatorSettings
from connectors.simulators.sys112.samples import Sample, day_of_cards
from proto.client import BusClient
from proto.errors import BusError
from proto.message import Message
from proto.schemas import VehiclePosition
from tests.bench.region import MAP, TELEMATICS, Region

# When the rest of an incident comes after its card, in seconds.
LATER = {"new": 0.0, "double": 0.4, "correction": 0.8, "repeat": 1.2, "cancel": 1.6}
# A call's messages come on the average so long after its card: calls begin so much earlier than
# the phase that they are to fill.
LEAD_S = 2.0
VEHICLES = 400
BRIGADES, CREW = 60, 2
TICK_S = 0.02
STALE_MS = 60_000
CREDIT = 2000


@dataclass(frozen=True)
class Phase:
    """Some seconds of one rate; messages per second."""

    name: str
    seconds: float
    business: float
    telemetry: float


@dataclass(frozen=True)
class Push:
    """Something that System-112 sends, `due_s` after the beginning."""

    due_s: float
    sample: Sample
    opens_call: int | None = None  # the number of the call that begins with it


@dataclass
class Plan:
    """The whole run. `per_call` and `phone_per_call` are how many messages of both sorts one call
    makes on the average (measured; the table shows what they were)."""

    phases: list[Phase]
    per_call: float
    phone_per_call: float
    seed: int
    pushes: list[Push] = field(init=False)

    def __post_init__(self) -> None:
        dues = list(self._calls())
        day = day_of_cards(self.seed, len(dues), malformed=False)
        incidents: dict[str, list[Sample]] = defaultdict(list)
        for sample in day:
            incidents[sample.id112.removesuffix("-R")].append(sample)
        self.pushes = [
            Push(due_s + LATER[one.kind], one, number if one.kind == "new" else None)
            for number, (due_s, incident) in enumerate(zip(dues, incidents.values(), strict=True))
            for one in incident
        ]
        self.pushes.sort(key=lambda push: push.due_s)

    @property
    def ends_s(self) -> float:
        """When the last phase ends."""
        return sum(phase.seconds for phase in self.phases)

    def windows(self) -> Iterator[tuple[float, float, Phase]]:
        """Yield begin, end and phase."""
        begin = 0.0
        for phase in self.phases:
            yield begin, begin + phase.seconds, phase
            begin += phase.seconds

    def phase_at(self, at_s: float) -> str:
        """Return the name of the phase that a moment belongs to; "" outside of all."""
        for begin, end, phase in self.windows():
            if begin <= at_s < end:
                return phase.name
        return ""

    def positions(self) -> Iterator[float]:
        """Yield the moment of each position of a vehicle."""
        for begin, end, phase in self.windows():
            rate = phase.telemetry - self.phone_per_call * phase.business / self.per_call
            for number in range(round((end - begin) * max(rate, 0.0))):
                yield begin + number / rate

    def _calls(self) -> Iterator[float]:
        for begin, end, phase in self.windows():
            rate = phase.business / self.per_call
            for number in range(round((end - begin) * rate)):
                yield max(begin - LEAD_S, 0.0) + number / rate


class Traffic:
    """Plays a plan into a region."""

    def __init__(self, region: Region, plan: Plan) -> None:
        self.plan = plan
        self.began_s = 0.0  # since 1970; the moment 0 of the plan
        self.sent: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self.late_s = 0.0
        self.seen_s: defaultdict[str, list[float]] = defaultdict(list)
        self.last: dict[str, int] = {}
        self.disordered = 0
        self._region = region
        self._system112 = HttpClient(region.folder.url("sim-sys112"))
        self._exchange = HttpClient(region.folder.url("sim-ats"))
        self._ambulance = HttpClient(region.folder.url("smp"))
        told = SimulatorSettings(token_file=token_of(region.folder.path, "smp"))
        self._proof = told.proof() | ASKED
        self._tasks: set[asyncio.Task[None]] = set()
        self._zero = 0.0

    async def run(self) -> None:
        """Play it to its end, and until every vehicle's place has been seen."""
        telematics, map_ = self._peer(TELEMATICS), self._peer(MAP)
        async with telematics, map_:
            self._zero = time.monotonic() + 0.2
            self.began_s = time.time() + 0.2
            showing = asyncio.create_task(self._show(map_))
            try:
                await asyncio.gather(self._cards(), self._positions(telematics))
                await self._until_seen()
            finally:
                showing.cancel()
                await asyncio.gather(showing, *self._tasks, return_exceptions=True)
        for client in (self._system112, self._exchange, self._ambulance):
            await client.close()

    def _peer(self, name: str) -> BusClient:
        address, key, server_key = self._region.bus(name)
        return BusClient(address, name=name, key=key, server_key=server_key)

    async def _sleep_until(self, due_s: float) -> None:
        ahead = self._zero + due_s - time.monotonic()
        if ahead > 0:
            await asyncio.sleep(ahead)
        else:
            self.late_s = max(self.late_s, -ahead)

    def _go(self, work: Any) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    # -- incidents ------------------------------------------------------------------------------

    async def _cards(self) -> None:
        for push in self.plan.pushes:
            await self._sleep_until(push.due_s)
            self._go(self._push(push))

    async def _push(self, push: Push) -> None:
        sample = push.sample
        if sample.phone:
            await self._post("calls", self._exchange, "/drive", {"callers": [sample.phone]})
        await self._post("cards", self._system112, "/drive", {"cards": [sample.push()]})
        if push.opens_call is not None:
            first = push.opens_call % BRIGADES * CREW + 1
            for number in range(first, first + CREW):  # who goes?
                path = "/bus/questions/worker.lookup.v1"
                await self._post("questions", self._ambulance, path, {"id": f"99-{number:06}"})

    async def _post(self, what: str, client: HttpClient, path: str, body: object) -> None:
        self.sent[what] += 1
        try:
            proof = self._proof if client is self._ambulance else {}
            answer = await client.request("POST", path, json.dumps(body).encode(), proof)
            good = answer.status < 300
        except Unreachable:
            good = False
        self.failed[what] += not good

    # -- vehicles -------------------------------------------------------------------------------

    async def _positions(self, bus: BusClient) -> None:
        dues = enumerate(self.plan.positions())
        following = next(dues, None)
        while following is not None:
            await self._sleep_until(following[1])
            horizon = time.monotonic() - self._zero
            batch = [self._position(*following)]
            for number, due_s in dues:
                following = (number, due_s)
                if due_s > horizon:
                    break
                batch.append(self._position(number, due_s))
            else:
                following = None
            self.sent["positions"] += len(batch)
            self._go(self._publish(bus, batch))
            await asyncio.sleep(TICK_S)

    def _position(self, number: int, due_s: float) -> Message:
        due = self.began_s + due_s
        vehicle = f"99-{number % VEHICLES:04}"
        there = VehiclePosition(
            vehicle_id=vehicle,
            at=datetime.fromtimestamp(due, UTC),
            lat=55 + number % 997 / 10_000,
            lon=37 + number % 991 / 10_000,
            speed_kmh=float(number % 90),
            course=float(number % 360),
            source=TELEMATICS,
        )
        message = Message.new(
            "vehicle.position.v1",
            TELEMATICS,
            there,
            subject=f"vehicle-{vehicle}",
            id=f"{self.plan.seed}-{number:09}",
            expires=int(due * 1000) + STALE_MS,
        )
        return msgspec.structs.replace(message, time=int(due * 1000))

    async def _publish(self, bus: BusClient, batch: list[Message]) -> None:
        try:
            results = await bus.publish_many(batch)
        except BusError:
            self.failed["positions"] += len(batch)
        else:
            self.failed["positions"] += sum(refused is not None for refused in results)

    async def _show(self, bus: BusClient) -> None:
        """Keep the newest place of each vehicle, as a map does."""
        async for batch in bus.consume(MAP, credit=CREDIT).batches():
            now = time.time()
            for delivery in batch:
                message = delivery.message
                due = message.time / 1000
                self.seen_s[self.plan.phase_at(due - self.began_s)].append(now - due)
                number = int(message.id.rpartition("-")[2])
                self.disordered += number <= self.last.get(message.subject, -1)
                self.last[message.subject] = number
                delivery.ack()

    async def _until_seen(self) -> None:
        for _ in itertools.repeat(None, 600):
            if sum(map(len, self.seen_s.values())) >= self.sent["positions"]:
                return
            await asyncio.sleep(0.1)
