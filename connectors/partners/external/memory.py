"""Calls and their events: one SQLite file, without a word about patients.

A call is kept before it is published, so that a repeat under another body is known even when the
process dies in between; its id comes of its idempotency key, so that even without this file the
router knows a repeat. Events are synced to the disk before their delivery is settled.
"""

import re
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import apsw
import msgspec

from connectors.partners.external.contract import Event
from connectors.runtime.repeats import digest_of
from connectors.runtime.statefile import Spared, Statement
from proto.exits import StartError
from proto.retention import DAY_S, Retention
from proto.schemas import StatusCode
from proto.wording import text

KEPT_S: Final = Retention().external_days * DAY_S
FEW, STEP = 10, 500  # calls that go at once: beside a new one, and when there is time
_ID: Final = re.compile(r"[0-9a-f]{32}")
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
    long as a disk takes. A call is taken even while the file cannot be written (see `Spared`): the
    router has it. An event is kept for whoever asks, so it waits on the bus until it can be."""

    def __init__(self, file: Path, kept_s: float = KEPT_S) -> None:
        """Raises StartError when the file cannot be used."""
        self._kept_s = kept_s
        try:
            self.file = Spared(file, lambda: _SCHEMA)
        except apsw.Error as error:
            raise StartError(text("external.state_file", file=file, reason=str(error))) from None

    def close(self) -> None:
        """Close the file."""
        self.file.close()

    # -- calls ----------------------------------------------------------------------------------

    def call_of(self, client: str, id: str) -> Call | None:
        """Return a call of this client, None for what is another's."""
        if not _ID.fullmatch(id):
            return None
        return self._call("ref = ? and client = ? and id = ?", ref_of(client, id), client, id)

    def call(self, ref: str) -> Call | None:
        """Return a call, whoever's it is: for what the bus brings, never for what a client asks."""
        return self._call("ref = ?", ref)

    def _call(self, which: str, *values: str) -> Call | None:
        rows = self.file.rows(f"select * from call where {which}", *values)
        if not rows:
            return None
        ref, client, id, digest, number, at, _, _ = rows[-1]
        cancelled = next((row[7] for row in rows if row[7] is not None), None)
        return Call(ref, client, id, digest, number, at, any(row[6] for row in rows), cancelled)

    def begin(self, call: Call) -> None:
        """Keep a call that is about to be published; a repeat changes nothing but what is not known
        any more."""
        self.file.write(self._begun(call), *self._pruned(call.handed_in_at - self._kept_s))

    def _begun(self, call: Call) -> Statement:
        return (
            "insert into call values (?, ?, ?, ?, ?, ?, ?, ?) on conflict (ref) do update set"
            " digest = excluded.digest, number = excluded.number where digest = x''",
            (call.ref, call.client, call.id, call.digest, call.number, call.handed_in_at,
             int(call.accepted), call.cancel_asked_at),
        )  # fmt: skip

    def accept(self, call: Call) -> None:
        """The router has the call."""
        accepted = ("update call set accepted = 1 where ref = ?", (call.ref,))
        self.file.write(self._begun(call), accepted)

    def note_cancel(self, call: Call, at: float) -> None:
        """The router has the wish to cancel the call; the first one counts."""
        asked = (
            "update call set cancel_asked_at = ? where ref = ? and cancel_asked_at is null",
            (at, call.ref),
        )
        self.file.write(self._begun(call), asked)

    def day_wait_s(self, client: str, calls_max: int, now: float) -> float:
        """Return the seconds until `client` may hand in one more call, at most `calls_max` in any
        24 hours."""
        rows = self.file.rows(
            "select handed_in_at from call where client = ? and handed_in_at > ?"
            " order by handed_in_at desc limit ?",
            client, now - DAY_S, calls_max,
        )  # fmt: skip
        times = sorted({float(row[0]) for row in rows}, reverse=True)
        return max(0.0, times[calls_max - 1] + DAY_S - now) if len(times) >= calls_max else 0.0

    # -- events ---------------------------------------------------------------------------------

    def note_event(self, ref: str, event: Event) -> Event:
        """Keep an event under its number, and return it as it is kept: a repeat of its `event_id`
        changes nothing. Raises StateAway."""
        known = self._event(ref, event.event_id)
        if known is not None:
            return known
        rows = self.file.rows("select max(number) from event where ref = ?", ref)
        number = 1 + max(int(row[0] or 0) for row in rows) if rows else 1
        event = msgspec.structs.replace(event, number=number)
        self.file.keep(
            (
                "insert into event values (?, ?, ?, ?, ?, ?, ?)",
                (ref, number, event.event_id, event.occurred_at.timestamp(), event.code,
                 event.call_id, msgspec.json.encode(event)),
            ),
            ("update call set accepted = 1 where ref = ? and accepted = 0", (ref,)),
        )  # fmt: skip
        return event

    def distinct(self, ref: str, event: Event) -> Event:
        """Return an event that says something else than the one that is known by its `event_id`
        under an `event_id` of its own, and any other as it is."""
        known = self._event(ref, event.event_id)
        if known is None or _is_repeat(event, known):
            return event
        return msgspec.structs.replace(event, event_id=f"{event.event_id}~{mark_of(event)}")

    def _event(self, ref: str, event_id: str) -> Event | None:
        rows = self.file.rows(
            "select body from event where ref = ? and event_id = ?", ref, event_id
        )
        return msgspec.json.decode(rows[0][0], type=Event) if rows else None

    def events(self, ref: str, after: int, most: int) -> list[Event]:
        """Return at most `most` events of a call after number `after`."""
        rows = self.file.rows(
            "select body from event where ref = ? and number > ? order by number limit ?",
            ref, after, most,
        )  # fmt: skip
        return [msgspec.json.decode(_bytes(body), type=Event) for (body,) in rows]

    def state(self, ref: str) -> State:
        """Return what the events of a call say; an event that another one supersedes counts until
        a newer one comes."""
        rows = self.file.rows(
            "select code, call_id, (select max(number) from event where ref = ?1) from event"
            " where ref = ?1 order by occurred_at desc, number desc limit 1",
            ref,
        )
        return State(*rows[0]) if rows else State()

    def forget(self) -> None:
        """Let go of a step of what is too old, also when nothing comes."""
        self.file.write(*self._pruned(time.time() - self._kept_s, STEP))

    @staticmethod
    def _pruned(before: float, limit: int = FEW) -> tuple[Statement, Statement]:
        """Forget a few of the calls that are older than anybody asks for."""
        old = f"(select ref from call where handed_in_at < ? order by handed_in_at limit {limit})"
        return (
            (f"delete from event where ref in {old}", (before,)),
            (f"delete from call where ref in {old}", (before,)),
        )


def ref_of(client: str, id: str) -> str:
    """Return what the bus and the ambulance call a call of a client."""
    return f"{client}-{id}"


def parts_of(ref: str) -> tuple[str, str] | None:
    """Return client and id of a ref, None when it is none: a name may hold hyphens, an id not."""
    client, _, id = ref.rpartition("-")
    return (client, id) if client and _ID.fullmatch(id) else None


def _is_repeat(event: Event, known: Event) -> bool:
    """Whether an event says what a known one says; when it was written down does not count."""
    return known == msgspec.structs.replace(
        event, number=known.number, recorded_at=known.recorded_at
    )


def mark_of(event: Event) -> str:
    """Return a short digest of what an event says."""
    return digest_of(event, without=("number", "recorded_at"))[:8]


def _bytes(value: object) -> bytes:
    return value if isinstance(value, bytes) else str(value).encode()


def now_s() -> float:
    """Return the seconds since 1970-01-01 UTC."""
    return time.time()
