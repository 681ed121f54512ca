"""РИАМС as a dialect: what its services can do, and an honest answer where they cannot.

A ticket, its statuses and its call card are one card there, saved again and again under one key. A
bed and a visit have no key: they are asked for once, and when the answer is lost nobody asks again,
but whoever asked is told that it may have been done. A bed cannot be given back and an emergency
room has no door for notices: the first is told as it is, the second is left to the booking, which
names brigade and call.
"""

from collections.abc import Awaitable, Callable
from datetime import UTC, date, datetime, tzinfo
from typing import Annotated, Any, Final
from zoneinfo import ZoneInfo

import msgspec

from connectors.partners.rmis.contract import Booked, Change, Changes, Taken, Visited
from connectors.partners.rmis.dialect import Untold
from connectors.partners.rmis.memory import Memory
from connectors.partners.rmis.patient import patient_of
from connectors.partners.rmis.riams import card as cards
from connectors.partners.rmis.riams import contract
from connectors.partners.rmis.riams.numbers import Kind, Numbers, Watch
from connectors.partners.rmis.riams.service import Rish, Service, refused
from connectors.partners.rmis.riams.tables import load_tables
from connectors.runtime.partner.partner import Partner, Untouched
from proto import clinical, schemas
from proto.client import Reject, Retry
from proto.configuration.declared import ReadFile, SecretFile
from proto.exits import StartError
from proto.identifiers import new_id
from proto.note import coded
from proto.wording import text

# After these nothing more is told.
LAST: Final = ("confirmed", "rejected", "done", "refused", "cancelled")
FAILURES_MAX: Final = 3  # in one round

# How something stands, and the change to tell, if it is new.
Look = tuple[str, Change | None]


class RiamsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[connectors.rmis.riams]. `zone` is the region's clock, `service` the ambulance's number there
    (SMPT); with `login_file` visits are asked for; `look_max` things are looked at in one round."""

    zone: str = "Europe/Moscow"
    service: Annotated[int, msgspec.Meta(ge=1)] = 1
    tables_file: ReadFile | None = None
    login_file: SecretFile | None = None
    look_max: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 50


class Riams:
    """See `connectors.partners.rmis.dialect.Dialect`."""

    def __init__(self, partner: Partner, settings: RiamsSettings, memory: Memory) -> None:
        """Raises StartError."""
        self._settings = settings
        self._zone = zone_of(settings.zone)
        self._tables = load_tables(settings.tables_file)
        self._service = Service(partner)
        login = settings.login_file
        self._rish = None if login is None else Rish(partner, login)
        self._numbers = Numbers(memory)
        self._round = ""
        self._told: list[tuple[Watch, str]] = []

    def forget(self) -> None:
        """Let go of a step of what was kept long enough. Raises StateAway."""
        self._numbers.forget()

    # -- cards ----------------------------------------------------------------------------------

    async def put_ticket(self, ticket: schemas.CallTicket, body: bytes, key: str) -> Taken:
        """Save the card of a ticket."""
        form = cards.of_ticket(ticket, self._tables, self._zone)
        return await self._put("ticket", ticket, form)

    async def put_card(self, card: clinical.CallCard, body: bytes, key: str) -> Taken:
        """Save the card of a call card: it is the ticket's, with more in it."""
        return await self._put("card", card, cards.of_card(card, self._tables, self._zone))

    async def put_status(self, status: schemas.StatusEvent, body: bytes, key: str) -> Taken:
        """Save the time of a status in the card of its call."""
        form = cards.of_status(status, self._tables, self._zone)
        if not form:
            raise Untold
        known = self._numbers.key(status.call_id)
        if known is None or not self._numbers.is_told(status.call_id):
            raise Reject(coded("rmis.no_ticket"))
        number = await self._save(status.call_id, known, form)
        return Taken(number=number or None)

    async def _put(self, kind: Kind, ticket: schemas.CallTicket, form: cards.Form) -> Taken:
        known = self._numbers.key(ticket.id) or cards.key_of(ticket, self._zone)
        self._numbers.note_call(ticket.id, known)
        number = await self._save(ticket.id, known, form)
        self._numbers.watch(Watch(kind, ticket.id, ticket.id, number, ticket.version))
        return Taken(number=number or None)

    async def _save(self, call: str, key: cards.Key, form: cards.Form) -> str:
        """Return the card's number, "" when it was there and РИАМС never told it."""
        sent = key.form(self._settings.service) | form
        saved = await self._service.ask("AmbulanceCard", "saveAmbulanceCard", sent, contract.Saved)
        if saved.CmpCallCard_id is None and not saved.exists:
            raise refused(saved)
        number = "" if saved.CmpCallCard_id is None else str(saved.CmpCallCard_id)
        self._numbers.note_told(call, number)
        return number or self._numbers.number(call)

    # -- questions ------------------------------------------------------------------------------

    async def identify(self, asked: clinical.PatientQuestion) -> clinical.PatientAnswer:
        """Ask who it is; of several who fit РИАМС names one, or none."""
        policy = asked.enp or asked.policy_number or ""
        number = {"Polis_Ser": asked.policy_series or "", "Polis_Num": policy}
        names = {
            "Person_SurName": asked.family or "",
            "Person_FirName": asked.given or "",
            "Person_SecName": asked.middle or "",
        }
        named = bool(asked.family and asked.given)
        born = {"Person_BirthDay": cards.day(asked.birth_date)} if asked.birth_date else {}
        if policy and named and born:
            return await self._find("getPersonByFIOPolis", names | born | number)
        if policy:
            return await self._find("getPersonByPolis", number)
        if named and born:
            return await self._find("getPersonByFIODR", names | born)
        if named and asked.age_years is not None:
            home = {
                "Person_Age": str(asked.age_years),
                "KLStreet_Name": asked.street or "",
                "Address_House": asked.house or "",
                "Address_Flat": asked.flat or "",
            }
            del names["Person_SecName"]
            return await self._find("getPersonByAddress", names | home)
        raise Untold  # by СНИЛС or a document alone

    async def _find(self, operation: str, fields: cards.Form) -> clinical.PatientAnswer:
        found = await self._service.ask("AmbulanceService", operation, fields, contract.Found)
        if not found.identity:
            if found.Error_Code not in (None, "", 0, "0"):
                raise refused(found)
            return clinical.PatientAnswer(outcome="not_found")
        patient = _patient(found)
        if patient is None:
            return clinical.PatientAnswer(outcome="not_found")
        return clinical.PatientAnswer(outcome="found", patients=[patient])

    async def summary(self, patient: str) -> clinical.PatientSummary:
        """РИАМС gives no extract to outside systems."""
        raise Untold

    async def hospitals(self, profile: str) -> clinical.HospitalAnswer:
        """Ask for the wards of a profile; the emptiest comes first."""
        if not cards.number(profile):
            raise Reject(coded("rmis.no_number", field="profile"))
        asked = {"LpuSectionProfile_Code": profile}
        told = await self._service.ask("AmbulanceService", "getStacList", asked, contract.Wards)
        if not told.success:
            raise refused(told)
        wards = sorted(told.data, key=lambda ward: -ward.EmergencyBedFree)
        return clinical.HospitalAnswer(hospitals=[_hospital(ward) for ward in wards])

    # -- beds -----------------------------------------------------------------------------------

    async def book(self, bed: clinical.BedRequest, body: bytes, key: str) -> Booked:
        """Book a bed, once."""
        for field in ("hospital", "ward"):
            if not cards.number(getattr(bed, field)):
                raise Reject(coded("rmis.no_number", field=field))

        async def ask() -> str:
            person = await self._known(bed.patient)
            if not person:
                return text("rmis.nobody")
            fields = {
                "Person_id": person,
                "Lpu_id": bed.hospital,
                "LpuSection_id": bed.ward,
                "LpuSectionProfile_Code": cards.number(bed.profile),
                "emergencyBedCount": "1",
                "EmergencyData_BrigadeNum": cards.number(bed.brigade),
                "EmergencyData_CallNum": self._call_number(bed.call_id),
                "CmpCallCard_id": self._numbers.number(bed.call_id),
            }
            return await self._book({name: said for name, said in fields.items() if said}, bed)

        answer = await self._once("bed", bed.booking_id, ask)
        if answer == "booked":
            return Booked(state="booked")
        return Booked(state="refused", reason=(answer or text("rmis.unknown_end"))[:400])

    async def _book(self, fields: cards.Form, bed: clinical.BedRequest) -> str:
        self._numbers.note_asked("bed", bed.booking_id)
        told = await self._service.ask(
            "AmbulanceService", "bookEmergencyBed", fields, contract.Reply, once=True
        )
        return "booked" if told.success else told.Error_Msg or text("rmis.unexplained")

    async def cancel(self, cancelled: clinical.BedCancel, body: bytes, key: str) -> Booked:
        """No bed can be given back: it stays booked, and whoever asked is told so."""
        if self._numbers.asked("bed", cancelled.booking_id) in (None, "", "booked"):
            return Booked(state="booked", reason=text("rmis.bed_kept"))
        return Booked(state="cancelled")  # it had been refused

    async def announce(self, notice: clinical.ArrivalNotice, body: bytes, key: str) -> Taken:
        """An emergency room sees the booking, with brigade and call; there is no other notice."""
        raise Untold

    # -- visits ---------------------------------------------------------------------------------

    async def visit(self, wanted: clinical.VisitRequest, body: bytes, key: str) -> Visited:
        """Ask for a visit, once."""
        rish = self._rish
        if rish is None:
            raise Untold

        async def ask() -> str:
            person = await self._known(wanted.patient)
            if not person:
                return text("rmis.nobody")
            self._numbers.note_asked("visit", wanted.visit_id)
            told = await rish.ask(
                "POST", "/api/HomeVisit/HomeVisit", self._visit(wanted, person), contract.Visited
            )
            data = told.data if isinstance(told.data, dict) else {}
            number = str(data.get("HomeVisit_id") or "")
            if told.error_code or not number:
                return told.error_msg or text("rmis.unexplained")
            what = Watch("visit", wanted.visit_id, wanted.call_id, number, 1)
            self._numbers.watch(what)
            return f"№{number}"

        answer = await self._once("visit", wanted.visit_id, ask)
        if answer.startswith("№"):
            return Visited(number=answer[1:])
        return Visited(state="refused", reason=(answer or text("rmis.unknown_end"))[:400])

    def _visit(self, wanted: clinical.VisitRequest, person: str) -> cards.Form:
        codes = self._tables.visit
        diagnosis = wanted.diagnosis
        words = (wanted.reason, diagnosis.text or diagnosis.code if diagnosis else None)
        at = wanted.address
        fields = {
            "Person_id": person,
            "CallProfType_id": str(codes.profile),
            "Address_Address": at.text,
            "HomeVisitCallType_id": str(codes.kind),
            "HomeVisit_setDT": cards.moment(wanted.asked_at, self._zone),
            "HomeVisit_Phone": wanted.phone or "",
            "HomeVisitWhoCall_id": str(codes.caller),
            "HomeVisit_Symptoms": "; ".join(word for word in words if word) or "-",
            "HomeVisitStatus_id": str(codes.state),
            "HomeVisit_StreetGUID": at.street_fias or "",
            "HomeVisit_House": at.house or "-",
        }
        return {name: said for name, said in fields.items() if said}

    # -- what became of it ----------------------------------------------------------------------

    async def changes(self, after: str) -> Changes:
        """Look at what waits for its end. What was told is forgotten when the next round begins
        where this one ended: until then it may not be on the bus. One that cannot be read does not
        stand in the way of the others."""
        if after and after == self._round:
            for what, state in self._told:
                if state in LAST:
                    self._numbers.end(what)
                else:
                    self._numbers.note_asked("visit-state", what.id, state)
        told: list[tuple[Watch, str]] = []
        found: list[Change] = []
        failures = 0
        for what in self._numbers.due(self._settings.look_max):
            look = self._look_visit if what.kind == "visit" else self._look_card
            try:
                state, change = await look(what)
            except (Retry, Reject) as error:
                failures += 1
                self._numbers.looked(what)
                if isinstance(error, Untouched) or failures == FAILURES_MAX:
                    if not found:
                        raise
                    break
                continue
            self._numbers.looked(what)
            if change is not None:
                found.append(change)
                told.append((what, state))
        self._round, self._told = new_id(), told
        return Changes(changes=found, cursor=self._round)

    async def _look_card(self, what: Watch) -> Look:
        """A card that can be read back is confirmed; one that is gone was thrown away there. One
        whose number was never told is one of which РИАМС said that it has it."""
        confirmed = True
        if what.number:
            asked = {"AmbulanceCard_id": what.number}
            stored = await self._service.ask(
                "AmbulanceCard", "getAmbulanceCard", asked, list[contract.Stored]
            )
            key = self._numbers.key(what.call)
            confirmed = any(key and (key.numv, key.ngod) == (one.NUMV, one.NGOD) for one in stored)
        state = "confirmed" if confirmed else "rejected"
        body: dict[str, Any] = {
            "kind": what.kind,
            "call_id": what.call,
            "version": what.version,
            "state": state,
            "number": what.number or None,
            "reason": None if confirmed else text("rmis.card_gone"),
        }
        return state, _change("transfer.state.v1", what, state, body)

    async def _look_visit(self, what: Watch) -> Look:
        if self._rish is None:
            return "", None
        asked = {"HomeVisit_id": what.number}
        told = await self._rish.ask("GET", "/api/HomeVisit/HomeVisitById", asked, contract.Visits)
        visit = told.data[0] if isinstance(told.data, list) and told.data else None
        state = self._tables.visit_states.get(str(visit and visit.HomeVisitStatus_id))
        if visit is None or state is None or state == "accepted":
            return "", None
        if self._numbers.asked("visit-state", what.id) == state:
            return state, None
        body = {
            "visit_id": what.id,
            "call_id": what.call,
            "state": state,
            "number": what.number,
            "reason": visit.HomeVisit_LpuComment or None,
        }
        return state, _change("visit.state.v1", what, state, body)

    # -- what has no key ------------------------------------------------------------------------

    async def _once(self, kind: str, id: str, ask: Callable[[], Awaitable[str]]) -> str:
        """Return the answer of `ask`, the same for every repeat, "" when it is not known whether
        РИАМС did it: asked again, it might do it twice. Raises Retry or Reject when it did not."""
        known = self._numbers.asked(kind, id)
        if known is not None:
            return known
        try:
            answer = await ask()
        except (Untouched, Reject):
            self._numbers.not_asked(kind, id)
            raise
        except Retry:
            if self._numbers.asked(kind, id) is None:
                raise  # it had not come so far
            return ""
        self._numbers.note_asked(kind, id, answer)
        return answer

    async def _known(self, person: schemas.Person | None) -> str:
        """Return РИАМС's number of a person, "" when it knows none."""
        if person is None:
            return ""
        if person.identified_by == cards.IDENTIFIED and cards.number(person.id):
            return person.id or ""
        asked = clinical.PatientQuestion(
            enp=person.enp,
            family=person.family,
            given=person.given,
            middle=person.middle,
            birth_date=person.birth_date,
        )
        try:
            answer = await self.identify(asked)
        except Untold:
            return ""
        return answer.patients[0].id if answer.patients else ""

    def _call_number(self, call: str) -> str:
        key = self._numbers.key(call)
        return str(key.ngod) if key else ""


