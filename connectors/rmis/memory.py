"""What the connector must not forget: which call is which subject, what is not confirmed yet, and
how far the changes were read. One SQLite file, no personal data: numbers only.
"""

import time
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import apsw

from proto.exits import StartError
from proto.wording import text

KEPT_S: Final = 90 * 24 * 3600.0  # a visit or a slip of a hospital is not later than that
_SCHEMA: Final = """
create table if not exists call (
    id text primary key, subject text not null, seen integer not null
) without rowid;
create index if not exists call_seen on call (seen);
create table if not exists transfer (
    call text not null, kind text not null, state text not null, at integer not null,
    primary key (call, kind)
) without rowid;
create table if not exists cursor (
    only_one integer primary key check (only_one = 1), value text not null
);
"""


class Memory:
    """The file of one connector. Lost, it is made anew: changes are read again, under the ids that
    the bus knows already, and events of older calls get a subject of their own. `db` is its
    connection: a dialect may have tables of its own there."""

    def __init__(self, file: Path) -> None:
        """Raises StartError when the file cannot be used."""
        try:
            self.db = apsw.Connection(str(file))
            # A power loss may take the last entries, never the file: that costs repeats only.
            self.db.execute("pragma journal_mode = wal; pragma synchronous = normal")
            self.db.execute(_SCHEMA)
        except apsw.Error as error:
            raise StartError(text("rmis.state_file", file=file, reason=str(error))) from None

    def close(self) -> None:
        """Close the file."""
        self.db.close()

    def note_call(self, call: str, subject: str) -> None:
        """Remember the subject of a call."""
        now = int(time.time())
        with self.db:
            self.db.execute("insert or replace into call values (?, ?, ?)", (call, subject, now))
            self.db.execute(
                "delete from call where id in (select id from call where seen < ? limit 10)",
                (now - KEPT_S,),
            )

    def subject_of(self, call: str) -> str:
        """Return the subject of a call; one of its own if we never saw it."""
        row = self.db.execute("select subject from call where id = ?", (call,)).fetchone()
        return str(row[0]) if row else f"call-{call}"

    def note_transfers(self, states: Iterable[tuple[str, str, str]]) -> None:
        """Remember (call, kind, state); "accepted" never overwrites the partner's last word."""
        now = int(time.time())
        with self.db:
            for call, kind, state in states:
                self.db.execute(
                    "insert into transfer values (?1, ?2, ?3, ?4) on conflict do update"
                    " set state = ?3, at = ?4 where ?3 <> 'accepted' or state = 'accepted'",
                    (call, kind, state, now),
                )

    def unconfirmed(self) -> tuple[int, float]:
        """Return how many tickets and cards wait for their confirmation, and the seconds that the
        first of them has waited."""
        row = self.db.execute(
            "select count(*), min(at) from transfer where state = 'accepted'"
        ).fetchone()
        count, since = (row[0], row[1]) if row else (0, None)
        waited_s = 0.0 if since is None else max(0.0, time.time() - float(str(since)))
        return int(str(count)), waited_s

    @property
    def cursor(self) -> str:
        """How far the changes were read."""
        row = self.db.execute("select value from cursor").fetchone()
        return str(row[0]) if row else ""

    @cursor.setter
    def cursor(self, value: str) -> None:
        self.db.execute("insert or replace into cursor values (1, ?)", (value,))
