"""The stage: one store at work on one disk, with a note of every promise it made and when.

A step is one call of the store. Once it has returned, its effect must outlive anything; while it
runs, a power loss leaves it whole or undone.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from random import Random
from typing import Any, NamedTuple

from router.core.output import Batch, Load
from router.store.contract import StoreError
from router.store.sqlite import SqliteStore
from tests.crash.disk import Disk
from tests.crash.ledger import (
    BYTES_MAX,
    Holding,
    Ledger,
    ask,
    letters,
    matches,
    open_deliveries,
    traced,
)
from tests.crash.wreck import Platter, fates

StoreFactory = Callable[[Any], SqliteStore]


@dataclass(slots=True)
class Step:
    """`began` and `returned` are places in the disk's log."""

    name: str
    began: int
    after: Holding | None = None  # None until known
    returned: int | None = None
    bus: str | None = None
    epoch: int = 0
    batch: Batch | None = None
    pruned: frozenset[int] = frozenset()
    word: str = ""  # the generation that numbers


class Promise(NamedTuple):
    """What a store found after a power loss has to hold: one of `allowed`."""

    allowed: tuple[Holding, ...]
    earlier: tuple[Holding, ...]
    subjects: tuple[str, ...]
    bus: str | None
    epoch: int


class Mismatch(AssertionError):
    """A store without any fault answered what it should not have."""


