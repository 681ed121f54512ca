"""What the embedded store holds about one person, and how it is erased.

An erased message keeps its row, its id and how its deliveries ended, so that repeats are still
recognised and the counts still add up. Its body and the notes of partners are overwritten in the
file, and the log, which may hold copies, is emptied.
"""

from collections.abc import Iterator, Sequence
from time import perf_counter
from typing import Any, Final
from zlib import crc32

import msgspec

from proto.message import UNREADABLE, decode_message, encode_message
from proto.person import Search
from router.store.history import DEAD, STEP_S, History

RUN: Final = 64  # messages read at once
# What a page no longer holds is overwritten where that costs no writing: a page that is split would
# keep a copy of what went to others.
SECURE_FAST: Final = "pragma secure_delete=fast"
ERASED: Final = "application/x-erased"


class Persons(History):
    """The questions and the deed. Whoever opens the database sets the rest."""

    def person_steps(self, search: Search, after: int) -> Iterator[tuple[int, list[int]]]:
        """See Store.person_steps."""
        step, began = list[int](), perf_counter()
        question = f"select n, raw from message where n > ? order by n limit {RUN}"
        while rows := list(self._rows(question, (after,))):
            for n, raw in rows:
                after = n
                if search.finds(raw):
                    step.append(n)
            if perf_counter() - began > STEP_S:
                yield after, step
                step, began = [], perf_counter()
        yield after, step

    def subject_numbers(self, subject: str) -> Iterator[list[int]]:
        """See Store.subject_numbers."""
        yield from self._numbers(subject, "subject = ?1")

    def told(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """See Store.told."""
        return [row for n in numbers if "id" in (row := self._tell(n))]

    def erase(self, numbers: Sequence[int], note: str) -> list[int]:
        """See Store.erase."""
        db = self._db
        db.execute("pragma secure_delete=on")
        try:
            db.execute("begin immediate")
            erased = [n for n in numbers if self._erase(n, note)]
            db.execute("commit")
        finally:
            if db.in_transaction:  # nothing of it is done, and what comes next is not held up
                db.execute("rollback")
            db.execute(SECURE_FAST)
        db.execute("pragma wal_checkpoint(truncate)")
        return erased

    def _erase(self, n: int, note: str) -> bool:
        row = next(
            self._rows("select first_delivery, destinations, raw from message where n = ?", (n,)),
            None,
        )
        if row is None:
            return False
        first, destinations, raw = row
        last = first + len(destinations.split(" ")) - 1
        ended, dead = next(
            self._rows(
                f"select count(*), total(state = {DEAD}) from outcome"
                " where delivery between ? and ?",
                (first, last),
            )
        )
        if ended != last - first + 1 or dead:
            return False
        try:
            message = decode_message(raw)
        except UNREADABLE:
            return False
        empty = encode_message(msgspec.structs.replace(message, body=b"", content_type=ERASED))
        db = self._db
        db.execute("update message set raw = ?, checksum = ? where n = ?", (empty, crc32(empty), n))
        db.execute(
            "update outcome set note = ? where delivery between ? and ?", (note, first, last)
        )
        db.execute("update attempt set note = null where delivery between ? and ?", (first, last))
        return True
