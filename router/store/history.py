"""What operators ask the embedded store: what became of a call, what is dead.

Each answer is bounded, whatever the journal holds. Only the head of a message is read. A search
runs in steps of some milliseconds, between which the store writes what has been accepted
meanwhile, and the newest comes first: the caller stops when it has enough, or goes on to count the
rest.
"""

from collections.abc import Iterator, Sequence
from heapq import merge
from pathlib import Path
from time import perf_counter
from typing import Any, Final
from zlib import crc32

import apsw
import msgspec

from proto.message import UNREADABLE
from router.core.delivery import State
from router.core.output import OpenDelivery
from router.store.contract import Letter, StoreError, Which
from router.store.head import HEAD_BYTES, head_of, numbers_in

NUMBERS_MAX: Final = 16  # of one message; more, or longer ones, are not looked for
NUMBER_LENGTH_MAX: Final = 256
SEGMENT: Final = 1024  # messages whose subjects are indexed together
SEGMENT_OF: Final = f"(({{}}) - 1) / {SEGMENT}"
SEGMENTS_STEP: Final = 16  # looked into in one step: each may be a place of its own on the disk
SCAN_STEP: Final = 1_024  # messages not indexed yet that are looked at in one step
STEP_S: Final = 0.005  # after this a step ends with what it has
RUN_LENGTH: Final = 1_024  # rows of dead letters that are read at once
ATTEMPTS_MAX: Final = 100  # told of one delivery: the newest
DEAD: Final = int(State.DEAD)
CAME: Final = "seq, at, attempt"  # the order in which attempts came; the oldest have no seq
# What `_head` reads a head from, without touching a body that is long.
HEAD: Final = f"length(raw), case when length(raw) <= {HEAD_BYTES} then raw end"
HAS_NUMBER: Final = (
    f"exists (select 1 from json_each(numbers_of(n, {HEAD})) where value = ?1) and subject <> ''"
)
NONE: Final = 2**63 - 1  # above every number


