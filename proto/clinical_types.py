"""The message types about patients, for the catalogue. Every person below is invented."""

from typing import Any, Final

from . import clinical
from .entry import Entry

CALL: Final = "2026-4711"
_PERSON: Final = {
    "family": "Вымышленный",
    "given": "Пётр",
    "birth_date": "1984-05-27",
    "sex": "male",
    "enp": "9947739271000017",
}
_DIAGNOSIS: Final = {"code": "I21.0", "text": "Острый инфаркт миокарда передней стенки"}
_NSI: Final = "1.2.643.5.1.13.13.11."
_ADDRESS: Final = {"text": "г. Примерск, ул. Вымышленная, д. 12, кв. 34", "house": "12"}


def _coded(system: str, code: str, text: str) -> dict[str, Any]:
    return {"code": code, "system": _NSI + system, "text": text}


_CARD: Final = {
    "id": CALL,
    "card_id": "kv-2026-4711",
    "number_day": 211,
    "number_year": 4711,
    "received_at": "2026-11-23T08:14:41+03:00",
    "finished_at": "2026-11-23T09:10:00+03:00",
    "status": "finished",
    "urgency": 1,
    "reason": _coded("1524", "1", "острое внезапное заболевание"),
    "order": _coded("1525", "1", "первичный"),
    "place_type": _coded("1528", "6", "квартира"),
    "address": _ADDRESS,
    "patients": [_PERSON],
    "source": {"system": "112", "id112": ["112-99-000001"]},
    "station": "3",
    "brigades": [{"id": "12", "name": "Бригада 12"}],
    "crew": [
        {
            "worker": "99-000017",
            "role": {"code": "10", "system": "1.2.643.5.1.13.13.99.2.368", "text": "Фельдшер"},
            "post": _coded("1002", "196", "фельдшер скорой медицинской помощи"),
        }
    ],
    "complaints": "Боль за грудиной",
    "measurements": [
        {
            "kind": {"code": "4", "system": "1.2.643.5.1.13.13.99.2.262", "text": "ЧСС"},
            "before": 96.0,
            "after": 82.0,
            "unit": "1/min",
        }
    ],
    "diagnoses": [_DIAGNOSIS],
    "form_of_care": _coded("1551", "2", "экстренная"),
    "outcome": _coded("1543", "1", "улучшение"),
    "result": _coded("1545", "3", "доставлен в больницу"),
    "hospital": "99-0101",
    "mileage_km": 14.5,
    "version": 4,
    "changed_at": "2026-11-23T09:12:00+03:00",
}

