"""The campaign: play a scenario once, then look at every disk that a power loss could leave.

From each image the real store must start again, hold every accepted message with what had become
of it, hold nothing by halves, be sound inside, and work on. A violation names seed, scenario,
point (how many changes the disk had seen) and variant, which together play it again exactly.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from random import Random
from typing import Final, NamedTuple
from zlib import crc32

import apsw

from router.core.delivery import State
from router.core.output import Batch
from router.store.contract import Opened, StoreError
from router.store.sqlite import SqliteStore
from tests.crash.disk import Disk
from tests.crash.ledger import Holding, ask, matches, open_deliveries
from tests.crash.scenarios import SCENARIOS
from tests.crash.stage import Mismatch, Promise, Stage, StoreFactory
from tests.crash.vfs import mounted
from tests.crash.wreck import WAYS, Key, Platter, fates

PASSES_MAX: Final = 100
FULL_CHECK_EVERY: Final = 8
SUBJECTS_ASKED: Final = 2
SIDE: Final = 99_000  # subject and id of what is written after a recovery


class Violation(AssertionError):
    """A promise that was not kept; `kind` is lost or corrupt."""

    def __init__(self, kind: str, text: str) -> None:
        super().__init__(f"{kind}: {text}")
        self.kind = kind


class Place(NamedTuple):
    """Where a violation is to be found again."""

    scenario: str
    seed: int
    point: int
    variant: int

    def __str__(self) -> str:
        return (
            f"--scenario {self.scenario} --seed {self.seed} --point {self.point}"
            f" --variant {self.variant}"
        )

    def chance(self) -> Random:
        """Return the chance that decides here, each time the same."""
        return Random(" ".join(map(str, tuple(self))))


@dataclass
class Tally:
    """What has been done."""

    images: int = 0
    points: int = 0
    kinds: Counter[str] = field(default_factory=Counter)
    violations: list[tuple[Place, str]] = field(default_factory=list)

    def add(self, other: "Tally") -> None:
        """Add another's."""
        self.images += other.images
        self.points += other.points
        self.kinds += other.kinds
        self.violations += other.violations


@contextmanager
def recorded(
    name: str, seed: int, factory: StoreFactory = SqliteStore, *, sites: bool = False
) -> Iterator[Stage]:
    """Play a scenario to its end, and stay where its disks are."""
    scenario = SCENARIOS[name]
    with mounted(**scenario.settings):
        stage = Stage(Random(f"{name} {seed}"), factory)
        stage.disk.sites = [] if sites else None
        scenario.play(stage)
        stage.store = None
        yield stage
        stage.disk.detach()


def explore(
    name: str,
    seed: int,
    budget: int,
    factory: StoreFactory = SqliteStore,
    *,
    stop_at: int = 10,
) -> Tally:
    """Look at up to `budget` different images of one run, over all its points."""
    tally = Tally()
    try:
        with recorded(name, seed, factory) as stage:
            tally.points = len(stage.log) + 1
            for place, violation in _explore(stage, name, seed, tally, budget):
                tally.kinds[violation.kind] += 1
                tally.violations.append((place, str(violation)))
                if len(tally.violations) >= stop_at:
                    break
    except Mismatch as mismatch:  # it is at odds with the ledger before any power was lost
        tally.kinds["corrupt"] += 1
        tally.violations.append((Place(name, seed, 0, 0), str(mismatch)))
    return tally


def _explore(
    stage: Stage, name: str, seed: int, tally: Tally, budget: int
) -> Iterator[tuple[Place, Violation]]:
    found: dict[Key, Found | Violation] = {}
    for place, key, image in _images(stage, name, seed):
        promise = stage.promise(place.point)
        if key not in found:
            if tally.images == budget:
                return
            found[key] = _recovered(image(), stage.factory, promise, tally.images)
            tally.images += 1
        try:
            judge(found[key], promise)
        except Violation as violation:
            yield place, violation


def replay(place: Place, factory: StoreFactory = SqliteStore) -> Iterator[str]:
    """Tell one image and what came of it, line by line. Raises Violation."""
    with recorded(place.scenario, place.seed, factory) as stage:
        platter = Platter(stage.born).replay(stage.log[: place.point])
        random = place.chance()
        fated = fates(platter.waiting, place.variant, random)
        for op, fate in zip(platter.waiting, fated, strict=True):
            yield f"{op.kind} {op.name or op.inode} {op.offset} +{len(op.data)}: {fate}"
        files = platter.image(fated, random)
        yield f"files: { {name: len(content) for name, content in files.items()} }"
        promise = stage.promise(place.point)
        judge(_recovered(files, factory, promise, 0), promise)
        yield "as promised"


def _images(
    stage: Stage, name: str, seed: int
) -> Iterator[tuple[Place, Key, Callable[[], dict[str, bytes]]]]:
    """Go over all points, again and again, with another fate at each."""
    for number in range(PASSES_MAX):
        platter = Platter(stage.born)
        for point in range(len(stage.log) + 1):
            if point:
                platter.apply(stage.log[point - 1])
            place = Place(name, seed, point, _variant(number, point))
            random = place.chance()
            fated = fates(platter.waiting, place.variant, random)
            yield place, platter.key(fated), partial(platter.image, fated, random)


