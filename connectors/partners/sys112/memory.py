"""What the connector must not forget: which cards it has seen and which are over, whether the
dispatcher has confirmed them, and what System-112 was told of a call. One SQLite file, no personal
data: numbers, times and brigades.
"""

import time
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, NamedTuple

import apsw
import msgspec

from connectors.runtime.statefile import Spared, Statement
from proto import schemas
from proto.exits import StartError
from proto.retention import DAY_S, Retention
from proto.wording import text

KEPT_S: Final = Retention().sys112_days * DAY_S  # nobody speaks of a card after that
FEW, STEP = 10, 500  # rows that go at once: beside a new one, and when there is time
_SCHEMA: Final = """
create table if not exists card (
    id112 text primary key, changed real not null default 0, over integer not null default 0,
    root text not null, watched integer not null default 0, excused integer not null default 0,
    confirmed real, seen integer not null
) without rowid;
create index if not exists card_root on card (root);
create index if not exists card_seen on card (seen);
create table if not exists told (
    call text not null, event text not null, occurred real not null, body blob not null,
    seen integer not null, primary key (call, event)
) without rowid;
create index if not exists told_seen on told (seen);
create table if not exists origin (
    only_one integer primary key check (only_one = 1), made real not null
);
insert or ignore into origin values (1, {now});
"""
_TOUCH: Final = (
    "insert into card (id112, root, seen) values (?1, ?1, ?2)"
    " on conflict do update set seen = ?2 where seen < ?2 - 86400"
)


class Watched(NamedTuple):
    """The confirmation of a card: since when (Unix time, s) it is there, or that none is needed."""

    confirmed: float | None
    excused: bool


