"""The campaign in pieces, each done by itself in whatever process has time."""

from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from tests.crash.campaign import Tally, explore
from tests.crash.scenarios import SCENARIOS
from tests.crash.sweep import Case, Harvest, cases, sweep

TASK_IMAGES: Final = 600
TASK_CASES: Final = 100


class Task(NamedTuple):
    """Some images of one run, or some failures in it."""

    scenario: str
    seed: int
    images: int = 0
    cases: tuple[Case, ...] = ()


def work(task: Task) -> tuple[Tally, Harvest]:
    """Do one task, in a process of its own."""
    if task.cases:
        return Tally(), sweep(task.scenario, task.seed, list(task.cases))
    return explore(task.scenario, task.seed, task.images), Harvest()


def numbered(task: tuple[int, Task]) -> tuple[int, tuple[Tally, Harvest]]:
    """Do a task, and say which it was."""
    return task[0], work(task[1])


def image_tasks(names: list[str], seed: int, wanted: int) -> Iterator[Task]:
    """Yield one round over the scenarios, for up to `wanted` images."""
    weights = sum(SCENARIOS[name].weight for name in names)
    for name in names:
        share = SCENARIOS[name].weight / weights
        yield Task(name, seed, images=max(1, min(TASK_IMAGES, round(wanted * share + 0.5))))


def sweep_tasks(names: Iterable[str], seed: int, every_call: bool) -> Iterator[Task]:
    """Yield the failures at every call, or at one call from every place in the store."""
    seen: set[object] | None = None if every_call else set()
    for name in names:
        found = list(cases(name, seed, seen))
        for start in range(0, len(found), TASK_CASES):
            yield Task(name, seed, cases=tuple(found[start : start + TASK_CASES]))
