"""`python -m tests.crash`: the campaign at length, on every processor asked for.

Prints a line every few seconds and ends with one line of JSON; exit code 1 and the arguments that
replay it when a promise was broken.
"""

import argparse
import errno
import json
import multiprocessing
import sys
import time
from collections.abc import Iterable
from typing import Final

from tests.crash.campaign import Place, Tally, Violation, replay
from tests.crash.disk import Fault
from tests.crash.scenarios import SCENARIOS
from tests.crash.sweep import MARKS, SWEPT, Case, Harvest, sweep
from tests.crash.task import Task, image_tasks, numbered, sweep_tasks

REPORT_S: Final = 3.0
VIOLATIONS_MAX: Final = 20


class Campaign:
    """Sums up, and says how far it is."""

    def __init__(self, wanted: int) -> None:
        self.wanted = wanted
        self.tally, self.harvest = Tally(), Harvest()
        self.played: set[str] = set()
        self.began = self.said = time.monotonic()
        self.imaging = self.began  # since when images are looked at

    @property
    def broken(self) -> int:
        """Return how often a promise was not kept."""
        return len(self.tally.violations) + len(self.harvest.violations)

    @property
    def rate(self) -> float:
        """Return images a second."""
        return self.tally.images / (time.monotonic() - self.imaging)

    def take(self, task: Task, done: tuple[Tally, Harvest]) -> None:
        """Add what a task brought."""
        tally, harvest = done
        self.tally.add(tally)
        self.harvest.add(harvest)
        self.played.add(task.scenario)
        for where, text in (*tally.violations, *harvest.violations):
            print(f"VIOLATION {text}\n  replay: python -m tests.crash {where}", flush=True)
        if time.monotonic() - self.said > REPORT_S:
            self.say()

    def say(self) -> None:
        """Print where it stands."""
        self.said = time.monotonic()
        print(
            f"{self.tally.images} of {self.wanted} images, {self.rate:.0f}/s,"
            f" {self.harvest.errors} I/O errors, {self.broken} violations",
            flush=True,
        )

    def summary(self, seed: int) -> dict[str, object]:
        """Return the last line."""
        seconds = time.monotonic() - self.began
        swept = len(self.harvest.violations)
        return {
            "images": self.tally.images,
            "scenarios": len(self.played),
            "lost": self.tally.kinds["lost"],
            "corrupt": self.tally.kinds["corrupt"],
            "io_errors": self.harvest.errors,
            "io_error_sites": len({site for site, _ in self.harvest.hit}),
            "io_error_violations": swept,
            "seed": seed,
            "images_per_s": round(self.rate),
            "seconds": round(seconds, 1),
        }


def run(arguments: argparse.Namespace) -> int:
    """Run the campaign; return the exit code."""
    names = [arguments.scenario] if arguments.scenario else list(SCENARIOS)
    campaign = Campaign(arguments.images)
    with multiprocessing.get_context("spawn").Pool(arguments.jobs) as pool:

        def each(tasks: Iterable[Task]) -> None:
            listed = list(tasks)
            for number, done in pool.imap_unordered(numbered, list(enumerate(listed))):
                campaign.take(listed[number], done)
                if campaign.broken >= VIOLATIONS_MAX:
                    break

        if arguments.sweep != "none":
            swept = [name for name in names if name in SWEPT]
            each(sweep_tasks(swept, arguments.seed, arguments.sweep == "calls"))
        campaign.imaging = time.monotonic()
        seed = arguments.seed
        while campaign.tally.images < arguments.images and campaign.broken < VIOLATIONS_MAX:
            left = arguments.images - campaign.tally.images
            rounds: list[Task] = []
            while left > 0:
                tasks = list(image_tasks(names, seed, left))
                rounds += tasks
                left -= sum(task.images for task in tasks)
                seed += 1
            each(rounds)
    print(json.dumps(campaign.summary(arguments.seed)))
    return 1 if campaign.broken else 0


def again(arguments: argparse.Namespace) -> int:
    """Play one image or one failure again; return the exit code."""
    if arguments.fail_at:
        marks = {name: getattr(arguments, name) for name in MARKS}
        fault = Fault(arguments.fail_at, getattr(errno, arguments.error), **marks)
        case = Case(arguments.scenario, arguments.seed, fault)
        harvest = sweep(case.scenario, case.seed, [case])
        for site, answer in harvest.hit:
            print(site, "answered", answer)
        for _, text in harvest.violations:
            print(text)
        return 1 if harvest.violations else 0
    place = Place(arguments.scenario, arguments.seed, arguments.point, arguments.variant)
    try:
        for line in replay(place):
            print(line)
    except Violation as violation:
        print(violation)
        return 1
    return 0


def main() -> int:
    """Read the arguments and run."""
    parser = argparse.ArgumentParser(prog="python -m tests.crash", description=__doc__)
    parser.add_argument("--images", type=int, default=100_000)
    parser.add_argument("--jobs", type=int, default=2)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--scenario", choices=list(SCENARIOS))
    parser.add_argument("--sweep", choices=("calls", "places", "none"), default="calls")
    one = parser.add_argument_group("play one image or one failure again")
    one.add_argument("--point", type=int)
    one.add_argument("--variant", type=int, default=0)
    one.add_argument("--fail-at", type=int)
    one.add_argument("--error", choices=("EIO", "ENOSPC"), default="EIO")
    for name in MARKS:
        one.add_argument(f"--{name}", action="store_true")
    arguments = parser.parse_args()
    if arguments.point is None and arguments.fail_at is None:
        return run(arguments)
    if not arguments.scenario:
        parser.error("--point and --fail-at want a --scenario")
    return again(arguments)


if __name__ == "__main__":
    sys.exit(main())