class Memory:
    """The file of one connector, made at `made_s` (Unix time); None: only as long as the process
    runs.

    Which cards there are and which are over is synced: System-112 has our word for it. A loss of
    power may take the last confirmations and reactions, which costs an alarm too many at worst. A
    file that cannot be written stops nothing: see `Spared`.
    """

    def __init__(
        self,
        file: Path | None,
        clock: Callable[[], float] = time.time,
        kept_s: float = KEPT_S,
    ) -> None:
        """Raises StartError when the file cannot be used."""
        self._kept_s = kept_s
        self._clock = clock
        try:
            self.state = Spared(
                file,
                lambda: _SCHEMA.format(now=float(clock())),
                pragmas="pragma journal_mode = wal",
            )
        except apsw.Error as error:
            raise StartError(text("sys112.state_file", file=file, reason=str(error))) from None
        origin = self.state.rows("select made from origin")
        self.made_s = float(origin[0][0]) if origin else float(clock())

    def close(self) -> None:
        """Close the file."""
        self.state.close()

    @property
    def age_s(self) -> float:
        """How long this memory has been kept."""
        return self._clock() - self.made_s

    # -- the life of a card ---------------------------------------------------------------------

    def note_card(self, id112: str, changed: datetime, *, at_work: bool, over: bool) -> bool:
        """Note a card as System-112 says it is now; return False, and note nothing, when that
        would take a card back to work that is over. A card older than the newest changes nothing.
        """
        at = changed.timestamp()
        rows = self.state.rows("select changed, over from card where id112 = ?", id112)
        newest = max((float(row[0]) for row in rows), default=at)
        if at_work and at > newest and any(row[1] for row in rows):
            return False
        if at >= newest:
            self.state.write(
                *self._touched(id112),
                (
                    "update card set changed = ?, over = max(over, ?) where id112 = ?",
                    (at, int(over), id112),
                ),
            )
        return True

    def knows(self, id112: str) -> bool:
        """Whether System-112 has sent this card."""
        return bool(self.state.rows("select 1 from card where id112 = ?", id112))

    def end_card(self, id112: str) -> None:
        """Note that the work on a card is over."""
        over = ("update card set over = 1 where id112 = ?", (id112,))
        self.state.write(*self._touched(id112), over)

    # -- the confirmation of a card -------------------------------------------------------------

    def watches(self, id112: str) -> bool:
        """Whether the confirmation of a card is waited for, or was."""
        rows = self.state.rows("select watched from card where id112 = ?", id112)
        return any(row[0] for row in rows)

    def watch(self, id112: str, repeat_of: str | None) -> None:
        """Note that a card waits for its confirmation. `repeat_of` is the card of the same incident
        that came first."""
        root = repeat_of or id112
        watched = ("update card set root = ?, watched = 1 where id112 = ?", (root, id112))
        self.state.write(*self._touched(id112), watched, synced=False)

    def excuse(self, id112: str) -> None:
        """Note that a card needs no confirmation any more."""
        excused = ("update card set excused = 1 where id112 = ?", (id112,))
        self.state.write(*self._touched(id112), excused, synced=False)

    def confirm(self, id112: str, at_s: float) -> None:
        """Note that a dispatcher had a card at `at_s` (Unix time); the earliest holds."""
        confirmed = (
            "update card set confirmed = ?1"
            " where id112 = ?2 and (confirmed is null or confirmed > ?1)",
            (at_s, id112),
        )
        self.state.write(*self._touched(id112), confirmed, synced=False)

    def watched(self, id112: str) -> Watched:
        """Return how a card stands. One that repeats another is confirmed with that: the ambulance
        has both in one call, and tells of the second what happens from then on only."""
        rows = self.state.rows(
            "select min(kin.confirmed), max(kin.id112 = card.id112 and kin.excused)"
            " from card join card as kin on kin.root = card.root or kin.id112 = card.root"
            " where card.id112 = ?",
            id112,
        )
        confirmed = min((float(row[0]) for row in rows if row[0] is not None), default=None)
        return Watched(confirmed, any(row[1] for row in rows))

    # -- what System-112 was told ---------------------------------------------------------------

    def note_told(self, status: schemas.StatusEvent) -> None:
        """Remember a status that System-112 hears of."""
        brigade = status.brigade
        kept = msgspec.structs.replace(
            status,
            brigade=brigade and schemas.Brigade(id=brigade.id, name=brigade.name),
            operator=status.operator and schemas.Operator(login=status.operator.login),
            geo=None,
            remark=None,
        )
        occurred = status.occurred_at.timestamp()
        row = (status.call_id, status.event_id, occurred, msgspec.json.encode(kept), self._now())
        # Another status under the same number is none of ours to judge: the later one holds.
        told = (
            "insert into told values (?, ?, ?, ?, ?) on conflict do update set"
            " occurred = excluded.occurred, body = excluded.body"
            " where excluded.occurred > told.occurred",
            row,
        )
        self.state.write(told, self._forgotten("told"), synced=False)

    def last_told(self, call: str, until: datetime) -> schemas.StatusEvent | None:
        """Return the last status of a call by `until` that System-112 hears of."""
        rows = self.state.rows(
            "select occurred, body from told where call = ? and occurred <= ?"
            " order by occurred desc limit 1",
            call,
            until.timestamp(),
        )
        if not rows:
            return None
        _, body = max(rows, key=lambda row: float(row[0]))
        return msgspec.json.decode(body, type=schemas.StatusEvent)

    # -- within ---------------------------------------------------------------------------------

    def _touched(self, id112: str) -> tuple[Statement, Statement]:
        return (_TOUCH, (id112, self._now())), self._forgotten("card")

    def forget(self) -> None:
        """Let go of a step of what is too old, also when nothing comes."""
        self.state.write(self._forgotten("card", STEP), self._forgotten("told", STEP), synced=False)

    def _forgotten(self, table: str, limit: int = FEW) -> Statement:
        """Let go of a few rows that are too old, so that this never takes long."""
        key = "id112" if table == "card" else "(call, event)"
        columns = key.strip("()")
        return (
            f"delete from {table} where {key} in"
            f" (select {columns} from {table} where seen < ? limit {limit})",
            (self._now() - self._kept_s,),
        )

    def _now(self) -> int:
        return int(self._clock())


def at(seconds: float) -> datetime:
    """Return a time of this memory as a moment."""
    return datetime.fromtimestamp(seconds, UTC)
