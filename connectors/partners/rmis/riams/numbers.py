"""What must be remembered of a РИАМС, which has no idempotency keys and tells nothing by itself: by
what it knows each call, what was asked for and never answered, and what is still to be looked at.
Numbers only, in the state file of the connector.
"""

import time
from typing import Final, Literal

import msgspec

from connectors.partners.rmis.memory import FEW, STEP, Memory
from connectors.partners.rmis.riams.card import Key

Kind = Literal["ticket", "card", "visit"]
_SCHEMA: Final = """
create table if not exists riams_call (
    id text primary key, numv integer not null, ngod integer not null, dprm text not null,
    station text not null, told integer not null, number text not null, seen integer not null
) without rowid;
create index if not exists riams_call_seen on riams_call (seen);
create table if not exists riams_asked (
    kind text not null, id text not null, answer text not null, seen integer not null,
    primary key (kind, id)
) without rowid;
create index if not exists riams_asked_seen on riams_asked (seen);
create table if not exists riams_watch (
    kind text not null, id text not null, call text not null, number text not null,
    version integer not null, seen integer not null, looked integer not null,
    primary key (kind, id)
) without rowid;
create index if not exists riams_watch_looked on riams_watch (looked);
"""


class Watch(msgspec.Struct, frozen=True, array_like=True):
    """Something whose end is not known yet; `number` is РИАМС's own, "" if it told none."""

    kind: Kind
    id: str
    call: str
    number: str
    version: int


class Numbers:
    """Tables of the dialect's own in the connector's state file. Times are seconds of the epoch.

    РИАМС has no keys: what was asked for is known by this file alone. So every method raises
    StateAway while it cannot be used, and nothing is asked for."""

    def __init__(self, memory: Memory) -> None:
        """Raises StartError."""
        self._db = memory.tables(_SCHEMA)
        self._kept_s = memory.kept_s

    # -- calls ----------------------------------------------------------------------------------

    def key(self, call: str) -> Key | None:
        """Return by what РИАМС knows a call, None when it was never told of it."""
        found = self._db.execute(
            "select numv, ngod, dprm, station from riams_call where id = ?", (call,)
        ).fetchone()
        return None if found is None else msgspec.convert(dict(zip(_KEY, found, strict=True)), Key)

    def number(self, call: str) -> str:
        """Return the number that РИАМС gave a call, "" when it told none."""
        found = self._db.execute("select number from riams_call where id = ?", (call,)).fetchone()
        return str(found[0]) if found else ""

    def is_told(self, call: str) -> bool:
        """Whether РИАМС has the card of a call."""
        found = self._db.execute("select told from riams_call where id = ?", (call,)).fetchone()
        return bool(found and found[0])

    def note_call(self, call: str, key: Key) -> None:
        """Remember by what a call will be known: the first time holds."""
        now = int(time.time())
        with self._db:
            self._db.execute(
                "insert into riams_call values (?1, ?2, ?3, ?4, ?5, 0, '', ?6)"
                " on conflict do update set seen = ?6",
                (call, key.numv, key.ngod, key.dprm, key.station, now),
            )
            self._forget("riams_call", "id", now)

    def note_told(self, call: str, number: str) -> None:
        """Remember that РИАМС has it, and under which number; "" unlearns none."""
        self._db.execute(
            "update riams_call set told = 1, number = case when ?2 = '' then number else ?2 end"
            " where id = ?1",
            (call, number),
        )

    # -- what has no key ------------------------------------------------------------------------

    def asked(self, kind: str, id: str) -> str | None:
        """Return how something was answered, "" when it was asked for and the answer never came,
        None when it may be asked for."""
        found = self._db.execute(
            "select answer from riams_asked where kind = ? and id = ?", (kind, id)
        ).fetchone()
        return None if found is None else str(found[0])

    def note_asked(self, kind: str, id: str, answer: str = "") -> None:
        """Remember that something is asked for, or how it was answered."""
        now = int(time.time())
        with self._db:
            self._db.execute(
                "insert or replace into riams_asked values (?, ?, ?, ?)", (kind, id, answer, now)
            )
            self._forget("riams_asked", "kind, id", now)

    def not_asked(self, kind: str, id: str) -> None:
        """Forget it: it never reached РИАМС."""
        self._db.execute("delete from riams_asked where kind = ? and id = ?", (kind, id))

    # -- what is looked at ----------------------------------------------------------------------

    def watch(self, what: Watch) -> None:
        """Look at it from now on."""
        now = int(time.time())
        self._db.execute(
            "insert or replace into riams_watch values (?, ?, ?, ?, ?, ?, 0)",
            (*msgspec.structs.astuple(what), now),
        )

    def due(self, count: int) -> list[Watch]:
        """Return what to look at now, the longest unseen first. What is older than is kept is
        given up."""
        self._db.execute("delete from riams_watch where seen < ?", (time.time() - self._kept_s,))
        rows = self._db.execute(
            "select kind, id, call, number, version from riams_watch order by looked limit ?",
            (count,),
        ).fetchall()
        return msgspec.convert([list(row) for row in rows], list[Watch])

    def looked(self, what: Watch) -> None:
        """Put it behind all others."""
        self._db.execute(
            "update riams_watch set looked = (select max(looked) + 1 from riams_watch)"
            " where kind = ? and id = ?",
            (what.kind, what.id),
        )

    def end(self, what: Watch) -> None:
        """Look at it no more; a newer version of it is looked at all the same."""
        self._db.execute(
            "delete from riams_watch where kind = ? and id = ? and version = ?",
            (what.kind, what.id, what.version),
        )

    def forget(self) -> None:
        """Let go of a step of what is too old, also when nothing comes."""
        now = int(time.time())
        with self._db:
            self._forget("riams_call", "id", now, STEP)
            self._forget("riams_asked", "kind, id", now, STEP)

    def _forget(self, table: str, key: str, now: int, limit: int = FEW) -> None:
        # Both names are our own. A few at a time: nobody waits for a long delete.
        self._db.execute(
            f"delete from {table} where ({key}) in"
            f" (select {key} from {table} where seen < ? limit {limit})",
            (now - self._kept_s,),
        )


_KEY: Final = Key.__struct_fields__
