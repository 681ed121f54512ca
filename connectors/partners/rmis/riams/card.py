"""A ticket, a call card or a status as the fields of АДИС (docs/domain.md 3.4). Pure."""

from collections.abc import Iterable, Iterator
from datetime import date, datetime, tzinfo
from typing import Final

import msgspec

from connectors.partners.rmis.riams.tables import Tables
from proto import clinical, schemas

AGE_MAX: Final = 120
CREW: Final = ("Tabn", "TAB2", "TAB3", "TAB4")
# Who identified a person: then Person.id is the hospitals' system's own.
IDENTIFIED: Final = "rmis"

Form = dict[str, str]


class Key(msgspec.Struct, frozen=True):
    """By what РИАМС knows a card: the numbers of the day and of the year, the day it was received
    on and the station. The first one holds: a corrected one would be another card."""

    numv: int
    ngod: int
    dprm: str
    station: str

    def form(self, service: int) -> Form:
        """Return the fields of the key. The brigade's station (SMPB, STBR) is a part of it, so that
        it is always said, and always the same."""
        fields = {"NUMV": str(self.numv), "NGOD": str(self.ngod), "DPRM": self.dprm}
        fields |= {"SMPT": str(service), "SMPB": str(service)}
        if self.station:
            fields |= {"STAN": self.station, "STBR": self.station}
        return fields


def key_of(ticket: schemas.CallTicket, zone: tzinfo) -> Key:
    """Return the key of a call."""
    return Key(
        ticket.number_day,
        ticket.number_year,
        moment(ticket.received_at, zone),
        number(ticket.station),
    )


def of_ticket(ticket: schemas.CallTicket, tables: Tables, zone: tzinfo) -> Form:
    """Return all fields that a ticket fills in, without those of the key."""
    form = _place(ticket) | _events(ticket.events, tables, zone)
    form |= tables.fields("1524", ticket.reason)
    form |= tables.fields("1525", ticket.order)
    form |= tables.fields("1528", ticket.place_type)
    if ticket.urgency is not None:
        form["PRTY"] = tables.urgency[str(ticket.urgency)]  # type: ignore[index]
    if ticket.caller is not None:
        form["TELF"] = ticket.caller.phone or ""
        form["KTOV"] = ticket.caller.relation or ""
    if ticket.patients:
        form |= _person(ticket.patients[0], tables)
    if ticket.brigades:
        form["NUMB"] = number(ticket.brigades[0].id)
    return _said(form)


def of_card(card: clinical.CallCard, tables: Tables, zone: tzinfo) -> Form:
    """Return all fields that a call card fills in, without those of the key."""
    minutes = round((card.finished_at - card.received_at).total_seconds() / 60)
    form = {"TISP": moment(card.finished_at, zone), "DLIT": str(max(0, minutes))}
    form |= of_ticket(card, tables, zone) | _crew(card.crew) | _diagnoses(card.diagnoses)
    coded = {
        "1526": card.got_by,
        "1527": card.delay,
        "1529": card.accident,
        "1543": card.outcome,
        "1545": card.result,
        "1551": card.form_of_care,
    }
    for list, value in coded.items():
        form |= tables.fields(list, value)
    form["LPUC"] = card.hospital or ""
    form["COMM"] = card.notes or card.complaints or ""
    form["ALK"] = "1" if card.intoxicated else ""
    form["POLI"] = "1" if card.visit_wanted else ""
    form["KILO"] = "" if card.mileage_km is None else f"{card.mileage_km:g}"
    return _said(form)


def of_status(status: schemas.StatusEvent, tables: Tables, zone: tzinfo) -> Form:
    """Return the time that a status sets; nothing when АДИС has no field for it."""
    field = tables.statuses[status.code]
    return {} if field == "none" else {field: moment(status.occurred_at, zone)}


def moment(at: datetime, zone: tzinfo) -> str:
    """Return a time as РИАМС has it: of the region's clock, to the minute."""
    there = at.astimezone(zone)
    return f"{day(there)} {there:%H:%M}"


def day(at: date) -> str:
    """Return a date as РИАМС has it."""
    return f"{at.day:02}.{at.month:02}.{at.year:04}"  # strftime does not fill up a year


def number(value: str | None) -> str:
    """Return `value` if it is a number, as РИАМС wants stations, brigades and ids; else ""."""
    return value if value and value.isascii() and value.isdigit() and len(value) < 19 else ""


def _place(ticket: schemas.CallTicket) -> Form:
    at = ticket.address
    return {
        "CITY": at.settlement or "",
        "ULIC": at.street or at.road or at.text,
        "DOM": "/".join(part for part in (at.house, at.building) if part),
        "KVAR": at.flat or "",
        "PODZ": "" if at.entrance is None else str(at.entrance),
        "ETAJ": "" if at.floor is None else str(at.floor),
        "KODP": at.entry_code or "",
    }


def _events(events: Iterable[schemas.StatusEvent], tables: Tables, zone: tzinfo) -> Form:
    """Return the times of a call's life; of several of one kind the latest holds."""
    given = list(events)
    gone = {event.supersedes for event in given}
    form: Form = {}
    for event in sorted(given, key=lambda one: one.occurred_at):
        if event.event_id in gone:
            continue
        form |= of_status(event, tables, zone)
        who = {"received": "DSP1", "assigned": "DSP2"}.get(event.code)
        if who and event.operator:
            form[who] = event.operator.login
    return form


def _person(person: schemas.Person, tables: Tables) -> Form:
    age = person.age
    years = age.value if age and age.unit == "years" and age.value <= AGE_MAX else None
    return {
        "FAM": person.family or "",
        "IMYA": person.given or "",
        "OTCH": person.middle or "",
        "PBDD": "" if person.birth_date is None else f"{day(person.birth_date)} 00:00",
        "VOZR": "" if years is None else str(years),
        "POL": tables.sex[person.sex or "unknown"],
        "PPNS": person.enp or "",
        "personID": number(person.id) if person.identified_by == IDENTIFIED else "",
    }


def _crew(crew: Iterable[clinical.CrewMember]) -> Form:
    workers = [member.worker for member in crew if member.worker]
    return dict(zip(CREW, workers, strict=False))


def _diagnoses(diagnoses: Iterable[clinical.Diagnosis]) -> Form:
    def first(kind: str) -> Iterator[clinical.Diagnosis]:
        return (one for one in diagnoses if one.kind == kind)

    form: Form = {}
    for main in first("main"):
        form = {"DIAGC": main.code, "DIAGS": main.text or "", "DGUC": main.code}
        break
    for other in first("complication"):
        form["DIAGC1"] = other.code
        break
    return form


def _said(form: Form) -> Form:
    return {field: value for field, value in form.items() if value}
