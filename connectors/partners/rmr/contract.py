"""The contract with the register of medical workers (РМР): HTTP and JSON, we ask.

    GET  {url}/workers?size=N[&after=CURSOR]          -> WorkerPage, in the register's own order
    GET  {url}/workers/changes?since=CURSOR&size=N    -> ChangePage; 410: the cursor is too old
    POST {url}/workers/find   {"id"} or {"snils"}     -> Record, or 404

The first page of `workers` gives `since`, from which `changes` tells what was changed while the
pages were read. Cursors are the register's own and opaque to us. The fields of a record are those
of docs/domain.md 8 (the federal register's, FHIR-RU Practitioner).
"""

from datetime import date
from typing import Annotated, Any, Literal

import msgspec

from proto.pattern import exactly
from proto.schemas import Count, Instant, Required, Short, WorkerId

Cursor = Annotated[str, msgspec.Meta(min_length=1, max_length=1000)]


class Part(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Ground of the contract's structures; unknown fields are allowed."""


class Certificate(Part, frozen=True, kw_only=True):
    """A certificate or an accreditation."""

    number: Short | None = None
    begins: date | None = msgspec.field(default=None, name="from")
    ends: date | None = msgspec.field(default=None, name="to")


class Speciality(Part, frozen=True, kw_only=True):
    """A speciality, a code of 1.2.643.5.1.13.13.11.1066."""

    code: Required
    certificate: Certificate | None = None


class Position(Part, frozen=True, kw_only=True):
    """A position, a code of 1.2.643.5.1.13.13.11.1002, in the organisation with this OID."""

    mo_oid: Annotated[str, msgspec.Meta(pattern=exactly(r"[0-9]+(\.[0-9]+)+"), max_length=128)]
    department: Short | None = None
    position_code: Required
    rate: Annotated[float, msgspec.Meta(gt=0, le=3)] | None = None
    type: Short | None = None
    begins: date = msgspec.field(name="from")
    ends: date | None = msgspec.field(default=None, name="to")


class Record(Part, frozen=True, kw_only=True):
    """A worker. `snils` is 11 digits, with or without its usual separators."""

    id: WorkerId
    snils: Annotated[str, msgspec.Meta(pattern=exactly(r"[0-9 \-]{11,14}"))]
    family: Required
    given: Required
    middle: Short | None = None
    birth_date: date
    sex: Literal["male", "female", "unknown"] | None = None
    positions: Annotated[list[Position], msgspec.Meta(min_length=1)]
    specialities: list[Speciality] = []
    dismissed: date | None = None
    changed_at: Instant


class Removed(Part, frozen=True, kw_only=True):
    """A worker whom the register has no more."""

    id: WorkerId
    removed: Literal[True]


class WorkerPage(Part, frozen=True, kw_only=True):
    """Some of all workers; `next` is the cursor of the following page, None after the last.

    The records are read one by one: a bad one does not spoil its page.
    """

    total: Count
    workers: list[dict[str, Any]]
    next: Cursor | None = None
    since: Cursor


class ChangePage(Part, frozen=True, kw_only=True):
    """Changed and removed workers, the oldest change first; `more`: ask again from `next`."""

    changes: list[dict[str, Any]]
    next: Cursor
    more: bool = False


class Question(Part, frozen=True, kw_only=True):
    """Whom to find."""

    id: WorkerId | None = None
    snils: str | None = None
