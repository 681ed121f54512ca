"""Which card went into which register, and what came of it: no card is billed twice.

A card that the fund refused, by the control of format and logic (ФЛК) or by the medical and
economic one (МЭК), may be billed again, as a correction.
"""

import re
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Final, Literal, NamedTuple

import apsw

from connectors.billing.answer import FLK, Answer, Verdict
from connectors.runtime.ownfile import refuse_link
from connectors.runtime.statefile import SECURE

Standing = Literal["new", "again", "billed"]
SENT, ACCEPTED, REJECTED, PAID, UNPAID = "sent", "accepted", "rejected", "paid", "unpaid"
STATES: Final = {"accepted": ACCEPTED, "paid": PAID, "refused": UNPAID}  # by what МЭК says
BUSY_MS: Final = 10_000
_MONTH: Final = re.compile(r"_([0-9]{4})[0-9]+\Z")  # HM990101S99001_26111: 2026-11
_SCHEMA: Final = """
create table if not exists billed (
    card text primary key, register text not null, number integer not null, state text not null
) without rowid;
create index if not exists billed_register on billed (register, number);
"""
# Of a later edition than the table: a ledger of years is not made anew for it.
_COLUMNS: Final = {
    "call": "text not null default ''",
    "subject": "text not null default ''",
    "codes": "text not null default ''",
    "paid": "text",
    "told": "integer not null default 1",
}


class Entry(NamedTuple):
    """A card in a register, under its N_ZAP; the bus hears of it if `subject` is known."""

    card: str
    number: int
    call: str = ""
    subject: str = ""


class Told(NamedTuple):
    """What the fund said to a card; `codes` have spaces between, `paid` is in roubles."""

    card: str
    call: str
    subject: str
    state: str
    codes: str
    paid: str | None


class Billed:
    """The ledger in one file."""

    def __init__(self, file: Path) -> None:
        """Open it, or make it for its owner alone."""
        refuse_link(file)
        file.touch(mode=0o600, exist_ok=True)
        self._db = apsw.Connection(str(file))
        self._db.set_busy_timeout(BUSY_MS)
        self._db.execute("pragma journal_mode = wal; pragma synchronous = full")
        self._db.execute(SECURE)
        self._db.execute(_SCHEMA)
        known = {str(row[1]) for row in self._db.execute("pragma table_info(billed)")}
        for name, kind in _COLUMNS.items():
            if name not in known:
                self._db.execute(f"alter table billed add column {name} {kind}")

    def standing(self, card: str, register: str) -> Standing:
        """Return whether a card may go into a register."""
        row = self._db.execute(
            "select register, state from billed where card = ?", (card,)
        ).fetchone()
        if row is None or row[0] == register:
            return "new"
        return "again" if row[1] in (REJECTED, UNPAID) else "billed"

    def note(self, register: str, entries: Iterable[Entry]) -> None:
        """A register is there, with all that is in it; what it held before is forgotten."""
        with self._db:
            self._db.execute("delete from billed where register = ?", (register,))
            self._db.executemany(
                "insert or replace into billed (card, register, number, state, call, subject)"
                " values (?, ?, ?, ?, ?, ?)",
                ((one.card, register, one.number, SENT, one.call, one.subject) for one in entries),
            )

    def register_of(self, answer: Answer) -> str | None:
        """Return which register is answered; None when none of these is in the ledger."""
        for name in answer.registers:
            if self._db.execute("select 1 from billed where register = ?", (name,)).fetchone():
                return name
        return None

    def settle(self, register: str, stage: str, verdicts: Iterable[Verdict]) -> None:
        """Take the fund's answer, all of it or nothing. The ФЛК names what it refuses, and took the
        rest; it changes nothing of what the МЭК has judged."""
        with self._db:
            self._db.execute(
                "create temp table judged (number integer primary key, card text not null,"
                " state text not null, codes text not null, paid text)"
            )
            self._db.executemany(
                "insert into judged values (?1, ?2, ?3, ?4, ?5) on conflict (number) do update set"
                " codes = codes || ' ' || ?4"
                " where instr(' ' || codes || ' ', ' ' || ?4 || ' ') = 0",
                ((one.number or 0, one.card, STATES[one.state], " ".join(one.codes), one.paid)
                 for one in verdicts),
            )  # fmt: skip
            if stage == FLK:
                self._spread(register)
            self._db.execute(
                "update billed set told = 0, state = j.state, codes = j.codes, paid = j.paid"
                " from judged j where billed.register = ? and billed.number = j.number"
                " and j.card in ('', billed.card) and (billed.state, billed.codes, billed.paid)"
                " is not (j.state, j.codes, j.paid)",
                (register,),
            )
            self._db.execute("drop table judged")

    def _spread(self, register: str) -> None:
        """Make of the refusals of a ФЛК a verdict on each card; one without a number is on all."""
        self._db.execute("update judged set state = ?", (REJECTED,))
        self._db.execute(
            "insert or ignore into judged select number, '', ?, codes, null from"
            " (select number from billed where register = ?),"
            " (select codes from judged where number = 0)",
            (REJECTED, register),
        )
        self._db.execute(
            "insert or ignore into judged select number, '', ?, '', null from billed"
            " where register = ?",
            (ACCEPTED, register),
        )
        self._db.execute(
            "delete from judged where number in"
            " (select number from billed where register = ? and state in (?, ?))",
            (register, PAID, UNPAID),
        )

    def forget(self, month: str) -> int:
        """Forget registers of months before `month` (YYMM), by their names; return how many."""
        names = [str(name) for (name,) in self._db.execute("select distinct register from billed")]
        old = [name for name in names if (made := _MONTH.search(name)) and made[1] < month]
        with self._db:
            for name in old:
                self._db.execute("delete from billed where register = ?", (name,))
        return len(old)

    def counts(self, register: str) -> dict[str, int]:
        """Return how many cards of a register are in which state."""
        rows = self._db.execute(
            "select state, count(*) from billed where register = ? group by state", (register,)
        )
        return {str(state): int(str(count)) for state, count in rows}

    def untold(self, register: str, limit: int) -> Iterator[Told]:
        """Yield verdicts that the bus has not heard yet."""
        rows = self._db.execute(
            "select card, call, subject, state, codes, paid from billed"
            " where register = ? and told = 0 and subject <> '' order by number limit ?",
            (register, limit),
        ).fetchall()
        return (Told(*row) for row in rows)  # type: ignore[arg-type]

    def told(self, register: str, told: Iterable[Told]) -> None:
        """The bus has these now; what was judged anew meanwhile is still untold."""
        with self._db:
            self._db.executemany(
                "update billed set told = 1 where card = ? and register = ? and state = ?"
                " and codes = ? and paid is ?",
                ((one.card, register, one.state, one.codes, one.paid) for one in told),
            )

    def close(self) -> None:
        """Close the file."""
        self._db.close()
