"""The call cards that wait for their register: one SQLite file, used by several processes at once.

It holds patients' data and is its owner's alone. The newest version of a card holds. A card whose
policy is not known yet is kept all the same, as not checked, with the time of the next asking.
"""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import date, timedelta
from pathlib import Path
from typing import Final, Literal

import apsw
import msgspec

from connectors.billing.draft import Draft
from connectors.runtime.statefile import StateFile
from proto import schemas
from proto.exits import StartError
from proto.retention import Retention
from proto.wording import text

# Why a policy is not known: "" it is; "silent" the fund did not answer; "not_found" and "ambiguous"
# it did; "nobody" there is nothing to ask by; "no_insurer" there is a policy, and no insurer.
Why = Literal["", "silent", "not_found", "ambiguous", "nobody", "no_insurer"]
Came = Literal["kept", "same", "older"]
KEPT_DAYS: Final = Retention().fund_card_days  # a bill may be corrected in the year after
BUSY_MS: Final = 10_000
LEASE_S: Final = 60  # who took a card to ask about it has so long
_SCHEMA: Final = """
create table if not exists card (
    id text primary key,
    version integer not null,
    day text not null,
    subject text not null,
    draft blob not null,
    insurer text not null,
    insured blob,
    why text not null,
    ask_at integer,
    asked integer not null
);
create index if not exists card_day on card (day, id);
create index if not exists card_ask on card (ask_at) where ask_at is not null;
"""
_encode: Final = msgspec.json.Encoder().encode
_draft: Final = msgspec.json.Decoder(Draft).decode
_insured: Final = msgspec.json.Decoder(schemas.InsuredPerson).decode


class Checked(msgspec.Struct, frozen=True):
    """What is known of a patient's policy; `ask_at` is when to ask again, in seconds since 1970."""

    why: Why
    insured: schemas.InsuredPerson | None = None
    ask_at: int | None = None

    @property
    def insurer(self) -> str:
        """The insurer's code, "" when it is not known."""
        return (self.insured.insurer or "") if self.insured else ""


class Waiting(msgspec.Struct, frozen=True):
    """A card to ask about; `asked` is how often that was done."""

    draft: Draft
    asked: int


class Store:
    """The file. Every method raises StateAway while it cannot be used."""

    def __init__(self, file: Path, *, make: bool = True) -> None:
        """Raises StartError when the file cannot be used, or is not there and we may not `make`
        it."""
        try:
            if not make and not file.is_file():
                raise StartError(text("tfoms.no_store", file=file))
            # What is settled on the bus is on this disk.
            self._db = StateFile(file, _SCHEMA, busy_ms=BUSY_MS)
        except (apsw.Error, OSError) as error:
            raise StartError(text("tfoms.store_file", file=file, reason=str(error))) from None

    def close(self) -> None:
        """Close the file."""
        self._db.close()

    @property
    def state(self) -> StateFile:
        """The file itself, for operators."""
        return self._db

    # -- cards ----------------------------------------------------------------------------------

    def came(self, draft: Draft) -> Came:
        """Return whether this version is to be kept, or is here already, or is older."""
        row = self._db.execute("select version from card where id = ?", (draft.card_id,)).fetchone()
        known = int(str(row[0])) if row else 0
        if known < draft.version:
            return "kept"
        return "same" if known == draft.version else "older"

    def keep(self, draft: Draft, subject: str, checked: Checked) -> None:
        """Keep a card; an older version of it is replaced, never a newer one."""
        self._db.execute(
            "insert into card values (?, ?, ?, ?, ?, ?, ?, ?, ?, 1) on conflict (id) do update set"
            " version = excluded.version, day = excluded.day, subject = excluded.subject,"
            " draft = excluded.draft, insurer = excluded.insurer, insured = excluded.insured,"
            " why = excluded.why, ask_at = excluded.ask_at, asked = 1"
            " where excluded.version > card.version",
            (draft.card_id, draft.version, draft.day.isoformat(), subject, _encode(draft),
             *self._said(checked)),
        )  # fmt: skip

    def forget_old(self, today: date, kept_days: float = KEPT_DAYS) -> None:
        """Delete a few cards that no register will ever hold."""
        last = (today - timedelta(days=kept_days)).isoformat()
        self._db.execute(
            "delete from card where id in (select id from card where day < ? limit 50)", (last,)
        )

    # -- asking again ---------------------------------------------------------------------------

    def take_due(self, limit: int) -> list[Waiting]:
        """Return cards whose time to ask has come; other processes do not get them meanwhile."""
        now = int(time.time())
        rows = self._db.execute(
            "update card set ask_at = ?1 + ?2 where id in"
            " (select id from card where ask_at <= ?1 order by ask_at limit ?3)"
            " returning draft, asked",
            (now, LEASE_S, limit),
        ).fetchall()
        return [Waiting(_draft(bytes(row[0])), int(str(row[1]))) for row in rows]  # type: ignore[arg-type]

    def checked(self, draft: Draft, checked: Checked) -> None:
        """Note what the fund said, unless a newer version of the card came meanwhile."""
        self._db.execute(
            "update card set insurer = ?, insured = ?, why = ?, ask_at = ?, asked = asked + 1"
            " where id = ? and version = ?",
            (*self._said(checked), draft.card_id, draft.version),
        )

    @staticmethod
    def _said(checked: Checked) -> tuple[str, bytes | None, str, int | None]:
        insured = None if checked.insured is None else _encode(checked.insured)
        return checked.insurer, insured, checked.why, checked.ask_at

    def counts(self) -> dict[str, int]:
        """Return how many cards are here, by why their policy is not known ("" it is)."""
        rows = self._db.execute("select why, count(*) from card group by why")
        return {str(why): int(str(count)) for why, count in rows}

    # -- registers ------------------------------------------------------------------------------

    @contextmanager
    def snapshot(self) -> Iterator[None]:
        """Read the same cards however often, whatever comes in meanwhile."""
        self._db.execute("begin")
        try:
            yield
        finally:
            self._db.execute("rollback")

    def unpaid(self, first: date, last: date) -> dict[str, int]:
        """Return how many cards of these days nobody can be billed for, by why."""
        rows = self._db.execute(
            "select why, count(*) from card where day between ? and ? and why <> ''"
            " group by why order by why",
            (first.isoformat(), last.isoformat()),
        )
        return {str(why): int(str(count)) for why, count in rows}

    def of_payer(
        self, first: date, last: date, payer: str
    ) -> Iterator[tuple[Draft, str, schemas.InsuredPerson]]:
        """Yield the cards of these days that an insurer pays, with their subjects."""
        return self._cards(first, last, "insurer = ?", (payer,))

    def of_others(
        self, first: date, last: date, insurers: tuple[str, ...]
    ) -> Iterator[tuple[Draft, str, schemas.InsuredPerson]]:
        """Yield the cards of those insured elsewhere, for whom the fund pays."""
        marks = ", ".join("?" * len(insurers))
        return self._cards(first, last, f"insurer not in ({marks})", insurers)

    def _cards(
        self, first: date, last: date, where: str, values: tuple[str, ...]
    ) -> Iterator[tuple[Draft, str, schemas.InsuredPerson]]:
        rows = self._db.execute(
            "select draft, subject, insured from card where day between ? and ? and why = ''"
            f" and {where} order by day, id",
            (first.isoformat(), last.isoformat(), *values),
        )
        for draft, subject, insured in rows:
            yield _draft(bytes(draft)), str(subject), _insured(bytes(insured))
