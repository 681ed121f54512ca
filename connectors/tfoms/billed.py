"""Which card went into which register, and what came of it: no card is billed twice.

A card that the fund refused may be billed again, as a correction.
"""

from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal

import apsw

Standing = Literal["new", "again", "billed"]
SENT, ACCEPTED, REJECTED = "sent", "accepted", "rejected"
_SCHEMA: Final = """
create table if not exists billed (
    card text primary key, register text not null, number integer not null, state text not null
) without rowid;
create index if not exists billed_register on billed (register, number);
"""


class Billed:
    """The ledger in one file."""

    def __init__(self, file: Path) -> None:
        self._db = apsw.Connection(str(file))
        self._db.execute("pragma journal_mode = wal; pragma synchronous = full")
        self._db.execute(_SCHEMA)

    def standing(self, card: str, register: str) -> Standing:
        """Return whether a card may go into a register."""
        row = self._db.execute(
            "select register, state from billed where card = ?", (card,)
        ).fetchone()
        if row is None or row[0] == register:
            return "new"
        return "again" if row[1] == REJECTED else "billed"

    def note(self, register: str, cards: Iterable[tuple[str, int]]) -> None:
        """A register is there: (card, N_ZAP) of all in it; what it held before is forgotten."""
        with self._db:
            self._db.execute("delete from billed where register = ?", (register,))
            self._db.executemany(
                "insert or replace into billed values (?, ?, ?, ?)",
                ((card, register, number, SENT) for card, number in cards),
            )

    def answer(self, register: str, refused: Iterable[int]) -> tuple[int, int]:
        """The fund's answer: these N_ZAP were refused, the others taken. Returns both counts."""
        with self._db:
            self._db.execute("update billed set state = ? where register = ?", (ACCEPTED, register))
            self._db.executemany(
                "update billed set state = ? where register = ? and number = ?",
                ((REJECTED, register, number) for number in refused),
            )
        counts = {ACCEPTED: 0, REJECTED: 0}
        rows = self._db.execute(
            "select state, count(*) from billed where register = ? group by state", (register,)
        )
        for state, count in rows:
            counts[str(state)] = int(str(count))
        return counts[ACCEPTED], counts[REJECTED]

    def close(self) -> None:
        """Close the file."""
        self._db.close()
