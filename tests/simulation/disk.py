"""The disk: `router.store.contract.Store` in memory, with the same reading rules as the journal.

A batch is atomic: after a crash it is there whole or not at all. What a start finds is read from
the frontier on and from the backlog, as the journal reads it, so that what hides behind a wrong
frontier is truly lost here too.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import groupby

from msgspec.structs import replace

from router.core.delivery import State
from router.core.output import BacklogRow, Batch, Filed, Load, OpenDelivery
from tests.simulation.promise import broken

WORDS = {State.SETTLED: "settled", State.DEAD: "dead", State.EXPIRED: "expired"}
TOTALS = ("accepted", "settled", "dead", "expired", "dropped")
FRONTIER_STEP = 5
LOAD_LENGTH_MAX = 3
RUN_LENGTH = 3


class DiskError(Exception):
    """A write failed: nobody knows what the disk holds."""


class Disk:
    """What would be found after a crash."""

    def __init__(self) -> None:
        self.epoch = 0
        self.messages: dict[int, tuple[int, bytes]] = {}  # n -> accepted at, raw
        self.names: dict[tuple[str, str], int] = {}  # (source, id) -> n
        self.keys: dict[int, tuple[str, str]] = {}  # n -> (source, id)
        self.deliveries: dict[int, tuple[int, str]] = {}  # delivery -> n, destination
        self.of_message: dict[int, range] = {}  # n -> its deliveries
        self.open: dict[int, int] = {}  # delivery -> n, without those in the backlog
        self.backlog: dict[int, BacklogRow] = {}  # delivery -> its row
        self.ended: dict[int, tuple[State, int]] = {}  # delivery -> how, after which attempt
        # delivery -> number, due and age at the latest
        self.attempts: dict[int, tuple[int, int | None, int]] = {}
        self.deaths: dict[int, tuple[int, int]] = {}  # delivery -> of its consumers; alone with it
        self.replayed: set[int] = set()
        self.holds: dict[str, str] = {}
        self.totals: dict[str, dict[str, int]] = {}
        self.frontier = 1
        self.failing: bool | None = None  # the next write raises, and keeps the batch or not

    # -- writing ----------------------------------------------------------------------------------

    def write(self, batch: Batch) -> dict[int, int]:
        """See Store.write. Raises DiskError when it was told to fail."""
        if self.failing is not None:
            if self.failing:
                self._write(batch)
            raise DiskError
        return self._write(batch) if batch.writes else {}

    def _write(self, batch: Batch) -> dict[int, int]:
        duplicates = self._insert(batch)
        for delivery, number, _, word, _, due, age in batch.attempts:
            self.attempts[delivery] = number, due, age
            deaths, alone = self.deaths.get(delivery, (0, 0))
            if word in ("retry", "replayed"):
                self.deaths[delivery] = 0, 0
            elif word != "returned":
                self.deaths[delivery] = deaths + 1, alone + (word == "vanished_alone")
        for row in batch.outcomes:
            self._end(row[0], row[1], row[2], State(row[3]), row[4])
        for delivery, name in batch.reopened:
            self._reopen(delivery, name)
        for delivery, name, _ in batch.dropped:
            self._drop(delivery, name)
        for name, reason in batch.holds.items():
            if reason is None:
                self.holds.pop(name, None)
            else:
                self.holds[name] = reason
        self._file(batch, duplicates)
        return duplicates

    def _insert(self, batch: Batch) -> dict[int, int]:
        duplicates: dict[int, int] = {}
        for n, source, id, _, at, first, destinations, _, raw in batch.messages:
            known = self.names.setdefault((source, id), n)
            if known != n:
                duplicates[n] = known
                continue
            if n in self.messages or n < self.frontier:
                broken("numbers", f"message {n} is there already or below the frontier")
            names = destinations.split(" ")
            self.messages[n] = at, raw
            self.keys[n] = source, id
            self.of_message[n] = range(first, first + len(names))
            for delivery, name in enumerate(names, first):
                if delivery in self.deliveries:
                    broken("numbers", f"delivery {delivery} is given twice")
                self.deliveries[delivery] = n, name
                self.open[delivery] = n
                self._count(name, "accepted", 1)
        return duplicates

    def _end(self, delivery: int, n: int, name: str, state: State, attempts: int) -> None:
        if delivery in self.ended:
            broken("ends once", f"delivery {delivery} ended twice")
        if self.deliveries.get(delivery) != (n, name):
            broken("numbers", f"delivery {delivery} is not message {n} at {name}")
        self.open.pop(delivery, None)
        self.ended[delivery] = state, attempts
        self._count(name, WORDS[state], 1)

    def _reopen(self, delivery: int, name: str) -> None:
        state, _ = self.ended.pop(delivery, (None, 0))
        if state is not State.DEAD:
            broken("replay", f"delivery {delivery} was reopened but is not dead")
        self.replayed.add(delivery)
        self._count(name, "dead", -1)

    def _drop(self, delivery: int, name: str) -> None:
        state, attempts = self.ended.get(delivery, (None, 0))
        if state is not State.DEAD:
            broken("replay", f"delivery {delivery} was dropped but is not dead")
        self.ended[delivery] = State.DROPPED, attempts
        self._count(name, "dead", -1)
        self._count(name, "dropped", 1)

    def _file(self, batch: Batch, duplicates: dict[int, int]) -> None:
        kept = [row for row in batch.spilled if row[3] not in duplicates]
        filed = {row[:3] for row in self.backlog.values()}
        for row in (*batch.filed, *kept):
            self.open.pop(row[2], None)
            if row[:3] in filed:
                broken("backlog", f"delivery {row[2]} is filed twice as {row}")
            filed.add(row[:3])
            self.backlog[row[2]] = row
        for row in batch.unfiled:
            if row[:3] not in filed:
                broken("backlog", f"delivery {row[2]} was not filed as {row}")
            if self.backlog[row[2]][:3] == row[:3]:  # else it moved to another lane
                del self.backlog[row[2]]
        for id in (*(row[0] for row in batch.outcomes), *(row[2] for row in batch.filed)):
            if id in self.backlog and id in self.ended:
                broken("backlog", f"delivery {id} has ended and is still filed as open")
        if self.open and (least := next(iter(self.open.values()))) < batch.frontier:
            broken("frontier", f"{batch.frontier}, but message {least} below it is open")
        if batch.filed or batch.frontier >= self.frontier + FRONTIER_STEP:
            self.frontier = batch.frontier

    def _count(self, name: str, word: str, by: int) -> None:
        totals = self.totals.get(name)
        if totals is None:
            totals = self.totals[name] = dict.fromkeys(TOTALS, 0)
        totals[word] += by

    # -- reading ----------------------------------------------------------------------------------

    def filed(self) -> Iterator[Filed]:
        """See Store.filed."""
        for place, lane in groupby(sorted(self.backlog.values()), key=lambda row: row[:2]):
            rows = list(lane)
            for at in range(0, len(rows), RUN_LENGTH):
                run = rows[at : at + RUN_LENGTH]
                yield Filed(place[0], place[1], [row[2] for row in run], [row[4] for row in run])

    def recent(self) -> Iterator[OpenDelivery]:
        """See Store.recent."""
        for n, deliveries in self.of_message.items():
            if n >= self.frontier:
                for delivery in deliveries:
                    if delivery not in self.ended and delivery not in self.backlog:
                        yield self._row(delivery, None)

    def load(self, load: Load) -> list[OpenDelivery]:
        """See Store.load."""
        if load.places:
            rows = [self.backlog.get(delivery) for delivery, _ in load.places]
            found = [row for row in rows if row is not None and (row[2], row[1]) in load.places]
            if load.wakes:
                found = found[:LOAD_LENGTH_MAX]
        else:
            found = sorted(
                row
                for row in self.backlog.values()
                if row[:2] == (load.destination, load.lane) and row[2] > load.after
            )[:LOAD_LENGTH_MAX]
        return [self._row(delivery, lane) for _, lane, delivery, *_ in found]

    def dead(self, destination: str) -> list[OpenDelivery]:
        """See Store.dead."""
        return [
            replace(self._row(delivery, None), attempts=attempts, due=None)
            for delivery, (state, attempts) in sorted(self.ended.items())
            if state is State.DEAD and self.deliveries[delivery][1] == destination
        ]

    def _row(self, delivery: int, filed: int | None) -> OpenDelivery:
        n, name = self.deliveries[delivery]
        at, raw = self.messages[n]
        number, due, age = self.attempts.get(delivery, (0, None, 0))
        deaths = self.deaths.get(delivery, (0, 0))
        return OpenDelivery(delivery, n, name, at, raw, number, due, filed, *deaths, age)

    def newest_ms(self) -> int:
        """Return when the newest message was accepted, as a start finds it."""
        return self.messages[next(reversed(self.messages))][0] if self.messages else 0

    def next_numbers(self) -> tuple[int, int]:
        """Return the numbers of the next message and delivery, as a start finds them."""
        if not self.messages:
            return self.frontier, 1
        last = next(reversed(self.messages))
        # Repeats take numbers that no row keeps: the frontier may be above the last message.
        return max(last + 1, self.frontier), self.of_message[last].stop

    def audit(self) -> None:
        """accepted = settled + dead + dropped + expired + open, from the rows themselves."""
        counted: Counter[tuple[str, str]] = Counter()
        open: Counter[str] = Counter()
        for delivery, (_, name) in self.deliveries.items():
            counted[name, "accepted"] += 1
            state, _ = self.ended.get(delivery, (None, 0))
            if state is None:
                open[name] += 1
            else:
                counted[name, "dropped" if state is State.DROPPED else WORDS[state]] += 1
        for name, totals in self.totals.items():
            if totals != {word: counted[name, word] for word in TOTALS}:
                broken("books", f"{name}: the totals on disk are {totals}, the rows say otherwise")
            if totals["accepted"] != sum(totals[word] for word in TOTALS[1:]) + open[name]:
                broken("books", f"{name}: {totals} and {open[name]} open do not balance")
