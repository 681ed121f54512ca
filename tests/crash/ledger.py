"""The ledger: what a store was told, kept without a store, to compare a store with.

It knows the contract (`router/store/contract.py`) and nothing of how a store keeps it.
"""

from collections.abc import Collection, Iterable
from copy import copy
from typing import Any, NamedTuple

from router.core.delivery import State
from router.core.generations import Generations
from router.core.output import Batch, Load, OpenDelivery
from router.store.contract import Opened, Store, StoreError, Which
from router.store.head import HEAD_BYTES

WORDS = {State.SETTLED: "settled", State.DEAD: "dead", State.EXPIRED: "expired"}
DEAD = State.DEAD
ROWS_MAX = 100_000
BYTES_MAX = 2**40


class Holding(NamedTuple):
    """All that a store answers, in a form that compares. `newest_*` were given at least once."""

    totals: tuple[tuple[str, str, int], ...]
    open: tuple[tuple[Any, ...], ...]
    dead: tuple[tuple[Any, ...], ...]
    holds: tuple[tuple[str, str], ...]
    history: tuple[tuple[str, tuple[Any, ...]], ...]  # of the watched subjects
    newest_n: int
    newest_delivery: int


class Ledger:
    """Messages, deliveries and what became of them."""

    def __init__(self) -> None:
        self.messages: dict[int, tuple[Any, ...]] = {}
        self.open: dict[int, tuple[int, str]] = {}  # delivery -> n, destination
        self.ends: dict[int, tuple[Any, ...]] = {}
        self.attempts: dict[int, list[tuple[Any, ...]]] = {}
        self.filed: dict[int, int] = {}  # delivery -> lane
        self.hashes: dict[int, int] = {}  # delivery -> hash of its subject, of what is filed
        self.holds: dict[str, str] = {}
        self.totals: dict[tuple[str, str], int] = {}
        self.known: dict[tuple[str, str], int] = {}
        self.word = ""  # the generation that numbers now
        self.words: dict[int, str] = {}  # delivery -> its generation
        self.watched: tuple[str, ...] | None = None  # subjects; None is all
        self.newest_n = 0
        self.newest_delivery = 0

    def clone(self) -> "Ledger":
        """Return one that goes its own way from here."""
        twin = Ledger()
        twin.__dict__.update({name: copy(value) for name, value in self.__dict__.items()})
        twin.attempts = {delivery: list(rows) for delivery, rows in self.attempts.items()}
        return twin

    def apply(self, batch: Batch) -> dict[int, int]:
        """Take in a batch, and return the repeated messages as a store has to."""
        repeated = {}
        for row in batch.messages:
            n, source, id, _, _, first, destinations, _, _ = row
            if (before := self.known.setdefault((source, id), n)) != n:
                repeated[n] = before
                continue
            self.messages[n] = row
            self.newest_n = n
            for delivery, destination in enumerate(destinations.split(" "), first):
                self.open[delivery] = (n, destination)
                self.words[delivery] = self.word
                self._count(destination, "accepted")
                self.newest_delivery = delivery
        for end in batch.outcomes:
            del self.open[end[0]]
            self.ends[end[0]] = end
            self._count(end[2], WORDS[State(end[3])])
        for attempt in batch.attempts:
            self.attempts.setdefault(attempt[0], []).append(attempt)
        self._obey(batch)
        kept = [row for row in batch.spilled if row[3] not in repeated]
        for _, lane, delivery, _, subject_hash in (*batch.filed, *kept):
            self.filed[delivery] = lane
            self.hashes[delivery] = subject_hash
        for _, _, delivery, *_ in batch.unfiled:
            del self.filed[delivery], self.hashes[delivery]
        return repeated

    def _obey(self, batch: Batch) -> None:
        for delivery, destination in batch.reopened:
            self.open[delivery] = (self.ends.pop(delivery)[1], destination)
            self._count(destination, "dead", -1)
        for delivery, destination, reason in batch.dropped:
            *end, note = self.ends[delivery]
            end[3] = State.DROPPED
            self.ends[delivery] = (*end, f"{note}; {reason}" if note else reason)
            self._count(destination, "dead", -1)
            self._count(destination, "dropped")
        for destination, why in batch.holds.items():
            self.holds.pop(destination, None)
            if why is not None:
                self.holds[destination] = why

    def _count(self, destination: str, word: str, by: int = 1) -> None:
        key = destination, word
        self.totals[key] = self.totals.get(key, 0) + by

    def forgettable(self, before_ms: int) -> set[int]:
        """Return the messages that a prune may take."""
        return {
            n
            for n, row in self.messages.items()
            if row[4] < before_ms
            and all(
                delivery in self.ends and self.ends[delivery][3] != DEAD
                for delivery, _ in _deliveries(row)
            )
        }

    def forget(self, pruned: Iterable[int]) -> None:
        """Take messages out."""
        for n in pruned:
            row = self.messages.pop(n)
            del self.known[row[1], row[2]]
            for delivery, _ in _deliveries(row):
                del self.ends[delivery]
                self.attempts.pop(delivery, None)

    def subjects(self) -> tuple[str, ...]:
        """Return the watched subjects."""
        if self.watched is not None:
            return self.watched
        return tuple(sorted({row[3] for row in self.messages.values()}))

    def holding(self) -> Holding:
        """Return what a store has to answer now."""
        return Holding(
            tuple(sorted((*key, count) for key, count in self.totals.items())),
            tuple(self._open_row(delivery) for delivery in sorted(self.open)),
            tuple(self._dead_row(end) for _, end in sorted(self.ends.items()) if end[3] == DEAD),
            tuple(sorted(self.holds.items())),
            _histories((subject, self._history(subject)) for subject in self.subjects()),
            self.newest_n,
            self.newest_delivery,
        )

    def _open_row(self, delivery: int) -> tuple[Any, ...]:
        n, destination = self.open[delivery]
        row = self.messages[n]
        tried = self.attempts.get(delivery)
        attempts, due = (tried[-1][1], tried[-1][5]) if tried else (0, None)
        replayed = [at for _, _, at, word, *_ in tried or () if word == "replayed"]
        since = replayed[-1] if replayed else row[4]
        filed = self.filed.get(delivery), self.hashes.get(delivery)
        word = self.words[delivery]
        return delivery, n, destination, since, row[8], attempts, due, *filed, word

    def _dead_row(self, end: tuple[Any, ...]) -> tuple[Any, ...]:
        delivery, n, destination, _, attempts, _, ended_at, note = end
        row = self.messages[n]
        return delivery, n, destination, row[4], row[8], attempts, ended_at, note

    def _history(self, subject: str) -> tuple[Any, ...]:
        return tuple(
            (n, row[2], row[1], row[4], row[8][:HEAD_BYTES], len(row[8]),
             tuple(map(self._fate, _deliveries(row))))
            for n, row in sorted(self.messages.items())
            if row[3] == subject
        )  # fmt: skip

    def _fate(self, of: tuple[int, str]) -> tuple[Any, ...]:
        delivery, destination = of
        end = self.ends.get(delivery)
        ended = end[3:] if end else (None, 0, None, None, None)
        tried = [
            (at, word, note, due)
            for _, _, at, word, note, due, _ in self.attempts.get(delivery, ())
        ]
        return delivery, destination, *ended, tuple(tried)


