"""The catalogue of message types: for each its schema, a made-up example, and what it is for.

Every person, phone and address below is invented.
"""

from typing import Any, Final

import msgspec

from . import schemas
from .clinical_types import ENTRIES as CLINICAL
from .entry import Entry
from .external_types import ENTRIES as EXTERNAL

__all__ = ["Entry", "entries", "entry", "json_schema"]

_OPERATOR: Final = {"login": "op-07", "name": "Оператор 07", "workplace": "АРМ-7"}
_ADDRESS: Final = {
    "text": "г. Примерск, ул. Вымышленная, д. 12, кв. 34",
    "region": "Примерская область",
    "settlement": "Примерск",
    "settlement_kladr": "9900000100000",
    "street": "Вымышленная",
    "house": "12",
    "flat": "34",
    "entrance": 2,
    "floor": 5,
    "geo": {"lat": 55.0123, "lon": 37.0456},
}
_CARD: Final = {
    "id112": "112-99-000001",
    "system": "112-PRIMERSK",
    "short_number": "000001",
    "incident_type": {"code": "Плохо человеку", "system": "sys112.incident_type"},
    "region": "Примерская область",
    "description": "Боль в груди, в сознании",
    "injured_number": 1,
    "address": _ADDRESS,
    "contact": {
        "id": "ier-1",
        "at": "2026-11-23T08:14:05+03:00",
        "kind": "phone",
        "caller": {"name": "Неизвестный Н. Н.", "phone": "+70000000001"},
        "accepted_by": _OPERATOR,
    },
    "patients": [{"id": "p1", "sex": "male", "age": {"value": 7, "unit": "months"}}],
    "state": "created",
    "occurred_at": "2026-11-23T08:14:00+03:00",
    "created_at": "2026-11-23T08:14:10+03:00",
    "created_by": _OPERATOR,
    "changed_at": "2026-11-23T08:14:40+03:00",
    "changed_by": _OPERATOR,
}
_STATUS: Final = {
    "event_id": "0193a000-0000-7000-8000-000000000001",
    "call_id": "2026-4711",
    "code": "departed",
    "occurred_at": "2026-11-23T08:17:30+03:00",
    "recorded_at": "2026-11-23T08:17:31+03:00",
    "source": "smp",
    "id112": "112-99-000001",
    "brigade": {"id": "12", "name": "Бригада 12"},
    "operator": {"login": "disp-2"},
}
_TICKET: Final = {
    "id": "2026-4711",
    "number_day": 211,
    "number_year": 4711,
    "received_at": "2026-11-23T08:14:41+03:00",
    "status": "received",
    "urgency": 1,
    "reason": {"code": "1", "system": "1.2.643.5.1.13.13.11.1524", "text": "Острое заболевание"},
    "address": _ADDRESS,
    "source": {"system": "112", "id112": ["112-99-000001"]},
    "version": 1,
    "changed_at": "2026-11-23T08:14:41+03:00",
}
_WORKER: Final = {
    "id": "99-000017",
    "snils": "00000000017",
    "family": "Вымышленная",
    "given": "Анна",
    "birth_date": "1985-02-03",
    "sex": "female",
    "positions": [
        {
            "organisation": "1.2.643.5.1.13.13.12.2.99.1",
            "department": "Подстанция 3",
            "post": {"code": "196", "system": "1.2.643.5.1.13.13.11.1002"},
            "rate": 1.0,
            "begins": "2019-09-01",
        }
    ],
    "specialities": [
        {
            "code": {"code": "200", "system": "1.2.643.5.1.13.13.11.1066"},
            "certificate": "9900000017",
            "begins": "2022-05-01",
            "ends": "2027-05-01",
        }
    ],
    "changed_at": "2026-11-22T18:00:00+03:00",
}


