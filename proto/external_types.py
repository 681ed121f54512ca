"""The message types about calls of outside services, for the catalogue. Everybody is invented."""

from typing import Any, Final

from . import external
from .entry import Entry

REF: Final = "medevac-6f0c2f5f9c1e5b7b8a4f0d3c2b1a0099"
HAND_IN: Final[dict[str, Any]] = {
    "number": "М-2026-118",
    "received_at": "2026-11-23T08:13:00+03:00",
    "reason": {"code": "1", "system": "1.2.643.5.1.13.13.11.1524", "text": "Острое заболевание"},
    "urgency": 1,
    "place_type": {"code": "6", "system": "1.2.643.5.1.13.13.11.1528", "text": "квартира"},
    "caller": {"name": "Неизвестный Н. Н.", "phone": "+70000000001"},
    "address": {
        "text": "г. Примерск, ул. Вымышленная, д. 12, кв. 34",
        "house": "12",
        "geo": {"lat": 55.0123, "lon": 37.0456},
    },
    "patients": [{"sex": "female", "age": {"value": 54}}],
    "description": "Боль в груди, в сознании",
}

ENTRIES: Final = (
    Entry(
        "external.call.v1",
        external.ExternalCall,
        "An outside service to the ambulance: a call is handed in",
        HAND_IN
        | {"external": REF, "client": "medevac", "handed_in_at": "2026-11-23T08:14:00+03:00"},
    ),
    Entry(
        "external.cancelled.v1",
        external.ExternalCancelled,
        "An outside service to the ambulance: its call is not wanted any more",
        {
            "external": REF,
            "client": "medevac",
            "reason": "Больного увезли родственники",
            "recorded_at": "2026-11-23T08:20:00+03:00",
        },
    ),
    Entry(
        "external.status.v1",
        external.ExternalStatus,
        "The ambulance to an outside service: one status of a call that it handed in",
        {
            "event_id": "0193a000-0000-7000-8000-000000000021",
            "call_id": "2026-4711",
            "code": "departed",
            "occurred_at": "2026-11-23T08:17:30+03:00",
            "recorded_at": "2026-11-23T08:17:31+03:00",
            "source": "smp",
            "external": REF,
            "brigade": {"id": "12", "name": "Бригада 12"},
        },
    ),
    Entry(
        "external.notice.v1",
        external.ExternalNotice,
        "The connector of outside services to itself: tell this to the webhook of a service",
        {
            "external": REF,
            "client": "medevac",
            "number": "М-2026-118",
            "event": {
                "number": 4,
                "event_id": "0193a000-0000-7000-8000-000000000021",
                "code": "departed",
                "occurred_at": "2026-11-23T08:17:30+03:00",
                "recorded_at": "2026-11-23T08:17:31+03:00",
                "call_id": "2026-4711",
                "brigade": {"id": "12", "name": "Бригада 12"},
            },
        },
    ),
)
