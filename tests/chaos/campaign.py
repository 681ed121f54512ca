"""Random kills under load, and the end in which everything must be accounted for."""

import json
import time
from collections import Counter
from dataclasses import dataclass, field
from random import Random
from typing import Final

from connectors.simulators.sys112.samples import Sample
from tests.chaos.region import CONNECTORS, CONSUMERS, PUBLISHERS, Region
from tests.chaos.verdict import Verdict, judge
from tests.integration.house import (
    check_calls,
    check_care,
    check_reactions,
    without_cancels,
)
from tests.until import wait_for

TARGETS: Final = ("router", *CONNECTORS, *PUBLISHERS, *CONSUMERS)
WEIGHTS: Final = (4, 2, 2, 2, 2, 1, 1, 1, 1)
PROGRESS_S: Final = 5.0
KILLS_PER_CARD: Final = 2
AWAY_MAX_S: Final = 0.3
APART_MAX_S: Final = 0.8


@dataclass
class Campaign:
    """One seed decides who is killed when; the machine decides what it is doing then."""

    kills: int
    seed: int
    killed: Counter[str] = field(default_factory=Counter)
    back_s: list[float] = field(default_factory=list)  # of the router

    def run(self, region: Region) -> Verdict:
        """Kill, let everything end, and judge."""
        random = Random(self.seed)
        day = without_cancels(self.seed, max(4, self.kills // KILLS_PER_CARD))
        region.start_all()
        shown = time.monotonic()
        for number in range(self.kills):
            self._drive(region, day, number)
            time.sleep(random.uniform(0.05, APART_MAX_S))
            self._kill(region, random)
            if time.monotonic() - shown > PROGRESS_S:
                shown = time.monotonic()
                self._show(region, number + 1)
        self._end(region)
        verdict = judge(region.folder)
        self._judge_calls(region, day, verdict)
        self._judge_books(region, verdict)
        return verdict

    def _drive(self, region: Region, day: list[Sample], number: int) -> None:
        """Have 112 send its next cards, so that the connectors are always at work."""
        first, last = (len(day) * at // self.kills for at in (number, number + 1))
        if last > first:
            region.drive(day[first:last])

    def _kill(self, region: Region, random: Random) -> None:
        (name,) = random.choices(TARGETS, WEIGHTS)
        region.kill(name)
        self.killed[name] += 1
        time.sleep(random.uniform(0, AWAY_MAX_S))
        began = time.monotonic()
        region.start(name)
        if name == "router":
            wait_for(lambda: region.ops("status").get("state") == "running", "the router")
            self.back_s.append(time.monotonic() - began)

    def _show(self, region: Region, kills: int) -> None:
        row = region.queue("chaos")
        counts = f"{row['accepted']} accepted, {row['settled']} settled" if row else "no answer"
        print(f"{kills} of {self.kills} kills, {counts}", flush=True)

    @staticmethod
    def _end(region: Region) -> None:
        (region.folder / "stop").touch()
        for name in PUBLISHERS:
            wait_for(lambda name=name: region.processes[name].poll() is not None, name)  # type: ignore[misc]
            if region.processes.pop(name).returncode:
                raise AssertionError(f"{name} failed: {region.log(name)}")
        wait_for(lambda: region.is_drained("chaos"), "the consumers to be done")
        region.settle()

    @staticmethod
    def _judge_calls(region: Region, day: list[Sample], verdict: Verdict) -> None:
        """What the partners have: every card one call, every status once, in order."""
        try:
            check_calls(region, day)
            check_reactions(region)
            check_care(region)
        except AssertionError as error:
            verdict.wrong.append(f"calls: {str(error)[:300] or 'not as they must be'}")

    @staticmethod
    def _judge_books(region: Region, verdict: Verdict) -> None:
        wrong = region.ops("check")["wrong"]
        verdict.wrong += [f"the books of {name} do not balance" for name in wrong]
        row = region.queue("chaos")
        if row["settled"] != row["accepted"] or row["accepted"] != verdict.accepted:
            verdict.wrong.append(f"accepted {verdict.accepted}, the bus says {row}")
        if region.stop("router"):
            verdict.wrong.append("the router did not end well")
        region.run("check", "--at-rest", "--config", str(region.config))

    def last_line(self, verdict: Verdict) -> str:
        """Return the figures as one JSON object."""
        return json.dumps({
            "seed": self.seed, "kills": dict(self.killed), "accepted": verdict.accepted,
            "settled": verdict.settled, "duplicates": verdict.duplicates, "lost": verdict.lost,
            "out_of_order": verdict.out_of_order, "violations": len(verdict.wrong),
            "router_back_worst_s": round(max(self.back_s, default=0.0), 2),
        })  # fmt: skip