ENTRIES: Final = (
    Entry(
        "call.card.v1",
        clinical.CallCard,
        "The ambulance to whoever needs it: a call card (КВ), finished or corrected",
        _CARD,
    ),
    Entry(
        "transfer.state.v1",
        clinical.TransferState,
        "Another system to the ambulance: a ticket or card was accepted, confirmed or rejected",
        {
            "event_id": "rmis-change-17",
            "system": "rmis",
            "kind": "card",
            "call_id": CALL,
            "version": 4,
            "state": "confirmed",
            "number": "RMIS-880017",
            "at": "2026-11-23T09:20:00+03:00",
        },
    ),
    Entry(
        "patient.lookup.v1",
        clinical.PatientQuestion,
        "A question to the hospitals' system: who is it (answered, not queued)",
        {"family": "Вымышленный", "given": "Пётр", "birth_date": "1984-05-27"},
    ),
    Entry(
        "patient.summary.v1",
        clinical.SummaryQuestion,
        "A question to the hospitals' system: what must the brigade know (answered, not queued)",
        {"patient": "p-100017"},
    ),
    Entry(
        "hospital.list.v1",
        clinical.HospitalQuestion,
        "A question to the hospitals' system: where is a free bed (answered, not queued)",
        {"profile": "29"},
    ),
    Entry(
        "hospital.book.v1",
        clinical.BedRequest,
        "The ambulance to the hospitals' system: book a bed",
        {
            "booking_id": "b-4711-1",
            "call_id": CALL,
            "hospital": "99-0101",
            "ward": "99-0101-29",
            "profile": "29",
            "brigade": "12",
            "patient": _PERSON,
            "diagnosis": _DIAGNOSIS,
            "arrives_at": "2026-11-23T08:50:00+03:00",
            "asked_at": "2026-11-23T08:35:00+03:00",
        },
    ),
    Entry(
        "hospital.cancel.v1",
        clinical.BedCancel,
        "The ambulance to the hospitals' system: the bed is not needed any more",
        {"booking_id": "b-4711-1", "call_id": CALL, "asked_at": "2026-11-23T08:40:00+03:00"},
    ),
    Entry(
        "hospital.arrival.v1",
        clinical.ArrivalNotice,
        "The ambulance to the hospitals' system: the brigade will arrive",
        {
            "notice_id": "n-4711-1",
            "call_id": CALL,
            "booking_id": "b-4711-1",
            "hospital": "99-0101",
            "brigade": "12",
            "diagnosis": _DIAGNOSIS,
            "severity": _coded("1006", "3", "тяжёлое"),
            "arrives_at": "2026-11-23T08:50:00+03:00",
        },
    ),
    Entry(
        "hospital.booked.v1",
        clinical.BedState,
        "The hospitals' system to the ambulance: what the hospital said to a booking",
        {
            "event_id": "rmis-booking-b-4711-1",
            "booking_id": "b-4711-1",
            "call_id": CALL,
            "state": "booked",
            "number": "B-5001",
            "at": "2026-11-23T08:35:01+03:00",
        },
    ),
    Entry(
        "hospital.outcome.v1",
        clinical.HospitalOutcome,
        "The hospitals' system to the ambulance: the slip of form 114/у",
        {
            "event_id": "rmis-change-29",
            "call_id": CALL,
            "hospital": "99-0101",
            "number": "S-300",
            "admitted": True,
            "diagnosis": _DIAGNOSIS,
            "at": "2026-11-23T12:00:00+03:00",
        },
    ),
    Entry(
        "visit.request.v1",
        clinical.VisitRequest,
        "The ambulance to the hospitals' system: the polyclinic is to visit the patient",
        {
            "visit_id": "v-4711",
            "call_id": CALL,
            "clinic": "99-0202",
            "patient": _PERSON,
            "address": _ADDRESS,
            "reason": "Гипертонический криз",
            "asked_at": "2026-11-23T09:12:00+03:00",
        },
    ),
    Entry(
        "visit.state.v1",
        clinical.VisitState,
        "The hospitals' system to the ambulance: what became of a visit",
        {
            "event_id": "rmis-change-31",
            "visit_id": "v-4711",
            "call_id": CALL,
            "state": "done",
            "number": "V-77",
            "at": "2026-11-24T11:00:00+03:00",
        },
    ),
    Entry(
        "document.timer.v1",
        clinical.DocumentTimer,
        "A connector of a register to itself, not before its time: look at a document again",
        {"document_id": "0193a000-0000-7000-8000-000000000010", "purpose": "deadline"},
    ),
    Entry(
        "document.state.v1",
        clinical.DocumentState,
        "A federal register to the ambulance: what became of an electronic document",
        {
            "event_id": "remd-0193a000-0000-7000-8000-000000000011",
            "document_id": "0193a000-0000-7000-8000-000000000010",
            "call_id": CALL,
            "kind": "115",
            "register": "remd",
            "version": 1,
            "state": "registered",
            "number": "99.26.11.23.000000017",
            "at": "2026-11-24T02:00:00+03:00",
        },
    ),
    Entry(
        "register.state.v1",
        clinical.RegisterState,
        "The insurance fund to the ambulance: what became of a call card in a register",
        {
            "event_id": "tfoms-HM990101S99001_26111-kv-2026-4711-paid",
            "call_id": CALL,
            "card_id": "kv-2026-4711",
            "register": "HM990101S99001_26111",
            "state": "paid",
            "sum": "3512.40",
            "at": "2026-12-10T12:00:00+03:00",
        },
    ),
)