_ENTRIES: Final = (
    Entry(
        "incident.card.v1",
        schemas.IncidentCard,
        "System-112 to the ambulance: a new or corrected incident card",
        _CARD,
    ),
    Entry(
        "incident.cancelled.v1",
        schemas.IncidentCancelled,
        "System-112 to the ambulance: the card is cancelled or closed",
        {
            "id112": "112-99-000001",
            "system": "112-PRIMERSK",
            "kind": "cancelled",
            "reason": "Ложный вызов",
            "operator": _OPERATOR,
            "recorded_at": "2026-11-23T08:20:00+03:00",
        },
    ),
    Entry(
        "incident.card_update.v1",
        schemas.CardUpdate,
        "The ambulance to System-112: the card as the ambulance corrected it",
        _CARD | {"ext_id": "2026-4711", "state": "in_work"},
    ),
    Entry(
        "call.ticket.v1",
        schemas.CallTicket,
        "The ambulance to whoever needs it: a call ticket (КТ), new or changed",
        _TICKET,
    ),
    Entry(
        "call.status.v1",
        schemas.StatusEvent,
        "The ambulance to whoever needs it: one status of a call or brigade",
        _STATUS,
    ),
    Entry(
        "input.rejected.v1",
        schemas.RejectedInput,
        "A connector to the administrator: a partner's input was refused",
        {
            "partner": "sys112",
            "operation": "UpdateCard",
            "path": "Card.CommonData.TypeStr",
            "rule": "is required",
            "about": "112-99-000001",
            "recorded_at": "2026-11-23T08:15:00+03:00",
        },
    ),
    Entry(
        "telephony.call.v1",
        schemas.TelephonyCall,
        "The exchange to whoever needs it: what became of a telephone call",
        {
            "call_id": "1763890445.17",
            "event": "answered",
            "at": "2026-11-23T08:14:02+03:00",
            "direction": "in",
            "number_from": "+70000000001",
            "number_to": "103",
            "started_at": "2026-11-23T08:13:55+03:00",
            "answered_at": "2026-11-23T08:14:02+03:00",
            "queue": "dispatch",
            "operator": "op-07",
            "talks": [
                {
                    "operator": "op-07",
                    "queue": "dispatch",
                    "since": "2026-11-23T08:14:02+03:00",
                    "goes_on": True,
                },
            ],
        },
    ),
    Entry(
        "telephony.joined.v1",
        schemas.TelephonyJoined,
        "The exchange to whoever needs it: a card and a telephone call belong together",
        {
            "call_id": "1763890445.17",
            "id112": "112-99-000001",
            "at": "2026-11-23T08:14:41+03:00",
        },
    ),
    Entry(
        "telephony.operator.v1",
        schemas.OperatorState,
        "The exchange to whoever needs it: an operator came into another state",
        {
            "operator": "op-07",
            "groups": ["dispatch"],
            "state": "talking",
            "at": "2026-11-23T08:14:02+03:00",
        },
    ),
    Entry(
        "telephony.group.v1",
        schemas.GroupStatistics,
        "The exchange to whoever needs it: the figures of a group of operators, each minute",
        {
            "group": "dispatch",
            "period_s": 60.0,
            "at": "2026-11-23T08:15:00+03:00",
            "offered": 9,
            "answered": 8,
            "abandoned": 1,
            "answered_in_time": 7,
            "threshold_s": 20.0,
            "wait_mean_s": 6.5,
            "wait_max_s": 24.0,
            "talk_mean_s": 71.0,
            "logged_in": 12,
            "available": 4,
            "waiting": 0,
        },
    ),
    Entry(
        "telephony.dial.v1",
        schemas.DialRequest,
        "Whoever works with an operator to the exchange: call this number from that telephone",
        {"operator": "op-07", "number": "+70000000001", "id112": "112-99-000001"},
    ),
    Entry(
        "telephony.dialled.v1",
        schemas.DialResult,
        "The exchange to whoever asked: what came of a telephony.dial.v1",
        {
            "request_id": "0193a000-0000-7000-8000-000000000007",
            "operator": "op-07",
            "result": "connected",
            "id112": "112-99-000001",
            "at": "2026-11-23T08:16:00+03:00",
        },
    ),
    Entry(
        "worker.changed.v1",
        schemas.Worker,
        "The register of medical workers to whoever needs it: a worker, new or changed",
        _WORKER,
    ),
    Entry(
        "worker.removed.v1",
        schemas.WorkerRemoved,
        "The register of medical workers to whoever needs it: it has this worker no more",
        {"id": "99-000017", "recorded_at": "2026-11-23T03:00:00+03:00"},
    ),
    Entry(
        "worker.lookup.v1",
        schemas.WorkerQuestion,
        "A question to the register of medical workers: who is it (answered, not queued)",
        {"snils": "00000000017"},
    ),
    Entry(
        "worker.load.v1",
        schemas.WorkerLoad,
        "The administrator to the register's connector: load the register now",
        {"full": True},
    ),
    Entry(
        "insurance.lookup.v1",
        schemas.InsuranceQuestion,
        "A question to the insurance fund: whose policy on a date (answered, not queued)",
        {"on_date": "2026-11-23", "enp": "6654510822123455", "birth_date": "1984-05-27"},
    ),
    Entry(
        "vehicle.position.v1",
        schemas.VehiclePosition,
        "A system of telematics to whoever needs it: where a vehicle is",
        {
            "vehicle_id": "99-0012",
            "at": "2026-11-23T08:18:04+03:00",
            "lat": 55.0131,
            "lon": 37.0449,
            "speed_kmh": 41.5,
            "course": 270.0,
            "valid": True,
            "source": "telematics",
        },
    ),
    *CLINICAL,
    Entry(
        "deadline.timer.v1",
        schemas.DeadlineTimer,
        "The connector of System-112 to itself, not before its time: is this card confirmed",
        {"id112": "112-99-000001", "taken_at": "2026-11-23T08:14:41+03:00", "within_s": 30.0},
    ),
    Entry(
        "deadline.missed.v1",
        schemas.DeadlineMissed,
        "The connector of System-112 to the administrator: no dispatcher has confirmed this card",
        {
            "id112": "112-99-000001",
            "within_s": 30.0,
            "taken_at": "2026-11-23T08:14:41+03:00",
            "due_at": "2026-11-23T08:15:11+03:00",
            "recorded_at": "2026-11-23T08:15:16+03:00",
        },
    ),
    *EXTERNAL,
)
_BY_TYPE: Final = {entry.name: entry for entry in _ENTRIES}


def entries() -> tuple[Entry, ...]:
    """Return every known message type."""
    return _ENTRIES


def entry(type: str) -> Entry:
    """Return what is known of `type`. Raises KeyError."""
    return _BY_TYPE[type]


def json_schema(type: str) -> dict[str, Any]:
    """Return the JSON Schema (2020-12) of the body of `type`. Raises KeyError."""
    return msgspec.json.schema(_BY_TYPE[type].schema)