class Stage:
    """Calls the store and notes it."""

    def __init__(self, random: Random, factory: StoreFactory = SqliteStore) -> None:
        self.random = random
        self.factory = factory
        self.disk = Disk()
        self.born = self.disk.born
        self.log = self.disk.log
        self.base = Ledger()
        self.ledger = Ledger()
        self.initial = self.ledger.holding()
        self.floor: tuple[str | None, int] = (None, 0)  # bus and epoch promised before the log
        self.steps: list[Step] = []
        self.store: SqliteStore | None = None
        self.next_n = 1
        self.next_delivery = 1

    def stand_on(
        self, files: dict[str, bytes], ledger: Ledger, floor: tuple[str | None, int]
    ) -> None:
        """Start with what an earlier stage left."""
        self.disk.detach()
        fault, sites = self.disk.fault, self.disk.sites
        self.disk = Disk(files)
        self.disk.fault, self.disk.sites = fault, sites
        self.born, self.log = self.disk.born, self.disk.log
        self.base, self.ledger = ledger, ledger.clone()
        self.initial = ledger.holding()
        self.floor = floor

    def lose_power_under(self, successor: "Stage") -> None:
        """Lose power somewhere, and let another stage stand on what is left."""
        point = self.random.randrange(len(self.log) // 2, len(self.log))
        platter = Platter(self.born).replay(self.log[:point])
        fated = fates(platter.waiting, self.random.randrange(100), self.random)
        left = platter.image(fated, self.random)
        promise = self.promise(point)
        probe = Disk(left)
        store = self.factory(probe.path)
        opened = store.open()
        found = ask(store, opened, promise.subjects)
        for count in range(len(self.steps) + 1):
            ledger = self.ledger_after(count)
            holding = ledger.holding()
            if holding in promise.allowed and matches(found, holding, promise.subjects):
                successor.stand_on(left, ledger, (opened.bus, promise.epoch))
                break
        else:
            raise Mismatch("power was lost, and the store holds something else")
        probe.detach()
        self.disk.detach()

    def ledger_after(self, count: int) -> Ledger:
        """Return the ledger as it was after the first `count` steps."""
        ledger = self.base.clone()
        for step in self.steps[:count]:
            ledger.word = step.word
            if step.batch is not None:
                ledger.apply(step.batch)
            ledger.forget(step.pruned)
        return ledger

    # -- calls ------------------------------------------------------------------------------------

    @contextmanager
    def _step(self, name: str) -> Iterator[Step]:
        last = self.steps[-1] if self.steps else None
        bus, epoch = (last.bus, last.epoch) if last else self.floor
        step = Step(name, len(self.log), bus=bus, epoch=epoch, word=self.ledger.word)
        self.steps.append(step)
        yield step
        if step.after is None:
            step.after = self.ledger.holding()
        step.returned = len(self.log)

    def open(self) -> None:
        """Open the store, which must hold what the ledger does."""
        failed = self.steps[-1] if self.steps and self.steps[-1].returned is None else None
        with self._step("open") as step:
            step.after = self.ledger.holding()
            self.store = self.factory(self.disk.path)
            opened = self.store.open(generation=f"{self.floor[1]}-{len(self.steps)}")
            subjects = self.ledger.subjects()
            found = ask(self.store, opened, subjects)
            if failed is not None and not matches(found, step.after, subjects):
                self.ledger = self.ledger_after(self.steps.index(failed))
                failed.batch, step.after = None, self.ledger.holding()
            if not matches(found, step.after, subjects):
                raise Mismatch("the store holds something else")
            if step.bus not in (None, opened.bus) or opened.epoch <= step.epoch:
                raise Mismatch(f"{opened} after {step.bus} {step.epoch}")
            step.bus, step.epoch = opened.bus, opened.epoch
            if opened.generations[-1][1] == self.ledger.word:
                raise Mismatch("a generation that was given before")
            step.word = self.ledger.word = opened.generations[-1][1]
            self.next_n, self.next_delivery = opened.next_n, opened.next_delivery

    def write(self, batch: Batch) -> None:
        """Write a batch."""
        with self._step("write") as step:
            step.batch = batch
            repeated = self.ledger.apply(batch)
            step.after = self.ledger.holding()
            found = self._at_work().write(batch)
            if found != repeated:
                raise Mismatch(f"repeated {repeated}, the store says {found}")

    def tidy(self) -> int:
        """Take one step of the index."""
        with self._step("tidy"):
            return self._at_work().tidy()

    def prune(self, before_ms: int, limit: int = 1000, passed: bool = False) -> int:
        """Prune; return how many messages went."""
        store, ledger = self._at_work(), self.ledger
        before = set(ledger.messages)
        with self._step("prune") as step:
            store.prune(before_ms, limit, passed)
            step.returned = len(self.log)  # what follows only looks
            left = {row[0] for subject in ledger.subjects() for row in traced(store, subject)}
            gone = before - left
            if not gone <= ledger.forgettable(before_ms):
                raise Mismatch(f"pruned {gone - ledger.forgettable(before_ms)}")
            ledger.forget(gone)
            step.pruned = frozenset(gone)
        return len(gone)

    def look(self) -> None:
        """Read everything back, from the disk and not from SQLite's cache."""
        store = self._at_work()
        with self._step("look"):
            store._db.release_memory()
            for subject in self.ledger.subjects():
                traced(store, subject)
            store._db.release_memory()
            if any(store.subject_steps("R-0", 1)):
                raise Mismatch("a number that nobody gave")
            store._db.release_memory()
            lanes = {(run.destination, run.lane) for run in store.filed()}
            for lane in sorted(lanes):
                store._db.release_memory()
                store.load(Load(*lane))
            store._db.release_memory()
            found = [row.delivery for row in open_deliveries(store)]
            if sorted(found) != sorted(self.ledger.open):
                raise Mismatch("open deliveries")
            store._db.release_memory()
            for destination in (None, "smp"):
                letters(store, destination)
            store._db.release_memory()
            store.letters([*self.ledger.ends], BYTES_MAX)
            store._db.release_memory()
            if wrong := store.verify():  # a read that fails is among what it finds
                failed = bool(self.disk.failures)
                raise (StoreError if failed else Mismatch)("; ".join(wrong))
            store.size_bytes()
            if not store.is_in_place():
                raise Mismatch("the journal is not in its place")
            store._db.release_memory()
            store.empty_bytes()

    def forget_cache(self) -> None:
        """Let SQLite read from the disk again."""
        self._at_work()._db.release_memory()

    def close(self) -> None:
        """Close the store in order."""
        with self._step("close"):
            self._at_work().close()
            self.store = None

    def die(self) -> None:
        """End the process without a word; the kernel lives on."""
        self.disk = self.disk.die()
        self.store = None

    def _at_work(self) -> SqliteStore:
        if self.store is None:
            raise ValueError("the store is not open")
        return self.store

    # -- promises ---------------------------------------------------------------------------------

    def promise(self, point: int) -> Promise:
        """Return what must be found when power is lost after `point` changes of the disk."""
        states = [self.initial]
        bus, epoch = self.floor
        in_flight: list[Holding] = []
        for step in self.steps:
            if step.returned is not None and step.returned <= point:
                states.append(known(step.after))
                bus, epoch = step.bus, step.epoch
                in_flight.clear()
            elif step.began < point:
                in_flight.append(known(step.after))
            else:
                break
        allowed = (states[-1], *in_flight)
        subjects = {subject for state in allowed for subject, _ in state.history}
        return Promise(allowed, tuple(states[:-1]), tuple(sorted(subjects)), bus, epoch)


def known(holding: Holding | None) -> Holding:
    """Return what a finished run has filled in."""
    if holding is None:
        raise ValueError("a step that never ended")
    return holding
