"""The course of a drill: load, the partner goes, load, it comes back, everything is delivered."""

import asyncio
import itertools
import time
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Any, Final

import msgspec

from connectors.runtime.partner.http import Unreachable
from connectors.simulators.drill.books import OPEN, Hop, hops, keys_of_bus
from connectors.simulators.drill.report import Course
from connectors.simulators.drill.standin import WELL, StandIn
from connectors.simulators.kit.faults import Faults
from connectors.simulators.sys112.samples import Sample, day_of_cards
from proto.exits import EX_UNAVAILABLE, StartError
from proto.message import now_ms
from proto.ops import OpsError, ops_request
from proto.wording import text

MODES: Final = {
    "down": Faults(down=True),
    "hang": Faults(delay_s=60.0),  # longer than any connector waits
    "slow": Faults(delay_s=2.0),
    "fail": Faults(fail=0.5),
}
DRIVER: Final = "sys112"
LOOK_S: Final = 0.25
# The simulator is back by itself so long after its time, should nobody bring it back.
GRACE_S: Final = 5.0
# Nothing new of the drill's calls came for so long: their lives have ended.
QUIET_S: Final = 3.0
BATCH: Final = 500

Show = Callable[[str], None]


@dataclass(frozen=True)
class Plan:
    """What was asked for; times are seconds, `rate` is calls a second."""

    name: str
    destination: str
    mode: str
    down_s: float
    before_s: float
    wait_s: float
    rate: float


class Exercise:
    """One drill on a running bus."""

    def __init__(self, plan: Plan, standins: dict[str, StandIn], ops: str, show: Show) -> None:
        self._plan = plan
        self._away = standins[plan.name]
        self._driver = standins[DRIVER]
        self._ops = ops
        self._show = show
        self._subjects: set[str] = set()
        self.course = Course(plan.name, plan.destination, plan.mode, plan.rate)

    async def run(self) -> Course:
        """Hold the drill. Raises StartError when the bus or a simulator is gone; whatever happens,
        the partner is back."""
        course, plan = self.course, self._plan
        try:
            await self._meet()
            begun = await self._away.keys(0)
            load = asyncio.create_task(self._load())
            try:
                await self._watch(plan.before_s, "drill.before", load)
                async with self._taken_away():
                    course.down_at = now_ms()
                    await self._watch(plan.down_s, "drill.meanwhile", load)
                course.back_at = now_ms()
                await self._drain(load)
            finally:
                load.cancel()
                await asyncio.gather(load, return_exceptions=True)
            await self._end()
            if begun is not None:
                ended = await self._away.keys(begun[0])
                course.keys = None if ended is None else keys_of_bus(ended[1])
        except Unreachable:
            raise StartError(text("drill.simulator_gone"), EX_UNAVAILABLE) from None
        except OpsError as error:
            reason = error.sentence
            raise StartError(text("drill.bus_gone", reason=reason), EX_UNAVAILABLE) from None
        return course

    async def _meet(self) -> None:
        status = await self._ask("status")
        known = sorted(row["destination"] for row in status["queues"])
        if self._plan.destination not in known:
            missing = self._plan.destination
            raise StartError(text("drill.no_queue", destination=missing, known=", ".join(known)))
        self.course.bus = str(status["bus"])

    @asynccontextmanager
    async def _taken_away(self) -> AsyncIterator[None]:
        """Take the partner away, and bring it back even when this task is cancelled. A process that
        is killed leaves that to the simulator, which knows for how long it was to be away."""
        for_s = self._plan.down_s + GRACE_S
        trouble = MODES[self._plan.mode]
        try:
            await self._away.switch(msgspec.structs.replace(trouble, for_s=for_s))
            yield
        finally:
            with suppress(asyncio.CancelledError):
                await asyncio.shield(self._away.switch(WELL))

    # -- load -----------------------------------------------------------------------------------

    async def _load(self) -> None:
        """Have System-112 send an incident each 1/rate s, by the clock. Raises Unreachable."""
        begun = time.monotonic()
        for number, incident in enumerate(_incidents()):
            await asyncio.sleep(begun + number / self._plan.rate - time.monotonic())
            self._subjects |= {f"112-{sample.id112}" for sample in incident}
            self.course.calls += 1
            await self._driver.drive([sample.push() for sample in incident])

    # -- watching -------------------------------------------------------------------------------

    async def _watch(self, seconds: float, words: str, load: "asyncio.Task[None]") -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            await self._look(words, load, left)
            await asyncio.sleep(min(LOOK_S, left))

    async def _drain(self, load: "asyncio.Task[None]") -> None:
        """Go on with the load until what gathered is gone, or as long as one is willing to."""
        end = time.monotonic() + self._plan.wait_s
        while await self._look("drill.draining", load, end - time.monotonic()):
            if time.monotonic() > end:
                return
            await asyncio.sleep(LOOK_S)

    async def _look(self, words: str, load: "asyncio.Task[None]", left_s: float) -> bool:
        """Say how it goes; return whether something waits that came before the partner was back."""
        if load.done():
            load.result()
        rows = (await self._ask("queues"))["queues"]
        row = next(row for row in rows if row["destination"] == self._plan.destination)
        count, calls = sum(row[word] for word in OPEN), self.course.calls
        self._show(text(words, name=self._plan.name, left=round(left_s), count=count, calls=calls))
        ready_at = row["oldest_ms"]  # timers, which wait for days, are not ready
        return bool(row["retrying"]) or (ready_at is not None and ready_at < self.course.back_at)

    async def _end(self) -> None:
        """Wait until everything about the drill's calls has ended, and nothing new comes."""
        self._show(text("drill.ending"))
        stories: dict[str, list[Hop]] = {}
        moved: dict[str, float] = {}
        moving = set(self._subjects)
        end = time.monotonic() + self._plan.wait_s
        while moving and time.monotonic() < end:
            served, begun = await self._served(), time.monotonic()
            for subject in sorted(moving):
                story = hops(subject, (await self._ask("trace", subject=subject))["messages"])
                waits = any(hop.state in OPEN and hop.destination in served for hop in story)
                if waits or story != stories.get(subject):
                    moved[subject] = time.monotonic()
                stories[subject] = story
            # By the begin of the round: to ask for all of them may take longer than QUIET_S.
            moving = {subject for subject in moving if begun - moved[subject] < QUIET_S}
            await asyncio.sleep(1.0)
        self.course.hops = [hop for story in stories.values() for hop in story]

    async def _served(self) -> set[str]:
        """Return the queues that somebody empties, and the one that this is about."""
        rows = (await self._ask("queues"))["queues"]
        served = {str(row["destination"]) for row in rows if row["consumers"]}
        return served | {self._plan.destination}

    async def _ask(self, command: str, **args: Any) -> dict[str, Any]:
        return await asyncio.to_thread(ops_request, self._ops, command, 10.0, **args)


def _incidents() -> "itertools.chain[list[Sample]]":
    """Return made-up incidents without end, each with what follows it, and numbers that no other
    drill has."""
    first = now_ms()

    def batch(seed: int) -> list[list[Sample]]:
        day = day_of_cards(seed, BATCH, malformed=False)
        whole: dict[str, list[Sample]] = {}
        for sample in day:
            whole.setdefault(sample.id112.removesuffix("-R"), []).append(sample)
        return list(whole.values())

    return itertools.chain.from_iterable(batch(first + at) for at in itertools.count())
