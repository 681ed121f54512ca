"""What the connector must not forget: which call is which subject, what is not confirmed yet, and
how far the changes were read. One SQLite file, no personal data: numbers only.
"""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final, Literal

import apsw

from connectors.runtime.statefile import Alarm, Spared, StateFile, Statement
from proto.exits import StartError
from proto.retention import DAY_S, Retention
from proto.wording import text

OWN_PRAGMAS: Final = "pragma journal_mode = wal; pragma synchronous = normal"
OWN_BUSY_MS: Final = 100
KEPT_S: Final = Retention().hospital_days * DAY_S  # no visit or slip is later than that
FEW, STEP = 10, 500  # rows that go at once: beside a new one, and when there is time
_SCHEMA: Final = """
create table if not exists call (
    id text primary key, subject text not null, seen integer not null
) without rowid;
create index if not exists call_seen on call (seen);
create table if not exists transfer (
    call text not null, kind text not null, state text not null, at integer not null,
    primary key (call, kind)
) without rowid;
create index if not exists transfer_at on transfer (at);
create table if not exists cursor (
    only_one integer primary key check (only_one = 1), value text not null
);
create table if not exists asked (  -- what was begun here: a ticket, a card, a bed, a visit, ...
    kind text not null, id text not null, call text not null, seen integer not null,
    primary key (kind, id, call)
) without rowid;
create index if not exists asked_call on asked (call);
create index if not exists asked_seen on asked (seen);
create table if not exists asking (
    only_one integer primary key check (only_one = 1), since integer not null
);
-- Of the calls of an earlier version nobody wrote down what was asked: anything may have been.
insert or ignore into asked select '', '', id, seen from call
    where not exists (select 1 from asking);
insert or ignore into asking values (1, {now});
"""
Kind = Literal["ticket", "card", "bed", "visit", "arrival"]


class Memory:
    """The file of one connector. Lost, it is made anew: changes are read again, under the ids that
    the bus knows already, and those about what was asked before are set aside. Nothing waits for it
    while it cannot be written: see `Spared`."""

    def __init__(self, file: Path, kept_s: float = KEPT_S) -> None:
        """Raises StartError when the file cannot be used."""
        self.kept_s = kept_s
        # A power loss may take the last entries, never the file: that costs repeats only.
        try:
            self.state = Spared(
                file,
                lambda: _SCHEMA.format(now=int(time.time())),
                pragmas="pragma journal_mode = wal",
            )
        except apsw.Error as error:
            raise StartError(text("rmis.state_file", file=file, reason=str(error))) from None
        self._file = file
        self._own: StateFile | None = None

    def tables(self, schema: str) -> StateFile:
        """Return the same file for a dialect that has tables of its own there, and needs them.
        Raises StartError."""
        try:
            self._own = StateFile(self._file, schema, pragmas=OWN_PRAGMAS, busy_ms=OWN_BUSY_MS)
        except (apsw.Error, OSError) as error:
            reason = str(error)
            raise StartError(text("rmis.state_file", file=self._file, reason=reason)) from None
        return self._own

    def states(self) -> list[Alarm]:
        """Return what may be away."""
        return [self.state] if self._own is None else [self.state, self._own]

    def close(self) -> None:
        """Close the file."""
        self.state.close()
        if self._own is not None:
            self._own.close()

    def note_asked(self, kind: Kind, id: str, call: str, subject: str) -> None:
        """Remember that something about a call is being asked for, and the call's subject: before
        it is, since its end may be told before its answer."""
        now = int(time.time())
        self.state.write(
            ("insert or replace into asked values (?, ?, ?, ?)", (kind, id, call, now)),
            ("insert or replace into call values (?, ?, ?)", (call, subject, now)),
            *self._forgotten(FEW),
            synced=False,
        )

    def forget(self) -> None:
        """Let go of a step of what is too old, also when nothing comes."""
        self.state.write(*self._forgotten(STEP), synced=False)

    def _forgotten(self, limit: int) -> tuple[Statement, ...]:
        last = (time.time() - self.kept_s, limit)
        return (
            ("delete from call where id in (select id from call where seen < ? limit ?)", last),
            (
                "delete from transfer where (call, kind) in"
                " (select call, kind from transfer where at < ? limit ?)",
                last,
            ),
            (
                "delete from asked where (kind, id, call) in"
                " (select kind, id, call from asked where seen < ? limit ?)",
                last,
            ),
        )

    def was_asked(self, call: str, kind: Kind | None = None, id: str = "") -> bool:
        """Whether this very thing of this very call was asked for by us; without a `kind`, whether
        anything of the call was."""
        rows = self.state.rows(
            "select 1 from asked where call = ?1"
            " and (?2 = '' or kind = '' or (kind = ?2 and id = ?3)) limit 1",
            call, kind or "", id,
        )  # fmt: skip
        return bool(rows)

    def subject_of(self, call: str) -> str:
        """Return the subject of a call; one of its own if we never saw it."""
        rows = self.state.rows("select subject from call where id = ?", call)
        return str(rows[-1][0]) if rows else f"call-{call}"

    def note_transfers(self, states: Iterable[tuple[str, str, str]]) -> None:
        """Remember (call, kind, state); "accepted" never overwrites the partner's last word."""
        now = int(time.time())
        upsert = (
            "insert into transfer values (?1, ?2, ?3, ?4) on conflict do update"
            " set state = ?3, at = ?4 where ?3 <> 'accepted' or state = 'accepted'"
        )
        notes = [(upsert, (call, kind, state, now)) for call, kind, state in states]
        self.state.write(*notes, synced=False)

    def unconfirmed(self) -> tuple[int, float]:
        """Return how many tickets and cards wait for their confirmation, and the seconds that the
        first of them has waited."""
        rows = self.state.rows("select count(*), min(at) from transfer where state = 'accepted'")
        since = min((float(row[1]) for row in rows if row[1] is not None), default=None)
        waited_s = 0.0 if since is None else max(0.0, time.time() - since)
        return sum(int(row[0]) for row in rows), waited_s

    @property
    def cursor(self) -> str:
        """How far the changes were read."""
        rows = self.state.rows("select value from cursor")
        return str(rows[-1][0]) if rows else ""

    @cursor.setter
    def cursor(self, value: str) -> None:
        self.state.write(("insert or replace into cursor values (1, ?)", (value,)), synced=False)
