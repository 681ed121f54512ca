"""The bodies of messages about patients: call cards, identity, hospitals, visits, documents.

Ground and words are those of `schemas`. A coded value names the code list it is of: lists of
the ministry and of the insurance fund number the same things differently (form of care: 2 is an
emergency in 1.2.643.5.1.13.13.11.1551 and urgent in V014), so a bare code means nothing
(docs/domain.md 3.3).
"""

from datetime import date
from typing import Annotated, Any, Literal

import msgspec

from .pattern import exactly
from .schemas import (
    Address,
    Body,
    CallTicket,
    Coded,
    Count,
    Id112,
    IdentityDocument,
    Instant,
    Person,
    Required,
    Several,
    Sex,
    Short,
    Text,
)

Oid = Annotated[str, msgspec.Meta(pattern=exactly(r"[0-2](\.(0|[1-9][0-9]*))+"), max_length=128)]
Icd10 = Annotated[str, msgspec.Meta(pattern=exactly(r"[A-Z][0-9]{2}(\.[0-9]{1,2})?"))]
CallId = Annotated[str, msgspec.Meta(min_length=1, max_length=200)]


class CrewMember(Body, frozen=True, kw_only=True):
    """Somebody of the brigade: `worker` is the register's id, `role` a code of
    1.2.643.5.1.13.13.99.2.368, `post` one of 1.2.643.5.1.13.13.11.1002."""

    worker: Short | None = None
    family: Short | None = None
    given: Short | None = None
    middle: Short | None = None
    snils: Short | None = None
    role: Coded
    post: Coded | None = None


class Diagnosis(Body, frozen=True, kw_only=True):
    """A diagnosis by ICD-10 (form 110/у, 24 and 25)."""

    code: Icd10
    kind: Literal["main", "complication", "concomitant"] = "main"
    text: Text | None = None


class Measurement(Body, frozen=True, kw_only=True):
    """A vital sign before and after the help: `kind` is a code of 1.2.643.5.1.13.13.99.2.262."""

    kind: Coded
    before: float | None = None
    after: float | None = None
    unit: Short | None = None


class Finding(Body, frozen=True, kw_only=True):
    """What was seen of the patient: `kind` is a coded field of 1.2.643.5.1.13.13.99.2.166, the
    value is a code of that field's own list, or words."""

    kind: Coded
    value: Coded | None = None
    text: Text | None = None


class Refusal(Body, frozen=True, kw_only=True):
    """The patient refused something (form 110/у, 31 to 33)."""

    what: Literal["examination", "help", "hospital"]
    signed: bool
    at: Instant | None = None


class CallCard(CallTicket, frozen=True, kw_only=True):
    """The call card (КВ, form 110/у of order 942): what the ticket became once the call was over.

    The code lists, each with 1.2.643.5.1.13.13. before it: `order` 11.1525, `place_type` 11.1528,
    `got_by` 11.1526, `delay` 11.1527, `accident` 11.1529, `complications` 11.1541 and
    `complications_effect` 11.1542, `outcome` 11.1543, `carried` 11.1544, `form_of_care` 11.1551,
    `result` 11.1545, or of a call without one its reason (the field 7011 of 99.2.166).
    `finished_at` is the end of the call.
    """

    card_id: Required
    finished_at: Instant
    crew: Several[CrewMember] = []
    got_by: Coded | None = None
    delay: Coded | None = None
    accident: Coded | None = None
    injury: Coded | None = None
    intoxicated: bool | None = None
    complaints: Text | None = None
    anamnesis: Text | None = None
    objective: Text | None = None
    findings: Several[Finding] = []
    measurements: Several[Measurement] = []
    diagnoses: Several[Diagnosis] = []
    complications: Several[Coded] = []
    complications_effect: Coded | None = None
    help_on_scene: Text | None = None
    help_in_car: Text | None = None
    medicines: Several[Coded] = []
    consent: bool | None = None
    refusals: Several[Refusal] = []
    form_of_care: Coded | None = None
    outcome: Coded | None = None
    carried: Coded | None = None
    result: Coded
    hospital: Short | None = None
    mileage_km: Annotated[float, msgspec.Meta(ge=0, le=10_000)] | None = None
    visit_wanted: bool = False
    notes: Text | None = None
    extensions: dict[str, Any] = {}


