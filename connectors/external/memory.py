"""Calls and their events: one SQLite file, without a word about patients.

A call is kept before it is published, so that a repeat under another body is known even when the
process dies in between; its id comes of its idempotency key, so that even without this file the
router knows a repeat. Events are synced to the disk before their delivery is settled.
"""

import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import apsw
import msgspec

from connectors.external.contract import Event
from proto.exits import StartError
from proto.schemas import StatusCode
from proto.wording import text

KEPT_S: Final = 90 * 86_400.0
DAY_S: Final = 86_400.0
_SCHEMA: Final = """
create table if not exists call (
    ref text primary key,
    client text not null,
    id text not null,
    digest blob not null,           -- of the body that was handed in; empty: not known any more
    number text,
    handed_in_at real not null,     -- seconds since 1970
    accepted integer not null,
    cancel_asked_at real
) without rowid;
create index if not exists call_of_client on call (client, handed_in_at);
create index if not exists call_age on call (handed_in_at);
create table if not exists event (
    ref text not null,
    number integer not null,
    event_id text not null,
    occurred_at real not null,
    code text not null,
    call_id text not null,
    body blob not null,
    primary key (ref, number),
    unique (ref, event_id)
) without rowid;
"""


@dataclass(frozen=True)
class Call:
    """A call that was handed in; times are seconds since 1970-01-01 UTC."""

    ref: str
    client: str
    id: str
    digest: bytes
    number: str | None
    handed_in_at: float
    accepted: bool
    cancel_asked_at: float | None


@dataclass(frozen=True)
class State:
    """What the events of a call say: the newest status, the ambulance's number, how many."""

    status: StatusCode | None = None
    call_id: str | None = None
    events: int = 0


class Memory:
    """The file of one connector. Only `Memory` knows that it is SQL; everything here blocks for as
    long as a disk takes."""

    def __init__(self, file: Path) -> None:
        """Raises StartError when the file cannot be used."""
        try:
            self._db = apsw.Connection(str(file))
            self._db.execute("pragma journal_mode = wal; pragma synchronous = full")
            self._db.execute(_SCHEMA)
        except apsw.Error as error:
            raise StartError(text("external.state_file", file=file, reason=str(error))) from None

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    # -- calls ----------------------------------------------------------------------------------

    def call(self, ref: str) -> Call | None:
        """Return a call."""
        row = self._one("select * from call where ref = ?", ref)
        if row is None:
            return None
        ref, client, id, digest, number, at, accepted, cancelled = row
        return Call(ref, client, id, digest, number, at, bool(accepted), cancelled)

    def begin(self, call: Call) -> None:
        """Keep a call that is about to be published; a repeat changes nothing but what is not known
        any more."""
        with self._db:
            self._db.execute(
                "insert into call values (?, ?, ?, ?, ?, ?, ?, ?) on conflict (ref) do update set"
                " digest = excluded.digest, number = excluded.number where digest = x''",
                (call.ref, call.client, call.id, call.digest, call.number, call.handed_in_at,
                 int(call.accepted), call.cancel_asked_at),
            )  # fmt: skip
            self._prune(call.handed_in_at - KEPT_S)

    def accept(self, ref: str) -> None:
        """The router has the call."""
        self._db.execute("update call set accepted = 1 where ref = ?", (ref,))

    def note_cancel(self, ref: str, at: float) -> None:
        """The router has the wish to cancel the call; the first one counts."""
        self._db.execute(
            "update call set cancel_asked_at = ? where ref = ? and cancel_asked_at is null",
            (at, ref),
        )

    def day_wait_s(self, client: str, calls_max: int, now: float) -> float:
        """Return the seconds until `client` may hand in one more call, at most `calls_max` in any
        24 hours."""
        row = self._one(
            "select handed_in_at from call where client = ? and handed_in_at > ?"
            " order by handed_in_at desc limit 1 offset ?",
            client, now - DAY_S, calls_max - 1,
        )  # fmt: skip
        return 0.0 if row is None else max(0.0, float(row[0]) + DAY_S - now)

    # -- events ---------------------------------------------------------------------------------

    def note_event(self, ref: str, event: Event) -> Event:
        """Keep an event under its number, and return it as it is kept: a repeat of its `event_id`
        changes nothing."""
        with self._db:
            known = self._one(
                "select body from event where ref = ? and event_id = ?", ref, event.event_id
            )
            if known is not None:
                return msgspec.json.decode(known[0], type=Event)
            last = self._one("select max(number) from event where ref = ?", ref)
            number = 1 + int(last[0] or 0) if last else 1
            event = msgspec.structs.replace(event, number=number)
            self._db.execute(
                "insert into event values (?, ?, ?, ?, ?, ?, ?)",
                (ref, number, event.event_id, event.occurred_at.timestamp(), event.code,
                 event.call_id, msgspec.json.encode(event)),
            )  # fmt: skip
            self._db.execute("update call set accepted = 1 where ref = ? and accepted = 0", (ref,))
        return event

    def events(self, ref: str, after: int, most: int) -> list[Event]:
        """Return at most `most` events of a call after number `after`."""
        rows = self._db.execute(
            "select body from event where ref = ? and number > ? order by number limit ?",
            (ref, after, most),
        )
        return [msgspec.json.decode(_bytes(body), type=Event) for (body,) in rows]

    def state(self, ref: str) -> State:
        """Return what the events of a call say; an event that another one supersedes counts until
        a newer one comes."""
        row = self._one(
            "select code, call_id, (select max(number) from event where ref = ?1) from event"
            " where ref = ?1 order by occurred_at desc, number desc limit 1",
            ref,
        )
        return State() if row is None else State(*row)

    def _prune(self, before: float) -> None:
        """Forget a few of the calls that are older than anybody asks for."""
        rows = self._db.execute(
            "select ref from call where handed_in_at < ? order by handed_in_at limit 10", (before,)
        )
        for (ref,) in rows.fetchall():
            self._db.execute("delete from event where ref = ?", (ref,))
            self._db.execute("delete from call where ref = ?", (ref,))

    def _one(self, query: str, *values: Any) -> Sequence[Any] | None:
        return self._db.execute(query, values).fetchone()


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def now_s() -> float:
    """Return the seconds since 1970-01-01 UTC."""
    return time.time()
