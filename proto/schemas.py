"""The bodies of messages: what partners mean by a card, a ticket, a status.

A schema says what must be there and of what kind. It never narrows what is carried: fields that a
schema does not know stay in the body, since connectors pass the bytes on, and what a partner's
contract does not know is kept in `extensions`.

Times are RFC 3339 with an offset. A person may be unknown: every name is optional.
"""

from datetime import date, datetime
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec

from .pattern import exactly

Instant = Annotated[datetime, msgspec.Meta(tz=True)]
Text = Annotated[str, msgspec.Meta(max_length=10_000)]
Short = Annotated[str, msgspec.Meta(max_length=400)]
Required = Annotated[str, msgspec.Meta(min_length=1, max_length=400)]
# 200 leaves room for the prefix of the subject, "112-".
Id112 = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
# More of anything in one body is a mistake, or meant to fill the memory of who reads it.
SEVERAL_MAX: Final = 1000
Each = TypeVar("Each")
Several = Annotated[list[Each], msgspec.Meta(max_length=SEVERAL_MAX)]
WorkerId = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]
Count = Annotated[int, msgspec.Meta(ge=0, le=100_000)]

StatusCode = Literal[
    "received",
    "assigned",
    "accepted",
    "departed",
    "arrived",
    "transport_started",
    "at_hospital",
    "handed_over",
    "finished",
    "returned",
    "refused",
    "cancelled",
    "duplicate",
]
CardState = Literal["new", "created", "in_work", "finished", "closed", "assigned", "not_set"]
ContactKind = Literal["not_set", "phone", "sms", "era", "manual"]
Sex = Literal["male", "female", "unknown"]