def _deliveries(row: tuple[Any, ...]) -> list[tuple[int, str]]:
    return list(enumerate(row[6].split(" "), row[5]))


def _histories(
    all_of_them: Iterable[tuple[str, tuple[Any, ...]]],
) -> tuple[tuple[str, tuple[Any, ...]], ...]:
    return tuple(one for one in all_of_them if one[1])


def matches(found: Holding, wanted: Holding, subjects: Collection[str]) -> bool:
    """Whether a store that was asked for these subjects holds just that.

    It may have given more numbers.
    """
    return (
        found[:4] == wanted[:4]
        and found.history == tuple(one for one in wanted.history if one[0] in subjects)
        and found.newest_n >= wanted.newest_n
        and found.newest_delivery >= wanted.newest_delivery
    )


def open_deliveries(store: Store) -> list[OpenDelivery]:
    """Return everything that is open, as a start and the loads after it find it."""
    found = list(store.recent())
    for destination, lane in sorted({(run.destination, run.lane) for run in store.filed()}):
        filed: list[OpenDelivery] = []
        while rows := store.load(Load(destination, lane, filed[-1].delivery if filed else 0)):
            filed += rows
        places = tuple((row.delivery, lane) for row in filed)
        if store.load(Load(destination, places=places)) != filed:
            raise StoreError(f"the lane {lane} of {destination} reads otherwise row by row")
        found += filed
    return found


def ask(store: Store, opened: Opened, subjects: Iterable[str]) -> Holding:
    """Return what a store answers, in the form of the ledger."""
    totals = [
        (destination, word, count)
        for destination, words in opened.totals.items()
        for word, count in words.items()
    ]
    hashes: dict[int, int] = {}
    for run in store.filed():
        hashes.update(zip(run.deliveries, run.hashes, strict=True))
    generations = Generations(opened.generations)
    rows = [
        (d.delivery, d.n, d.destination, d.accepted_at, d.raw, d.attempts, d.due, d.filed,
         hashes.get(d.delivery), generations.of(d.delivery))
        for d in open_deliveries(store)
    ]  # fmt: skip
    return Holding(
        tuple(sorted(totals)),
        tuple(sorted(rows, key=lambda row: row[0])),
        tuple(
            (d.delivery, d.n, d.destination, d.accepted_at, d.raw, d.attempts, d.ended_at, d.note)
            for d in letters(store)
        ),
        tuple(sorted(opened.holds.items())),
        _histories((subject, traced(store, subject)) for subject in subjects),
        opened.next_n - 1,
        opened.next_delivery - 1,
    )


def letters(store: Store, destination: str | None = None) -> list[OpenDelivery]:
    """Return the dead letters, whole, as the steps of both directions find them."""
    found = [one for step in store.dead_steps(Which(destination)) for one in step]
    newest = [one for step in store.dead_steps(Which(destination), newest=True) for one in step]
    if found != newest[::-1]:
        raise StoreError("dead letters read otherwise the other way round")
    return store.letters([one.delivery for one in found], BYTES_MAX)


def traced(store: Store, subject: str) -> tuple[Any, ...]:
    """Return a subject's messages in the form of the ledger."""
    messages: list[dict[str, Any]] = [
        one for step in store.trace_steps(subject, ROWS_MAX) for one in step
    ]
    return tuple(
        (one["n"], one["id"], one["source"], one["accepted_at"], one["head"], one["size"],
         tuple(_as_fate(delivery) for delivery in one["deliveries"]))
        for one in messages[::-1]
    )  # fmt: skip


def _as_fate(one: dict[str, Any]) -> tuple[Any, ...]:
    names = ("delivery", "destination", "state", "attempts", "delivered_at", "ended_at", "note")
    tried = [(row["at"], row["outcome"], row["note"], row["due"]) for row in one["history"]]
    return *(one[name] for name in names), tuple(tried)
