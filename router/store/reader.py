"""What a start and the core ask of the embedded store: which deliveries are open."""

from collections.abc import Iterator
from typing import Final, NamedTuple

from msgspec.structs import replace

from router.core.output import Filed, Load, OpenDelivery
from router.store.history import CAME
from router.store.persons import Persons

LOAD_LENGTH_MAX: Final = 256
LOAD_BYTES_MAX: Final = 4 * 1024 * 1024
RUN_LENGTH: Final = 16_384


class _Latest(NamedTuple):
    """The latest attempt of a delivery, and what the ones before it add up to."""

    attempt: int
    due: int | None
    replayed_at: int | None
    vanished: int
    lonely: int
    age: int


_UNTRIED: Final = _Latest(0, None, None, 0, 0, 0)


class Reader(Persons):
    """The questions of `router.store.contract.Store`. Whoever opens the database sets the rest."""

    _frontier: int

    def filed(self) -> Iterator[Filed]:
        """See Store.filed."""
        destination, lane, delivery = "", 0, 0
        while True:
            # Both by the primary key: nothing is sorted, and nothing is read twice.
            where = "where (destination, lane, delivery) > (?, ?, ?)"
            following = (
                f"select destination, lane from backlog {where} order by 1, 2, delivery limit 1"
            )
            place = next(self._rows(following, (destination, lane, delivery)), None)
            if place is None:
                return
            if place != (destination, lane):
                destination, lane, delivery = *place, 0
            run = self._db.execute(
                "select delivery, subject_hash from backlog"
                " where destination = ? and lane = ? and delivery > ? order by delivery"
                f" limit {RUN_LENGTH}",
                (destination, lane, delivery),
            ).fetchall()
            deliveries, hashes = zip(*run, strict=True)
            delivery = deliveries[-1]
            yield Filed(destination, lane, deliveries, hashes)

    def recent(self) -> Iterator[OpenDelivery]:
        """See Store.recent."""
        # Beyond the frontier some are filed: replayed, spilled, or of a message that is half filed.
        filed = {
            row[0]
            for row in self._rows("select delivery from backlog where n >= ?", (self._frontier,))
        }
        first = self._one(
            "select coalesce(min(first_delivery), 0) from message where n >= ?", (self._frontier,)
        )
        attempts = self._attempts("delivery >= ?", (first,))
        ended = (row[0] for row in self._rows(
            "select delivery from outcome where delivery >= ? order by delivery", (first,)
        ))  # fmt: skip
        end = next(ended, None)
        rows = self._rows(
            "select n, first_delivery, destinations, accepted_at, checksum, raw"
            " from message where n >= ? order by n",
            (self._frontier,),
        )
        for n, delivery, destinations, accepted_at, checksum, raw in rows:
            for id, destination in enumerate(destinations.split(" "), delivery):
                while end is not None and end < id:
                    end = next(ended, None)
                if end != id and id not in filed:
                    self._check(n, checksum, raw)
                    row = OpenDelivery(id, n, destination, accepted_at, raw)
                    yield _tried(row, attempts[id]) if id in attempts else row

    def load(self, load: Load) -> list[OpenDelivery]:
        """See Store.load."""
        if not load.places:
            return self._load(load.destination, load.lane, "delivery > ?", load.after)
        found: list[OpenDelivery] = []
        size = 0
        for delivery, lane in load.places:
            rows = self._load(load.destination, lane, "delivery = ?", delivery)
            found += rows
            size += sum(len(row.raw) for row in rows)
            if load.wakes and size >= LOAD_BYTES_MAX:
                break
        return found

    def _load(self, destination: str, lane: int, which: str, value: int) -> list[OpenDelivery]:
        rows = self._rows(
            "select delivery, n, accepted_at, checksum, raw"
            " from backlog left join message using (n)"
            f" where destination = ? and lane = ? and {which}"
            f" order by delivery limit {LOAD_LENGTH_MAX}",
            (destination, lane, value),
        )
        found, size = [], 0
        for delivery, n, accepted_at, checksum, raw in rows:
            self._check(n, checksum, raw)
            row = OpenDelivery(delivery, n, destination, accepted_at, raw, filed=lane)
            found.append(row)
            size += len(raw)
            if size >= LOAD_BYTES_MAX:
                break
        return self._with_attempts(found)

    def _with_attempts(self, found: list[OpenDelivery]) -> list[OpenDelivery]:
        ids = ",".join(str(row.delivery) for row in found)
        tried = self._attempts("delivery in (select value from json_each(?))", (f"[{ids}]",))
        if not tried:
            return found
        return [_tried(row, tried[row.delivery]) if row.delivery in tried else row for row in found]

    def _open_deliveries(self) -> Iterator[tuple[int, str]]:
        """Yield number and destination of everything that is open."""
        for run in self.filed():
            for delivery in run.deliveries:
                yield delivery, run.destination
        for row in self.recent():
            yield row.delivery, row.destination

    def _attempts(self, which: str, values: tuple[str | int, ...] = ()) -> dict[int, _Latest]:
        """Return what is known of each delivery tried: see `_Latest`."""
        rows = self._rows(
            "select delivery, attempt, due, at, outcome, age from attempt"
            f" where {which} order by delivery, {CAME}",
            values,
        )
        found: dict[int, _Latest] = {}
        for delivery, attempt, due, at, outcome, age in rows:
            before = found.get(delivery, _UNTRIED)
            since, vanished, lonely = before.replayed_at, before.vanished, before.lonely
            if outcome in ("retry", "replayed"):
                vanished = lonely = 0
            elif outcome != "returned":
                vanished, lonely = vanished + 1, lonely + (outcome == "vanished_alone")
            if outcome == "replayed":
                since = at
            found[delivery] = _Latest(attempt, due, since, vanished, lonely, age or 0)
        return found


def _tried(row: OpenDelivery, latest: _Latest) -> OpenDelivery:
    since = latest.replayed_at
    return replace(
        row, attempts=latest.attempt, due=latest.due, vanished=latest.vanished,
        lonely=latest.lonely, age=latest.age,
        accepted_at=row.accepted_at if since is None else since,
    )  # fmt: skip


def count_of(destinations: str) -> int:
    """Return how many there are, with a space between them."""
    return destinations.count(" ") + 1