class Body(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Ground of every schema; unknown fields are allowed and are not an error."""


class Coded(Body, frozen=True, kw_only=True):
    """A value of a code list: `system` is its OID or its name, `text` is what people read."""

    code: Short
    system: Short
    version: Short | None = None
    text: Short | None = None


class Geo(Body, frozen=True, kw_only=True):
    """A point, WGS 84, degrees; `accuracy_m` is the radius in metres."""

    lat: Annotated[float, msgspec.Meta(ge=-90, le=90)]
    lon: Annotated[float, msgspec.Meta(ge=-180, le=180)]
    accuracy_m: Annotated[float, msgspec.Meta(ge=0)] | None = None


class Address(Body, frozen=True, kw_only=True):
    """Where: `text` for people, the rest for machines (FIAS identifiers, KLADR codes)."""

    text: Text
    region: Short | None = None
    district: Short | None = None
    settlement: Short | None = None
    settlement_kladr: Short | None = None
    settlement_fias: Short | None = None
    street: Short | None = None
    street_kladr: Short | None = None
    street_fias: Short | None = None
    house: Short | None = None
    house_kladr: Short | None = None
    house_fias: Short | None = None
    building: Short | None = None
    flat: Short | None = None
    entrance: int | None = None
    floor: int | None = None
    entry_code: Short | None = None
    road: Short | None = None
    road_km: int | None = None
    clarification: Text | None = None
    approximate: bool | None = None
    geo: Geo | None = None


class Age(Body, frozen=True, kw_only=True):
    """An age as it was said: a newborn's in days, a baby's in months."""

    value: Annotated[int, msgspec.Meta(ge=0, le=1500)]
    unit: Literal["years", "months", "days"] = "years"


class Person(Body, frozen=True, kw_only=True):
    """A patient or an injured person, known or not."""

    id: Short | None = None
    family: Short | None = None
    given: Short | None = None
    middle: Short | None = None
    birth_date: date | None = None
    age: Age | None = None
    sex: Sex | None = None
    snils: Short | None = None
    enp: Short | None = None
    document: dict[str, Any] | None = None
    identified_by: Short | None = None
    reason: Text | None = None
    can_move: Short | None = None


class Caller(Body, frozen=True, kw_only=True):
    """Who called."""

    name: Short | None = None
    phone: Short | None = None
    relation: Short | None = None


class Operator(Body, frozen=True, kw_only=True):
    """Who worked on it, in the partner's own terms."""

    login: Short
    name: Short | None = None
    post: Short | None = None
    phone: Short | None = None
    workplace: Short | None = None


class Contact(Body, frozen=True, kw_only=True):
    """One contact with 112 (a phone call, an SMS, ERA-GLONASS) that made or changed the card."""

    id: Short | None = None
    at: Instant
    kind: ContactKind = "not_set"
    caller: Caller | None = None
    text: Text | None = None
    accepted_by: Operator | None = None
    address: Address | None = None


class IncidentCard(Body, frozen=True, kw_only=True):
    """A card of System-112, new or corrected; the one with the newest `changed_at` holds."""

    id112: Id112
    system: Required
    ext_id: Short | None = None
    short_number: Short | None = None
    incident_type: Coded
    service_type: Coded | None = None
    region: Short
    description: Text | None = None
    level: Annotated[int, msgspec.Meta(ge=0, le=2)] = 0
    danger: bool | None = None
    blocked: bool | None = None
    injured_number: Count | None = None
    dead_number: Count | None = None
    consultation: bool = False
    address: Address
    contact: Contact | None = None
    patients: list[Person] = []
    repeat_of: Short | None = None
    era_card: Short | None = None
    era: dict[str, Any] | None = None
    state: CardState
    occurred_at: Instant
    created_at: Instant
    created_by: Operator
    changed_at: Instant
    changed_by: Operator
    extensions: dict[str, Any] = {}


class CardUpdate(IncidentCard, frozen=True, kw_only=True):
    """A card sent back to System-112 by the ambulance; `ext_id` is the ambulance's own number."""

    ext_id: Short


class IncidentCancelled(Body, frozen=True, kw_only=True):
    """System-112 ended the work on a card for every service: cancelled, or closed as done."""

    id112: Id112
    system: Required
    ext_id: Short | None = None
    kind: Literal["cancelled", "closed"]
    reason: Text | None = None
    operator: Operator
    recorded_at: Instant
    extensions: dict[str, Any] = {}


class Brigade(Body, frozen=True, kw_only=True):
    """An ambulance brigade; `members` is what may be shown of who is on it."""

    id: Short
    name: Short | None = None
    profile: Coded | None = None
    members: Text | None = None
    car: Short | None = None


class StatusEvent(Body, frozen=True, kw_only=True):
    """One fact of a call's life: never changed, only superseded. Order is by `occurred_at`.

    `goes_on`: this brigade's part is over and the call is not: another one has it. `service` is who
    goes: a brigade of the ambulance, or the polyclinic's urgent care. `duplicate_of` is the call
    that a `duplicate` doubles.
    """

    event_id: Required
    call_id: Required
    code: StatusCode
    occurred_at: Instant
    recorded_at: Instant
    source: Short = ""
    id112: Id112 | None = None
    brigade: Brigade | None = None
    operator: Operator | None = None
    geo: Geo | None = None
    supersedes: Short | None = None
    remark: Text | None = None
    goes_on: bool = False
    service: Literal["ambulance", "urgent_care"] = "ambulance"
    duplicate_of: Short | None = None


class TicketSource(Body, frozen=True, kw_only=True):
    """How the call came to the ambulance, and to which cards of System-112 it belongs."""

    system: Literal["phone", "112", "external", "self"]
    id112: Several[Id112] = []
    atc_call_id: Short | None = None


class CallTicket(Body, frozen=True, kw_only=True):
    """The call ticket (КТ); `version` grows with each change."""

    id: Required
    number_day: Annotated[int, msgspec.Meta(ge=1)]
    number_year: Annotated[int, msgspec.Meta(ge=1)]
    received_at: Instant
    status: StatusCode
    urgency: Annotated[int, msgspec.Meta(ge=1, le=3)] | None = None
    reason: Coded
    order: Coded | None = None
    place_type: Coded | None = None
    caller: Caller | None = None
    address: Address
    patients: Several[Person] = []
    source: TicketSource
    station: Short | None = None
    brigades: Several[Brigade] = []
    events: Several[StatusEvent] = []
    version: Annotated[int, msgspec.Meta(ge=1)]
    changed_at: Instant


class RejectedInput(Body, frozen=True, kw_only=True):
    """A partner's input that was refused: which field and which rule; no personal data."""

    partner: Required
    operation: Required
    path: Short
    rule: Short
    about: Short | None = None
    digest: Short | None = None
    recorded_at: Instant


class CallTalk(Body, frozen=True, kw_only=True):
    """Somebody was heard by the caller (or by whom an operator called): an `operator`, or another
    of the world outside, whose `number` is personal data. `queue` is the one that brought them
    together. Without `since` the beginning was not heard; without `until` the end was not heard, or
    the talk `goes_on`."""

    operator: Short | None = None
    number: Short | None = None
    queue: Short | None = None
    since: Instant | None = None
    until: Instant | None = None
    goes_on: bool = False


class CallUnheard(Body, frozen=True, kw_only=True):
    """From when to when the exchange was not heard. What is first seen at the end of it has that
    time: the latest it can have happened."""

    since: Instant
    until: Instant


class TelephonyCall(Body, frozen=True, kw_only=True):
    """What became of a telephone call. `number_from`, `number_to` and `transferred_to` are personal
    data. `operator` is whom the event is about: who is rung, who answered or holds, who transferred
    the call; in `ended`, who of ours talked last. `talks` are who talked when, up to the event,
    `unheard` the times of the call of which nothing is known, `recordings` all there are when they
    are several."""

    call_id: Required
    event: Literal[
        "started", "ringing", "answered", "bridged", "held", "resumed", "transferred", "ended"
    ]
    at: Instant
    direction: Literal["in", "out"]
    number_from: Short = ""
    number_to: Short = ""
    started_at: Instant
    answered_at: Instant | None = None
    queue: Short | None = None
    operator: Short | None = None
    cause: Short | None = None
    recording_ref: Short | None = None
    id112: Id112 | None = None
    transferred_to: Short | None = None
    talks: Several[CallTalk] = []
    unheard: Several[CallUnheard] = []
    recordings: Several[Short] = []


class TelephonyJoined(Body, frozen=True, kw_only=True):
    """A card of System-112 and a telephone call belong together."""

    call_id: Required
    id112: Id112
    at: Instant


class OperatorState(Body, frozen=True, kw_only=True):
    """An operator of the exchange came into another state."""

    operator: Required
    groups: Several[Short]
    state: Literal["offline", "free", "ringing", "talking", "paused", "unavailable"]
    at: Instant


class GroupStatistics(Body, frozen=True, kw_only=True):
    """The figures of one group over `period_s`, and who was there at its end. `offered` is
    `answered`, `abandoned`, `left` and those who still wait; `left` are who left the group
    unanswered and did not hang up: sent on, answered elsewhere, by a key (`left_by_key` of them).
    `unheard_s` of the period the exchange was not heard."""

    group: Required
    period_s: Annotated[float, msgspec.Meta(gt=0)]
    at: Instant
    offered: Count
    answered: Count
    abandoned: Count
    answered_in_time: Count
    threshold_s: Annotated[float, msgspec.Meta(gt=0)]
    wait_mean_s: float
    wait_max_s: float
    talk_mean_s: float
    logged_in: Count
    available: Count
    waiting: Count
    left: Count = 0
    left_by_key: Count = 0
    unheard_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0


class DialRequest(Body, frozen=True, kw_only=True):
    """Call a number from an operator's telephone (click-to-call)."""

    operator: Annotated[str, msgspec.Meta(pattern=exactly(r"[A-Za-z0-9_.-]{1,40}"))]
    number: Annotated[str, msgspec.Meta(pattern=exactly(r"\+?[0-9*#]{1,20}"))]
    id112: Id112 | None = None


class DialResult(Body, frozen=True, kw_only=True):
    """What came of a DialRequest; `request_id` is its message's id."""

    request_id: Required
    operator: Required
    result: Literal["connected", "failed", "unknown"]
    reason: Short | None = None
    id112: Id112 | None = None
    at: Instant


class Position(Body, frozen=True, kw_only=True):
    """A position that a worker holds: `organisation` is an OID of the register of organisations,
    `post` a code of 1.2.643.5.1.13.13.11.1002, `rate` the share of a full one."""

    organisation: Required
    department: Short | None = None
    post: Coded
    rate: Annotated[float, msgspec.Meta(gt=0, le=3)] | None = None
    kind: Short | None = None
    begins: date
    ends: date | None = None


class Speciality(Body, frozen=True, kw_only=True):
    """A speciality (a code of 1.2.643.5.1.13.13.11.1066) with its certificate or accreditation."""

    code: Coded
    certificate: Short | None = None
    begins: date | None = None
    ends: date | None = None


class Worker(Body, frozen=True, kw_only=True):
    """A medical worker as the register has it now; the whole record, the newest holds."""

    id: WorkerId
    snils: Annotated[str, msgspec.Meta(pattern=exactly(r"[0-9]{11}"))]
    family: Required
    given: Required
    middle: Short | None = None
    birth_date: date
    sex: Sex | None = None
    positions: Annotated[list[Position], msgspec.Meta(min_length=1, max_length=SEVERAL_MAX)]
    specialities: Several[Speciality] = []
    dismissed: date | None = None
    changed_at: Instant


class WorkerRemoved(Body, frozen=True, kw_only=True):
    """The register has this worker no more."""

    id: WorkerId
    recorded_at: Instant


class WorkerQuestion(Body, frozen=True, kw_only=True):
    """Who is it? Asked by the register's `id` or by `snils` (11 digits), one of the two."""

    id: WorkerId | None = None
    snils: Annotated[str, msgspec.Meta(pattern=exactly(r"[0-9]{11}"))] | None = None


class WorkerLoad(Body, frozen=True, kw_only=True):
    """Load the register now: all of it, or what has changed."""

    full: bool = True


class IdentityDocument(Body, frozen=True, kw_only=True):
    """A document; `type` is a code of the fund's list F011."""

    type: Annotated[int, msgspec.Meta(ge=1, le=99)]
    series: Short | None = None
    number: Required


class InsuranceQuestion(Body, frozen=True, kw_only=True):
    """Whose policy is it, and which one on a date? By ЕНП, by СНИЛС, by a policy's number, by a
    document, or by names; a birth date narrows it, and names need one."""

    on_date: date
    enp: Annotated[str, msgspec.Meta(pattern=exactly(r"[0-9]{16}"))] | None = None
    snils: Annotated[str, msgspec.Meta(pattern=exactly(r"[0-9]{11}"))] | None = None
    policy_number: Short | None = None
    document: IdentityDocument | None = None
    family: Short | None = None
    given: Short | None = None
    middle: Short | None = None
    birth_date: date | None = None


class InsuredPerson(Body, frozen=True, kw_only=True):
    """Somebody whom the fund knows, and the policy on the date asked for; `policy_kind` is F008."""

    enp: Annotated[str, msgspec.Meta(pattern=exactly(r"[0-9]{16}"))]
    policy_kind: Literal[1, 2, 3]
    policy_number: Required
    insurer: Short | None = None
    region: Short | None = None
    begins: date | None = None
    ends: date | None = None
    attached_to: Short | None = None
    died: date | None = None


class InsuranceAnswer(Body, frozen=True, kw_only=True):
    """Who it may be. That nobody or several fit is an answer, not an error."""

    outcome: Literal["found", "ambiguous", "not_found"]
    persons: Annotated[list[InsuredPerson], msgspec.Meta(max_length=100)] = []


class DeadlineTimer(Body, frozen=True, kw_only=True):
    """A connector to itself, later: by now the dispatcher has confirmed this card."""

    id112: Id112
    taken_at: Instant
    within_s: Annotated[float, msgspec.Meta(gt=0)]


class DeadlineMissed(Body, frozen=True, kw_only=True):
    """The time is over: nobody has confirmed a card of System-112."""

    id112: Id112
    within_s: Annotated[float, msgspec.Meta(gt=0)]
    taken_at: Instant
    due_at: Instant
    recorded_at: Instant


class VehiclePosition(Body, frozen=True, kw_only=True):
    """Where a vehicle was at a moment. `source` is the system of telematics that says so; not
    `valid`: its receiver had no fix, and this is the place that it knew last. `course` is degrees
    from north, clockwise."""

    vehicle_id: Required
    at: Instant
    lat: Annotated[float, msgspec.Meta(ge=-90, le=90)]
    lon: Annotated[float, msgspec.Meta(ge=-180, le=180)]
    speed_kmh: Annotated[float, msgspec.Meta(ge=0)] | None = None
    course: Annotated[float, msgspec.Meta(ge=0, lt=360)] | None = None
    valid: bool = True
    source: Short | None = None
