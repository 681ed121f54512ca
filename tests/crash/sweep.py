"""The I/O error sweep: every call that the store makes of the system fails once.

The process then ends as the router does (router/shell/writer.py), and what it had been told is
accepted must be there: for its successor on the same kernel, and after a power loss.
"""

import ast
import errno
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Final, NamedTuple

import apsw

from router.store.contract import StoreError
from router.store.sqlite import SqliteStore
from tests.crash.campaign import Violation, judge, recorded, recover
from tests.crash.disk import ROOM_KINDS, STORE_FILES, Fault, Site
from tests.crash.scenarios import SCENARIOS
from tests.crash.stage import Mismatch, Stage, StoreFactory
from tests.crash.vfs import mounted
from tests.crash.wreck import Platter, fates

MARKS: Final = ("lasts", "reverts", "partly")
# The failed sync is a scenario of its own, with a fault of its own.
SWEPT: Final = tuple(name for name in SCENARIOS if name != "failed-sync")
# What SQLite, a path or the system is asked by.
CALLS: Final = frozenset(
    {"Connection", "execute", "close", "_rows", "_one"}
    | {"exists", "stat", "unlink", "rename", "glob", "open", "fsync"}
)
VARIANTS: Final = (0, 6)  # everything lost, some of it; the kernel's view has it all


class Case(NamedTuple):
    """One failure of one run."""

    scenario: str
    seed: int
    fault: Fault

    def __str__(self) -> str:
        fault = self.fault
        marks = "".join(f" --{name}" for name in MARKS if getattr(fault, name))
        return (
            f"--scenario {self.scenario} --seed {self.seed} --fail-at {fault.at}"
            f" --error {errno.errorcode[fault.error]}{marks}"
        )


@dataclass
class Harvest:
    """What has been done: failures by where they hit and what the store made of them."""

    errors: int = 0
    hit: Counter[tuple[Site, str]] = field(default_factory=Counter)  # where, and the answer
    violations: list[tuple[Case, str]] = field(default_factory=list)

    def add(self, other: "Harvest") -> None:
        """Add another's."""
        self.errors += other.errors
        self.hit += other.hit
        self.violations += other.violations

    @property
    def functions(self) -> set[str]:
        """Return the store's functions that have met a failure."""
        return {name for site, _ in self.hit for name, _ in site.stack}


def touching() -> set[str]:
    """Return the store's functions that call the system, by its source."""
    trees = [ast.parse(Path(file).read_text(encoding="utf-8")) for file in STORE_FILES]
    return {
        function.name
        for tree in trees
        for function in ast.walk(tree)
        if isinstance(function, ast.FunctionDef)
        for node in ast.walk(function)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in CALLS
    }


def cases(name: str, seed: int, seen: set[object] | None = None) -> Iterator[Case]:
    """Yield the failures of a scenario: at every call, or only where none was `seen` before."""
    with recorded(name, seed, sites=True) as stage:
        sites = stage.disk.sites or []
    for at, site in enumerate(sites, 1):
        if seen is not None:
            if site in seen:
                continue
            seen.add(site)
        yield Case(name, seed, Fault(at))
        yield Case(name, seed, Fault(at, lasts=True))
        if site.kind in ROOM_KINDS:
            yield Case(name, seed, Fault(at, errno.ENOSPC))
        if site.kind == "sync":
            yield Case(name, seed, Fault(at, reverts=True))
            yield Case(name, seed, Fault(at, partly=True))


def sweep(name: str, seed: int, wanted: list[Case], factory: StoreFactory = SqliteStore) -> Harvest:
    """Let each of these failures happen."""
    harvest = Harvest()
    with recorded(name, seed, factory) as reference:
        pass
    for case in wanted:
        _fail(case, reference, factory, harvest)
    return harvest


def _fail(case: Case, reference: Stage, factory: StoreFactory, harvest: Harvest) -> None:
    scenario = SCENARIOS[case.scenario]
    with mounted(**scenario.settings):
        stage = Stage(Random(f"{case.scenario} {case.seed}"), factory)
        stage.disk.fault = case.fault
        answer = "none"
        try:
            scenario.play(stage)
        except (apsw.Error, OSError, StoreError) as error:
            answer = type(error).__name__
        except Mismatch as mismatch:
            harvest.violations.append((case, str(mismatch)))
            return
        failures = stage.disk.failures
        harvest.errors += len(failures)
        harvest.hit.update((site, answer) for site in failures[:1])
        stage.die()
        stage.disk.fault = None
        for step, model in zip(stage.steps, reference.steps, strict=False):
            step.after = model.after
        try:
            _look_after(stage, case)
        except Violation as violation:
            where = f"{failures[0]}, answered {answer}: " if failures else "no failure: "
            harvest.violations.append((case, where + str(violation)))
        stage.disk.detach()


def _look_after(stage: Stage, case: Case) -> None:
    promise = stage.promise(len(stage.log) + 1)
    judge(recover(stage.disk.files(), stage.factory, promise.subjects, full=True), promise)
    platter = Platter(stage.born).replay(stage.log)
    for variant in VARIANTS:
        random = Random(f"{case} {variant}")
        files = platter.image(fates(platter.waiting, variant, random), random)
        judge(recover(files, stage.factory, promise.subjects, full=False), promise)