class TransferState(Body, frozen=True, kw_only=True):
    """What became of a ticket or a card at another system: accepted is not confirmed.

    `number` is the one the other system gave it.
    """

    event_id: Required
    system: Required
    kind: Literal["ticket", "card"]
    call_id: CallId
    version: Annotated[int, msgspec.Meta(ge=1)] | None = None
    state: Literal["accepted", "confirmed", "rejected"]
    number: Short | None = None
    reason: Text | None = None
    at: Instant


# -- who is it ----------------------------------------------------------------------------------


class PatientQuestion(Body, frozen=True, kw_only=True):
    """Who is it? By a policy, by names and birth date, or by names, age and address."""

    enp: Short | None = None
    policy_series: Short | None = None
    policy_number: Short | None = None
    snils: Short | None = None
    document: IdentityDocument | None = None
    family: Short | None = None
    given: Short | None = None
    middle: Short | None = None
    birth_date: date | None = None
    age_years: Annotated[int, msgspec.Meta(ge=0, le=150)] | None = None
    street: Short | None = None
    house: Short | None = None
    flat: Short | None = None


class Patient(Body, frozen=True, kw_only=True):
    """Somebody whom the hospitals' system knows, and how sure it is (0 to 1)."""

    id: Required
    confidence: Annotated[float, msgspec.Meta(ge=0, le=1)] = 1.0
    family: Short | None = None
    given: Short | None = None
    middle: Short | None = None
    birth_date: date | None = None
    sex: Sex | None = None
    enp: Short | None = None
    policy_series: Short | None = None
    policy_number: Short | None = None
    insurer: Short | None = None
    snils: Short | None = None
    registered_at: Text | None = None
    lives_at: Text | None = None
    attached_to: Short | None = None


class PatientAnswer(Body, frozen=True, kw_only=True):
    """Who it may be. That nobody or several fit is an answer, not an error."""

    outcome: Literal["found", "ambiguous", "not_found"]
    patients: Annotated[list[Patient], msgspec.Meta(max_length=100)] = []


class SummaryQuestion(Body, frozen=True, kw_only=True):
    """What must a brigade know of a patient? `patient` is the hospitals' system's id."""

    patient: Required


class Allergy(Body, frozen=True, kw_only=True):
    """What the patient does not bear."""

    substance: Text
    reaction: Text | None = None


class Discharge(Body, frozen=True, kw_only=True):
    """A stay in hospital that has ended."""

    hospital: Short
    diagnosis: Diagnosis | None = None
    begins: date | None = None
    ends: date


class PatientSummary(Body, frozen=True, kw_only=True):
    """An extract of the electronic health record (ИЭМК), for the brigade on its way."""

    patient: Required
    known: bool
    allergies: list[Allergy] = []
    diagnoses: list[Diagnosis] = []
    discharges: list[Discharge] = []
    warnings: list[Text] = []
    changed_at: Instant | None = None


# -- hospital -----------------------------------------------------------------------------------


class HospitalQuestion(Body, frozen=True, kw_only=True):
    """Where is a free emergency bed? `profile` is a code of the fund's list V002."""

    profile: Required


class Hospital(Body, frozen=True, kw_only=True):
    """A ward with emergency beds."""

    id: Required
    name: Short
    ward: Required
    ward_name: Short | None = None
    address: Text | None = None
    beds: Count
    free: Count


class HospitalAnswer(Body, frozen=True, kw_only=True):
    """Wards of the profile, the first is the one to try first."""

    hospitals: Annotated[list[Hospital], msgspec.Meta(max_length=1000)]


class BedRequest(Body, frozen=True, kw_only=True):
    """Book a bed for a patient on the way; also the notice that the brigade will arrive."""

    booking_id: Required
    call_id: CallId
    id112: Id112 | None = None
    hospital: Required
    ward: Required
    profile: Short | None = None
    brigade: Short | None = None
    patient: Person | None = None
    diagnosis: Diagnosis | None = None
    arrives_at: Instant | None = None
    asked_at: Instant