class History:
    """Whoever opens the database sets the rest."""

    path: Path
    _db: apsw.Connection
    _indexed_n: int

    # -- what became of a call --------------------------------------------------------------------

    def trace(self, subject: str, limit: int) -> list[dict[str, object]]:
        """Return the newest messages of a subject with their deliveries, in order."""
        steps = self.trace_steps(subject, limit)
        return [message for step in steps for message in step if "id" in message][::-1]

    def trace_steps(self, subject: str, limit: int) -> Iterator[list[dict[str, object]]]:
        """See Store.trace_steps."""
        told = 0
        for numbers in self._numbers(subject, "subject = ?1"):
            step, began = list[dict[str, object]](), perf_counter()
            for n in numbers:
                step.append(self._tell(n) if told < limit else {"n": n})
                told += 1
                if perf_counter() - began > STEP_S:
                    yield step
                    step, began = [], perf_counter()
            yield step

    def subjects_of(self, number: str, limit: int) -> list[str]:
        """Return the subjects of messages that have a number, the one spoken of last first."""
        return [subject for step in self.subject_steps(number, limit) for subject in step]

    def subject_steps(self, number: str, limit: int) -> Iterator[list[str]]:
        """See Store.subject_steps."""
        found: dict[str, None] = {}
        for numbers in self._numbers(number, HAS_NUMBER):
            new: dict[str, None] = {}
            for n in numbers:
                subject = self._one("select subject from message where n = ?", (n,))
                if subject not in found and len(found) < limit:
                    found[subject] = new[subject] = None
            yield list(new)
            if len(found) == limit:
                return

    def _numbers(self, word: str, which: str) -> Iterator[list[int]]:
        """Yield the numbers of messages that `which` says of `word`, the newest first, by steps."""
        indexed_n = self._indexed_n
        least: int = self._one("select coalesce(min(n), 1) from message")
        upto: int = self._one("select coalesce(max(n), 0) from message")
        while upto > indexed_n:
            after = max(indexed_n, upto - SCAN_STEP)
            rows = self._rows(
                f"select n from message where n > ?2 and n <= ?3 and {which} order by n desc",
                (word, after, upto),
            )
            upto = after
            yield [n for (n,) in rows]
        first, last = (least - 1) // SEGMENT, indexed_n // SEGMENT
        for newest in range(last, first - 1, -SEGMENTS_STEP):
            segments = list(range(newest, max(first - 1, newest - SEGMENTS_STEP), -1))
            rows = self._rows(
                "select n from message where n in (select m.n from json_each(?2) s cross join"
                " subject_message m on m.segment = s.value and m.subject = ?1)"
                f" and {which} order by n desc",
                (word, msgspec.json.encode(segments).decode()),
            )
            yield [n for (n,) in rows]

    def _tell(self, n: int) -> dict[str, object]:
        columns = ("n", "id", "source", "subject", "accepted_at", "first_delivery", "destinations",
                   "size", "raw")  # fmt: skip
        chosen = f"n, id, source, subject, accepted_at, first_delivery, destinations, {HEAD}"
        row = next(self._rows(f"select {chosen} from message where n = ?", (n,)), None)
        if row is None:  # forgotten since it was found
            return {"n": n}
        message = dict(zip(columns, row, strict=True))
        message["head"] = self._head(n, message["size"], message.pop("raw"))
        numbered = enumerate(message.pop("destinations").split(" "), message.pop("first_delivery"))
        message["deliveries"] = [self._fate(id, destination) for id, destination in numbered]
        return message

    def _fate(self, delivery: int, destination: str) -> dict[str, object]:
        fate: dict[str, object] = {"delivery": delivery, "destination": destination}
        columns = ("state", "attempts", "delivered_at", "ended_at", "note")
        ends = self._rows(
            f"select {', '.join(columns)} from outcome where delivery = ?", (delivery,)
        )
        fate |= dict(zip(columns, next(ends, (None, 0, None, None, None)), strict=True))
        attempts = self._rows(
            f"select at, outcome, note, due from (select * from attempt where delivery = ?"
            f" order by seq desc, at desc, attempt desc limit {ATTEMPTS_MAX}) order by {CAME}",
            (delivery,),
        )
        keys = ("at", "outcome", "note", "due")
        history = [dict(zip(keys, row, strict=True)) for row in attempts]
        fate["history"] = history
        if len(history) == ATTEMPTS_MAX:
            all_of_them = self._one("select count(*) from attempt where delivery = ?", (delivery,))
            fate["earlier"] = all_of_them - len(history)
        return fate

    # -- dead letters -----------------------------------------------------------------------------

    def dead_steps(self, which: Which, newest: bool = False) -> Iterator[list[Letter]]:
        """See Store.dead_steps."""
        step, began = list[Letter](), perf_counter()
        for row in self._dead_rows(which, newest):
            if (letter := self._letter(row, which)) is not None:
                step.append(letter)
            if perf_counter() - began > STEP_S:
                yield step
                step, began = [], perf_counter()
        yield step

    def _dead_rows(self, which: Which, newest: bool) -> Iterator[tuple[Any, ...]]:
        """Yield delivery, n, destination, attempts, ended_at, note of what is dead, in order."""
        if which.deliveries is not None:
            order = "desc" if newest else ""
            yield from self._db.execute(
                "select delivery, n, destination, attempts, ended_at, note from outcome"
                f" where delivery in (select value from json_each(?)) and state = {DEAD}"
                f" order by delivery {order}",
                (msgspec.json.encode(which.deliveries).decode(),),
            ).fetchall()
            return
        names = self._dead_destinations() if which.destination is None else [which.destination]
        lines = [self._dead_at(name, newest) for name in names]
        yield from merge(*lines, key=lambda row: row[0], reverse=newest)

    def _dead_destinations(self) -> list[str]:
        names: list[str] = []
        following = f"select destination from outcome where state = {DEAD} and destination > ?"
        while name := next(
            self._rows(f"{following} order by destination limit 1", (names[-1] if names else "",)),
            None,
        ):
            names.append(name[0])
        return names

    def _dead_at(self, destination: str, newest: bool) -> Iterator[tuple[Any, ...]]:
        """Yield what is dead at a destination, read run by run: the store writes in between."""
        last: Any = NONE if newest else 0
        beyond, order = ("<", "desc") if newest else (">", "")
        while rows := self._db.execute(
            "select delivery, n, destination, attempts, ended_at, note from outcome"
            f" where state = {DEAD} and destination = ? and delivery {beyond} ?"
            f" order by delivery {order} limit {RUN_LENGTH}",
            (destination, last),
        ).fetchall():
            yield from rows
            last = rows[-1][0]

    def _letter(self, row: tuple[Any, ...], which: Which) -> Letter | None:
        """Return a dead letter without its body, None when it is none of those wanted."""
        delivery, n, destination, attempts, ended_at, note = row
        if which.destination is not None and destination != which.destination:
            return None
        sql = f"select subject, accepted_at, {HEAD} from message where n = ?"
        stored = next(self._rows(sql, (n,)), None)
        if stored is None:
            if not self._one("select count(*) from outcome where delivery = ?", (delivery,)):
                return None  # forgotten since it was found
            raise StoreError(f"{self.path}: message {n} of the dead letter {delivery} is missing")
        subject, accepted_at, size, raw = stored
        if which.subject is not None and subject != which.subject:
            return None
        head = self._head(n, size, raw)
        if which.type is not None and _type_of(head, size) != which.type:
            return None
        return Letter(delivery, n, destination, accepted_at, head, size, attempts, ended_at, note)

    def letters(self, deliveries: Sequence[int], bytes_max: int) -> list[OpenDelivery]:
        """See Store.letters."""
        rows = self._rows(
            "select delivery, o.n, destination, accepted_at, raw, attempts, ended_at, note,"
            " checksum from outcome o left join message m on m.n = o.n"
            f" where delivery in (select value from json_each(?)) and state = {DEAD}"
            " order by delivery",
            (msgspec.json.encode(list(deliveries)).decode(),),
        )
        found, size = list[OpenDelivery](), 0
        for delivery, n, name, accepted_at, raw, attempts, ended_at, note, checksum in rows:
            self._check(n, checksum, raw)
            found.append(
                OpenDelivery(
                    delivery, n, name, accepted_at, raw, attempts, ended_at=ended_at, note=note
                )
            )
            size += len(raw)
            if size >= bytes_max:
                break
        return found

    # -- reading ----------------------------------------------------------------------------------

    def _head(self, n: int, size: int, raw: bytes | None) -> bytes:
        """Return the first bytes of a message; `raw` is the whole when it is short."""
        if raw is not None:
            return raw
        blob = self._db.blob_open("main", "message", "raw", n, False)
        try:
            return blob.read(min(size, HEAD_BYTES))
        finally:
            blob.close()

    def _numbers_of(self, *values: Any) -> str | None:
        """The SQL function `numbers_of`: the numbers in a message's correlation_id, as JSON, or
        NULL."""
        n, size, raw = values
        head = raw if raw is not None else self._head(n, size, raw)
        numbers = numbers_in(head, size, NUMBERS_MAX, NUMBER_LENGTH_MAX)
        return msgspec.json.encode(numbers).decode() if numbers else None

    def _check(self, n: int, checksum: int | None, raw: bytes) -> None:
        if checksum is None or crc32(raw) != checksum:
            raise StoreError(f"{self.path}: message {n} is damaged (checksum)")

    def _rows(self, sql: str, values: tuple[str | int, ...] = ()) -> Iterator[tuple[Any, ...]]:
        return iter(self._db.execute(sql, values))

    def _one(self, sql: str, values: tuple[str | int, ...] = ()) -> Any:
        return next(self._rows(sql, values))[0]


def _type_of(head: bytes, size: int) -> str | None:
    try:
        return head_of(head, size).message.type
    except UNREADABLE:
        return None
