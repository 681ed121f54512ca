"""The API of outside services as their engineers read it: GET /openapi.json, GET /docs."""

from typing import Any, Final

from connectors.partners.external import contract
from connectors.partners.external.contract import ProblemKind
from connectors.partners.external.problem import TITLES
from connectors.runtime.door.openapi import Api, Operation, Parameter, Reply
from proto.external import HandIn
from proto.external_types import HAND_IN

ABOUT: Final = """Hand in a call to the ambulance service, and follow it. A call is answered 201
when the ambulance service's bus has it on its disk: then it is not lost any more.

Choose an Idempotency-Key for each call and repeat a request that was not answered, or answered 429
or 503 (Retry-After says when), under the same key: the call is handed in once. Follow a call by
asking for its events again and again, each time with wait_s, or have them posted to a webhook. A
call that has no event after a minute needs a telephone call: nobody may have seen it yet.

An event comes at least once: know it by its event_id. Events of one call come in order; what
happened first is said by occurred_at. Problems are told as RFC 9457 has it; a program goes by type
and status."""
TOKEN: Final = "The token that the ambulance service gave you; keep it like a password"
SIGNED: Final = (
    "t=SECONDS,v1=HEX: the time of sending, and HMAC-SHA256 of it, a full stop and the body, with "
    "the secret that you share. Compare it in constant time, and refuse what is older than five "
    "minutes"
)
ID: Final = "6f0c2f5f9c1e5b7b8a4f0d3c2b1a0099"
_EVENT: Final[dict[str, Any]] = {
    "number": 4,
    "event_id": "0193a000-0000-7000-8000-000000000021",
    "code": "departed",
    "occurred_at": "2026-11-23T08:17:30+03:00",
    "recorded_at": "2026-11-23T08:17:31+03:00",
    "call_id": "2026-4711",
    "brigade": {"id": "12", "name": "Бригада 12"},
}
_NEW: Final[dict[str, Any]] = {
    "id": ID,
    "number": "М-2026-118",
    "handed_in_at": "2026-11-23T05:14:00Z",
    "call_id": None,
    "status": None,
    "cancel_asked_at": None,
    "events": 0,
}
_PARAMETER: Final = Parameter("id", "path", "the bus's id of the call", {"type": "string"})


def describe() -> Api:
    """Return the API."""
    return Api(
        "smpbus: calls of outside services",
        "1",
        ABOUT,
        (_hand_in(), _look(), _follow(), _cancel()),
        TOKEN,
        (_webhook(),),
    )


def _hand_in() -> Operation:
    return Operation(
        name="hand_in",
        method="POST",
        path="/external/calls",
        tag="Calls",
        summary="Hand in a call",
        parameters=(
            Parameter(
                "Idempotency-Key",
                "header",
                "yours, one for each call; the same again is answered as before",
                {"type": "string", "minLength": 1, "maxLength": contract.KEY_LENGTH_MAX},
                required=True,
            ),
        ),
        shape=HandIn,
        example=HAND_IN,
        replies=(
            Reply(201, "the ambulance service has it", contract.CallView, _NEW,
                  headers=("Location",)),
            *_refused("bad_request", "too_large", "media_type", "key_reused", "failed", "bus_away"),
        ),
    )  # fmt: skip


def _look() -> Operation:
    told = {"call_id": "2026-4711", "status": "departed", "events": 4}
    return Operation(
        name="look",
        method="GET",
        path="/external/calls/{id}",
        tag="Calls",
        summary="Where a call stands now",
        parameters=(_PARAMETER,),
        replies=(Reply(200, "the call", contract.CallView, _NEW | told), *_refused("no_such_call")),
    )


def _follow() -> Operation:
    return Operation(
        name="follow",
        method="GET",
        path="/external/calls/{id}/events",
        tag="Calls",
        summary="What happened to a call",
        parameters=(
            _PARAMETER,
            Parameter(
                "after", "query", "the number of the last event that you have",
                {"type": "integer", "minimum": 0, "default": 0},
            ),
            Parameter(
                "wait_s", "query", "when there is none yet, wait so many seconds for one",
                {"type": "number", "minimum": 0, "maximum": contract.WAIT_S_MAX, "default": 0},
            ),
        ),
        replies=(
            Reply(200, "none, one or many events", contract.Events,
                  {"events": [_EVENT], "next": _EVENT["number"]}),
            *_refused("bad_request", "no_such_call"),
        ),
    )  # fmt: skip


def _cancel() -> Operation:
    return Operation(
        name="cancel",
        method="POST",
        path="/external/calls/{id}/cancel",
        tag="Calls",
        summary="The call is not wanted any more",
        description="The ambulance decides: the event cancelled says that it was. "
        "A repeat is answered as before. The body may be left out.",
        parameters=(_PARAMETER,),
        shape=contract.CancelRequest,
        example={"reason": "Больного увезли родственники"},
        replies=(
            Reply(202, "the ambulance service has the wish", contract.CallView,
                  _NEW | {"cancel_asked_at": "2026-11-23T05:20:00Z"}),
            *_refused("bad_request", "no_such_call", "ended", "too_large", "media_type", "failed",
                      "bus_away"),
        ),
    )  # fmt: skip


def _webhook() -> Operation:
    return Operation(
        name="told",
        method="POST",
        path="webhook",
        tag="What you are told",
        summary="An event of a call of yours, posted to your webhook",
        description="Answer 2xx when you have it. 400, 413, 415 and 422 mean that you will never "
        "take it; after anything else it comes again, later each time, for three days, and the "
        "later events of this call wait. Redirects are not followed.",
        parameters=(
            Parameter(
                "Idempotency-Key", "header", "the same at each try", {"type": "string"}, True
            ),
            Parameter("Signature", "header", SIGNED, {"type": "string"}, True),
        ),
        shape=contract.Told,
        example={"id": ID, "number": "М-2026-118", "event": _EVENT},
        replies=(Reply(204, "you have it"), Reply(503, "try again later")),
    )


def _refused(*kinds: ProblemKind) -> list[Reply]:
    """Return the answers of those problems and of those that every request may have; several of
    one status are one answer."""
    told: dict[int, list[ProblemKind]] = {}
    for kind in (*kinds, "unauthorized", "elsewhere", "quota"):
        told.setdefault(TITLES[kind][0], []).append(kind)
    if 400 in told and "key_reused" in kinds:
        told[400].append("idempotency_key")
    return [_problem(status, of) for status, of in sorted(told.items())]


def _problem(status: int, kinds: list[ProblemKind]) -> Reply:
    titles = "; ".join(TITLES[kind][1] for kind in kinds)
    example: dict[str, Any] = {
        "type": f"urn:smpbus:problem:{kinds[0]}",
        "title": TITLES[kinds[0]][1],
        "status": status,
        "detail": "What is wrong, for people",
    }
    if status == 400:
        said = "address.text: is empty, and address.geo is missing: where to?"
        path, _, rule = said.partition(": ")
        example |= {"detail": said, "path": path, "rule": rule}
    later = ("Retry-After",) if status in (429, 503) else ()
    return Reply(status, titles, contract.Problem, example, contract.PROBLEM_TYPE, later)
