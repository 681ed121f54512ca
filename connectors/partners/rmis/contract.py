"""The canonical contract with the hospitals' system: HTTP and JSON, bodies in the bus's own words.

We call it:
    PUT  {url}/tickets/{id}             a CallTicket        -> Taken
    POST {url}/tickets/{id}/statuses    a StatusEvent       -> Taken
    PUT  {url}/cards/{id}               a CallCard          -> Taken
    POST {url}/patients/identify        a PatientQuestion   -> PatientAnswer
    GET  {url}/patients/{id}/summary                        -> PatientSummary
    GET  {url}/hospitals?profile=CODE                       -> HospitalAnswer
    POST {url}/bookings                 a BedRequest        -> Booked
    POST {url}/bookings/{id}/cancel     a BedCancel         -> Booked
    POST {url}/arrivals                 an ArrivalNotice    -> Taken
    POST {url}/visits                   a VisitRequest      -> Visited
    GET  {url}/changes?after=CURSOR                         -> Changes
It may call us, with the same changes, as soon as there are any:
    POST /rmis/changes                  Changes, 2000 at most  -> Answer

Every request of ours that changes something carries `Idempotency-Key`; the same key again must
change nothing and be answered the same. "Taken" is not done: what becomes of a ticket, a card, a
booking or a visit is told by a change, minutes or days later. A change may come twice, and before
the answer to what it is about.
"""

from typing import Annotated, Any, Final, Literal

import msgspec

from proto.schemas import Required, Short

POSTED_MAX: Final = 2000
# A change's type, of all that the hospitals' system may tell.
ChangeType = Literal[
    "transfer.state.v1", "hospital.booked.v1", "hospital.outcome.v1", "visit.state.v1"
]


class Taken(msgspec.Struct, frozen=True, kw_only=True):
    """It was stored; `number` is the one the hospitals' system gave it."""

    number: Short | None = None


class Visited(Taken, frozen=True, kw_only=True):
    """The polyclinic's word about a visit."""

    state: Literal["accepted", "refused"] = "accepted"
    reason: Short | None = None


class Booked(msgspec.Struct, frozen=True, kw_only=True):
    """The hospital's word about a bed."""

    state: Literal["booked", "refused", "cancelled"]
    number: Short | None = None
    reason: Short | None = None


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """Something became of what we sent; `id` never changes, `body` is that of a message of `type`
    without `event_id`."""

    id: Required
    type: ChangeType
    body: dict[str, Any]


class Changes(msgspec.Struct, frozen=True, kw_only=True):
    """Changes in order; ask again after `cursor`, at once when there is `more`."""

    changes: list[Change]
    cursor: str = ""
    more: bool = False


class PostedChanges(msgspec.Struct, frozen=True, kw_only=True):
    """Changes that are posted, each of which is read for itself; more of them go into several
    posts."""

    changes: Annotated[list[msgspec.Raw], msgspec.Meta(max_length=POSTED_MAX)]
    cursor: str = ""
    more: bool = False


class UnreadChange(msgspec.Struct, frozen=True):
    """A change that breaks the contract: its `id` if it has one, the field, the rule."""

    id: str
    path: str
    rule: str
    digest: str


class Read(Changes, frozen=True, kw_only=True):
    """Changes of which each was read for itself: one that cannot be read holds up no other."""

    unread: list[UnreadChange] = []


class LooseChanges(msgspec.Struct, frozen=True, kw_only=True):
    """`Changes` as far as the page itself has to be of the contract."""

    changes: list[dict[str, Any]]
    cursor: str = ""
    more: bool = False


class Answer(msgspec.Struct, frozen=True):
    """Our answer: `code` follows HTTP, `sentence` is for people."""

    code: int
    sentence: str