def _variant(number: int, point: int) -> int:
    """Spread the ways of losing power: even the first pass over the points has them all."""
    if number == 0:
        return 2 + point % len(WAYS)
    if number < 3:
        return (point + number) % 2
    return point % len(WAYS) + number


# -- one image ------------------------------------------------------------------------------------


class Found(NamedTuple):
    """What a store said when it was started on an image, asked for some subjects."""

    opened: Opened
    holding: Holding
    subjects: tuple[str, ...]


def _recovered(
    files: dict[str, bytes], factory: StoreFactory, promise: Promise, number: int
) -> Found | Violation:
    """Check most images quickly, and every few by all means; `number` 0 is one of the latter."""
    subjects = promise.subjects
    if number % FULL_CHECK_EVERY:
        start = number % (len(subjects) or 1)
        subjects = tuple(sorted({*(subjects * 2)[start : start + SUBJECTS_ASKED]}))
    try:
        return recover(files, factory, subjects, full=number % FULL_CHECK_EVERY == 0)
    except Violation as violation:
        # What is kept must not hold the frames, and with them the store, that it came through.
        return violation.with_traceback(None)


def recover(
    files: dict[str, bytes], factory: StoreFactory, subjects: tuple[str, ...], *, full: bool
) -> Found:
    """Start a store on an image, ask it, and let it work on. Raises Violation."""
    disk = Disk(files)
    store = factory(disk.path)
    try:
        opened = store.open()
        store._db.execute("begin")  # one look for all questions: quicker
        found = ask(store, opened, subjects)
        store._db.execute("commit")
        if full and (wrong := store.verify()):
            raise Violation("corrupt", "; ".join(wrong))
        _work_on(store, found)
        if full:
            _start_again(disk, factory, opened, found)
        return Found(opened, found, subjects)
    except (StoreError, apsw.Error, OSError, Mismatch) as error:
        raise Violation("corrupt", f"{type(error).__name__}: {error}") from None
    finally:
        disk.detach()
        abandon(store)


def abandon(store: SqliteStore) -> None:
    """Let go of a store whose disk is of no interest any more."""
    if hasattr(store, "_db"):
        store._db.config(apsw.SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, 1)


def _work_on(store: SqliteStore, found: Holding) -> None:
    """Write a message, and end the oldest open delivery."""
    n, delivery, raw = found.newest_n + 1, found.newest_delivery + 1, b"after the power loss"
    row = (n, "after", str(n), "after", SIDE, delivery, "after", crc32(raw), raw)
    batch = Batch(messages=[row], frontier=1)
    for oldest, of, destination, *_, attempts, _, filed, _, _ in found.open[:1]:
        batch.outcomes.append(
            (oldest, of, destination, State.SETTLED, attempts + 1, SIDE, SIDE, None)
        )
        if filed is not None:
            batch.unfiled.append((destination, filed, oldest, of, 0))
    if repeated := store.write(batch):
        raise Mismatch(f"a new message was taken for an old one: {repeated}")


def _start_again(disk: Disk, factory: StoreFactory, opened: Opened, found: Holding) -> None:
    """Kill the process; the next one must find what the recovered one was told."""
    heir = disk.die()
    store = factory(heir.path)
    again = store.open()
    left = [row.delivery for row in open_deliveries(store)]
    wanted = [*(row[0] for row in found.open[1:]), found.newest_delivery + 1]
    if sorted(left) != sorted(wanted):
        raise Mismatch(f"after the second start {left} are open, not {wanted}")
    if again.generations[-1] in opened.generations:
        raise Mismatch(f"the second start has the generation of the first: {again}")
    if again.bus != opened.bus or again.epoch <= opened.epoch:
        raise Mismatch(f"the second start says {again}")
    if again.next_n != opened.next_n + 1:
        raise Mismatch(f"the second start goes on from {again.next_n}")
    heir.detach()
    abandon(store)


def judge(found: Found | Violation, promise: Promise) -> None:
    """Compare with what was promised. Raises Violation."""
    if isinstance(found, Violation):
        raise found
    opened, holding, subjects = found
    if promise.bus not in (None, opened.bus):
        raise Violation("lost", f"the journal {promise.bus} is gone, this is {opened.bus}")
    if not any(matches(holding, state, subjects) for state in promise.allowed):
        raise Violation(*_difference(found, promise))
    if opened.epoch <= promise.epoch:
        raise Violation("lost", f"epoch {opened.epoch} was given before ({promise.epoch})")


def _difference(found: Found, promise: Promise) -> tuple[str, str]:
    holding, wanted = found.holding, promise.allowed[0]
    if any(matches(holding, state, found.subjects) for state in promise.earlier):
        return "lost", f"an earlier state, up to message {holding.newest_n}, not {wanted.newest_n}"
    gone = {row[0] for row in wanted.open} - {row[0] for row in holding.open}
    back = {row[0] for row in holding.open} - {row[0] for row in wanted.open}
    return "corrupt", (
        f"a state that never was: totals {holding.totals} for {wanted.totals},"
        f" open and gone {sorted(gone)[:9]}, open again or new {sorted(back)[:9]}"
    )