class BedCancel(Body, frozen=True, kw_only=True):
    """The bed is not needed any more."""

    booking_id: Required
    call_id: CallId
    id112: Id112 | None = None
    reason: Text | None = None
    asked_at: Instant


class ArrivalNotice(Body, frozen=True, kw_only=True):
    """The brigade will arrive: for the emergency room, with or without a booked bed."""

    notice_id: Required
    call_id: CallId
    id112: Id112 | None = None
    booking_id: Short | None = None
    hospital: Required
    brigade: Short | None = None
    patient: Person | None = None
    diagnosis: Diagnosis | None = None
    severity: Coded | None = None
    arrives_at: Instant


class BedState(Body, frozen=True, kw_only=True):
    """What the hospital said to a booking; `number` is its own."""

    event_id: Required
    booking_id: Required
    call_id: CallId
    state: Literal["booked", "refused", "cancelled"]
    number: Short | None = None
    reason: Text | None = None
    at: Instant


class HospitalOutcome(Body, frozen=True, kw_only=True):
    """The hospital's slip of form 114/у: what became of the patient whom the ambulance brought."""

    event_id: Required
    call_id: CallId
    hospital: Required
    number: Short | None = None
    admitted: bool
    diagnosis: Diagnosis | None = None
    outcome: Coded | None = None
    discharged: date | None = None
    remarks: Text | None = None
    at: Instant


# -- visit --------------------------------------------------------------------------------------


class VisitRequest(Body, frozen=True, kw_only=True):
    """The polyclinic is to visit the patient at home after the ambulance was there (актив)."""

    visit_id: Required
    call_id: CallId
    id112: Id112 | None = None
    clinic: Short | None = None
    patient: Person
    address: Address
    phone: Short | None = None
    reason: Text | None = None
    diagnosis: Diagnosis | None = None
    not_later: date | None = None
    asked_at: Instant


class VisitState(Body, frozen=True, kw_only=True):
    """What became of a visit; `number` is the polyclinic's own."""

    event_id: Required
    visit_id: Required
    call_id: CallId
    state: Literal["accepted", "assigned", "done", "refused", "moved", "cancelled"]
    number: Short | None = None
    doctor: Short | None = None
    diagnosis: Diagnosis | None = None
    reason: Text | None = None
    at: Instant


# -- documents ----------------------------------------------------------------------------------


class DocumentTimer(Body, frozen=True, kw_only=True):
    """A connector to itself, later: look at this document again."""

    document_id: Required
    purpose: Literal["again", "check", "deadline"]


class DocumentState(Body, frozen=True, kw_only=True):
    """What became of an electronic document at a federal register: accepted is not registered.

    `kind` is a code of 1.2.643.5.1.13.13.11.1520 (115 is the call card), `number` what the register
    gave it (emdrId), `version` grows with each correction of one document.
    """

    event_id: Required
    document_id: Required
    call_id: CallId
    kind: Required
    register: Literal["remd", "vimis"]
    version: Annotated[int, msgspec.Meta(ge=1)]
    state: Literal["sent", "accepted", "registered", "rejected", "gave_up"]
    number: Short | None = None
    code: Short | None = None
    reason: Text | None = None
    at: Instant


# -- registers ----------------------------------------------------------------------------------


class RegisterState(Body, frozen=True, kw_only=True):
    """What the insurance fund said to a call card in a register (счёт-реестр).

    `accepted` is by the control of format and logic only, not paid yet; `codes` are the fund's
    reasons; `sum` is in roubles. A card that is `paid` in part has both.
    """

    event_id: Required
    call_id: CallId
    card_id: Required
    register: Required
    state: Literal["accepted", "refused", "paid"]
    codes: Several[Short] = []
    sum: Annotated[str, msgspec.Meta(pattern=exactly(r"[0-9]+\.[0-9]{2}"))] | None = None
    at: Instant
