"""What the embedded store is asked: what is open, what became of a call, what is dead."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final
from zlib import crc32

import apsw
import msgspec
from msgspec.structs import replace

from proto.message import decode_message
from router.core.delivery import State
from router.core.output import Filed, Load, OpenDelivery
from router.store.contract import StoreError

LOAD_LENGTH_MAX: Final = 256
LOAD_BYTES_MAX: Final = 4 * 1024 * 1024
RUN_LENGTH: Final = 16_384
NUMBERS_MAX: Final = 16  # of one message; more, or longer ones, are not looked for
NUMBER_LENGTH_MAX: Final = 256
SEGMENT: Final = 1024  # messages whose subjects are indexed together
SEGMENT_OF: Final = f"(({{}}) - 1) / {SEGMENT}"
DEAD: Final = int(State.DEAD)
CAME: Final = "seq, at, attempt"  # the order in which attempts came; the oldest have no seq
_Latest = tuple[int, int | None, int | None]  # attempt, due, replayed at


class Reader:
    """The questions of `router.store.contract.Store`. Whoever opens the database sets the rest."""

    path: Path
    _db: apsw.Connection
    _frontier: int
    _indexed_n: int

    # -- what is open -----------------------------------------------------------------------------

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
        return [
            row
            for delivery, lane in load.places
            for row in self._load(load.destination, lane, "delivery = ?", delivery)
        ]

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

    def _attempts(self, which: str, values: tuple[object, ...] = ()) -> dict[int, _Latest]:
        """Return of each delivery tried the number and the due time of its latest attempt, and when
        it was replayed: its age counts from then."""
        rows = self._rows(
            "select delivery, attempt, due, at, outcome = 'replayed' from attempt"
            f" where {which} order by delivery, {CAME}",
            values,
        )
        found: dict[int, _Latest] = {}
        for delivery, attempt, due, at, is_replay in rows:
            since = at if is_replay else found[delivery][2] if delivery in found else None
            found[delivery] = attempt, due, since
        return found

    def _check(self, n: int, checksum: int | None, raw: bytes) -> None:
        if checksum is None or crc32(raw) != checksum:
            raise StoreError(f"{self.path}: message {n} is damaged (checksum)")

    # -- history ----------------------------------------------------------------------------------

    def trace(self, subject: str, limit: int) -> list[dict[str, object]]:
        """See Store.trace."""
        columns = ("n", "id", "source", "subject", "accepted_at", "first_delivery", "destinations",
                   "raw")  # fmt: skip
        chosen = ", ".join(columns)
        rows = self._rows(
            f"with recursive segments(number) as (select {SEGMENT_OF.format('min(n)')} from message"
            f" union all select number + 1 from segments where number < ?2 / {SEGMENT})"
            f" select {chosen} from message where n in (select m.n from segments join"
            " subject_message m on m.segment = number and m.subject = ?1) and subject = ?1"
            f" union all select {chosen} from message where n > ?2 and subject = ?1"
            " order by n limit ?3",
            (subject, self._indexed_n, limit),
        )
        messages = [dict(zip(columns, row, strict=True)) for row in rows]
        for message in messages:
            numbered = enumerate(
                message.pop("destinations").split(" "), message.pop("first_delivery")
            )
            message["deliveries"] = [self._fate(id, destination) for id, destination in numbered]
        return messages

    def subjects_of(self, number: str, limit: int) -> list[str]:
        """See Store.subjects_of."""
        has = "exists (select 1 from json_each(numbers_of(raw)) where value = ?1) and subject <> ''"
        rows = self._rows(
            f"with recursive segments(number) as (select {SEGMENT_OF.format('min(n)')} from message"
            f" union all select number + 1 from segments where number < ?2 / {SEGMENT})"
            " select subject from (select subject, n from message where n in"
            " (select m.n from segments join subject_message m on m.segment = number"
            f" and m.subject = ?1) and {has}"
            f" union all select subject, n from message where n > ?2 and {has})"
            " group by subject order by max(n) desc limit ?3",
            (number, self._indexed_n, limit),
        )
        return [str(row[0]) for row in rows]

    def _fate(self, delivery: int, destination: str) -> dict[str, object]:
        fate: dict[str, object] = {"delivery": delivery, "destination": destination}
        columns = ("state", "attempts", "delivered_at", "ended_at", "note")
        ends = self._rows(
            f"select {', '.join(columns)} from outcome where delivery = ?", (delivery,)
        )
        fate |= dict(zip(columns, next(ends, (None, 0, None, None, None)), strict=True))
        attempts = self._rows(
            f"select at, outcome, note, due from attempt where delivery = ? order by {CAME}",
            (delivery,),
        )
        keys = ("at", "outcome", "note", "due")
        fate["history"] = [dict(zip(keys, row, strict=True)) for row in attempts]
        return fate

    def dead(
        self, destination: str | None, subject: str | None, deliveries: list[int] | None, limit: int
    ) -> list[OpenDelivery]:
        """See Store.dead."""
        which, values = [f"state = {DEAD}"], list[object]()
        if destination is not None:
            which.append("destination = ?")
            values.append(destination)
        if subject is not None:
            which.append("subject = ?")
            values.append(subject)
        if deliveries is not None:
            which.append(f"delivery in ({','.join('?' * len(deliveries))})")
            values.extend(deliveries)
        rows = self._rows(
            "select delivery, o.n, destination, accepted_at, raw, attempts, ended_at, note,"
            " checksum"
            f" from outcome o left join message m on m.n = o.n where {' and '.join(which)}"
            " order by delivery limit ?",
            (*values, limit),
        )
        found = []
        for delivery, n, name, accepted_at, raw, attempts, ended_at, note, checksum in rows:
            self._check(n, checksum, raw)
            row = OpenDelivery(delivery, n, name, accepted_at, raw, attempts)
            found.append(replace(row, ended_at=ended_at, note=note))
        return found

    def _rows(self, sql: str, values: tuple[object, ...] = ()) -> Iterator[tuple[Any, ...]]:
        return iter(self._db.execute(sql, values))

    def _one(self, sql: str, values: tuple[object, ...] = ()) -> Any:
        return next(self._rows(sql, values))[0]


def _tried(row: OpenDelivery, latest: _Latest) -> OpenDelivery:
    attempt, due, since = latest
    return replace(
        row, attempts=attempt, due=due, accepted_at=row.accepted_at if since is None else since
    )


def numbers_of(raw: bytes) -> str:
    """Return the numbers in the correlation_id of a message as it is stored, a JSON array."""
    try:
        words = (decode_message(raw).correlation_id or "").split(maxsplit=NUMBERS_MAX)
    except msgspec.DecodeError:
        words = []  # a damaged one is told where it is read as a whole
    numbers = [word for word in words[:NUMBERS_MAX] if len(word) <= NUMBER_LENGTH_MAX]
    return msgspec.json.encode(numbers).decode()


def count_of(destinations: str) -> int:
    """Return how many there are, with a space between them."""
    return destinations.count(" ") + 1
