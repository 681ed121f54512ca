"""Many seeds on several processes, and a failing one made short enough to read."""

import json
import time
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from dataclasses import dataclass, field
from itertools import islice

from tests.simulation.life import End, live
from tests.simulation.plan import Plan, draw, say, show
from tests.simulation.shrink import Shrinker

PROGRESS_S = 3.0
CHUNK = 10  # seeds handed to a process at once
SHOWN_MAX = 3  # failing seeds that are shrunk


@dataclass(frozen=True)
class Campaign:
    """Which seeds are lived, and for how long."""

    first: int
    seeds: int
    steps: int
    jobs: int


@dataclass
class Tally:
    """What came of the seeds so far."""

    seeds: int = 0
    steps: int = 0
    crashes: int = 0
    failed: list[End] = field(default_factory=list)

    def add(self, ends: list[End]) -> None:
        """Count these."""
        self.seeds += len(ends)
        self.steps += sum(end.steps for end in ends)
        self.crashes += sum(end.crashes for end in ends)
        self.failed += [end for end in ends if end.promise]

    def last_line(self) -> str:
        """Return the figures as one JSON object."""
        return json.dumps({"seeds": self.seeds, "steps": self.steps, "crashes": self.crashes,
                           "violations": len(self.failed)})  # fmt: skip


def run(campaign: Campaign) -> Tally:
    """Live all seeds of a campaign; print how it goes."""
    tally, began = Tally(), time.monotonic()
    shown = began
    for ends in _lived(campaign):
        tally.add(ends)
        for end in ends:
            if end.promise:
                print(f"seed {end.seed}, step {end.steps}: {end.promise}: {end.detail}", flush=True)
        now = time.monotonic()
        if now - shown >= PROGRESS_S or tally.seeds == campaign.seeds:
            shown = now
            rate = tally.seeds / (now - began)
            print(f"{tally.seeds} of {campaign.seeds} seeds, {rate:.1f} a second, {tally.steps}"
                  f" steps, {tally.crashes} crashes, {len(tally.failed)} violations",
                  flush=True)  # fmt: skip
    return tally


def _lived(campaign: Campaign) -> Iterator[list[End]]:
    last = campaign.first + campaign.seeds
    chunks = iter(range(at, min(at + CHUNK, last)) for at in range(campaign.first, last, CHUNK))
    if campaign.jobs == 1:
        for chunk in chunks:
            yield _live_all(campaign, chunk)
        return
    with ProcessPoolExecutor(campaign.jobs) as pool:
        ahead = islice(chunks, 3 * campaign.jobs)
        going: set[Future[list[End]]] = {pool.submit(_live_all, campaign, one) for one in ahead}
        while going:
            done, going = wait(going, return_when=FIRST_COMPLETED)
            for future in done:
                going |= {pool.submit(_live_all, campaign, one) for one in islice(chunks, 1)}
                yield future.result()


def _live_all(campaign: Campaign, seeds: range) -> list[End]:
    return [live(draw(seed, campaign.steps)) for seed in seeds]


def explain(campaign: Campaign, failed: list[End]) -> None:
    """Shrink a failing seed of each kind, and print what is left of it."""
    kinds = {end.promise: end for end in sorted(failed, key=lambda end: -end.steps)}
    for end in list(kinds.values())[:SHOWN_MAX]:
        plan = shortened(draw(end.seed, campaign.steps), end)
        again = live(plan)
        print(f"\n{show(plan)}\n  => {again.promise}: {again.detail}", flush=True)


def shortened(plan: Plan, end: End) -> Plan:
    """Return a short plan that breaks the same promise."""

    def fails(candidate: Plan) -> bool:
        return live(candidate).promise == end.promise

    return Shrinker(fails).shrink(plan, end.steps)


def replay(campaign: Campaign) -> Tally:
    """Live one seed again and print its steps up to the end."""
    plan = draw(campaign.first, campaign.steps)
    end = live(plan)
    for number, (name, numbers) in enumerate(plan.actions[: end.steps], 1):
        print(f"{number:4} {name} {say(name, numbers)}")
    print(f"=> {end.promise}: {end.detail}" if end.promise else "=> every promise was kept")
    tally = Tally()
    tally.add([end])
    return tally