def zone_of(name: str) -> tzinfo:
    """Return the clock of a region. Raises StartError."""
    try:
        return ZoneInfo(name)
    except (KeyError, ValueError, OSError):
        raise StartError(text("rmis.no_zone", zone=name)) from None


def _change(type: Any, what: Watch, state: str, body: dict[str, Any]) -> Change:
    told = {name: value for name, value in body.items() if value is not None}
    told["at"] = datetime.now(UTC).isoformat()
    id = f"riams-{what.kind}-{what.id}-{what.version}-{state}"
    return Change(id=id, type=type, body=told)


def _patient(found: contract.Found) -> clinical.Patient | None:
    return patient_of(
        id=str(found.identity),
        family=found.person_SurName or None,
        given=found.person_FirName or None,
        middle=found.person_SecName or None,
        birth_date=_date(found.person_BirthDay),
        enp=found.person_EdNum or None,
        policy_series=found.polis_Ser or None,
        policy_number=found.polis_Num or None,
        insurer=found.orgSmo_Code or None,
        registered_at=found.uAddress_Address or None,
        lives_at=found.pAddress_Address or None,
    )


def _date(value: str | None) -> date | None:
    """Return a date, written either way; None for anything else."""
    for form in ("%Y-%m-%d", "%d.%m.%Y"):
        try:
            return datetime.strptime((value or "")[:10], form).date()
        except ValueError:
            continue
    return None


def _hospital(ward: contract.Ward) -> clinical.Hospital:
    return clinical.Hospital(
        id=str(ward.Lpu_id),
        name=ward.Lpu_Name,
        ward=str(ward.LpuSection_id),
        ward_name=ward.LpuSection_Name,
        address=ward.Address_Address,
        beds=ward.EmergencyBedTotal,
        free=ward.EmergencyBedFree,
    )
