"""The doors of the ambulance system as its vendor reads them: GET /openapi.json, GET /docs."""

from collections.abc import Iterable
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from connectors.partners.smp import contract
from connectors.runtime.door.openapi import Api, Operation, Parameter, Reply
from proto import catalogue

# What the ambulance system posts, and what each post becomes.
POSTED: Final = {
    "/bus/status": "call.status.v1",
    "/bus/cards": "incident.card_update.v1",
    "/bus/dial": "telephony.dial.v1",
    "/bus/tickets": "call.ticket.v1",
    "/bus/call-cards": "call.card.v1",
    "/bus/hospital/bookings": "hospital.book.v1",
    "/bus/hospital/cancellations": "hospital.cancel.v1",
    "/bus/hospital/arrivals": "hospital.arrival.v1",
    "/bus/visits": "visit.request.v1",
}
SHAPES: Final[dict[str, Any]] = {
    "call.status.v1": contract.StatusReport,
    "telephony.dial.v1": contract.DialOrder,
}
EXTRA: Final[dict[str, dict[str, str]]] = {"telephony.dial.v1": {"request_id": "click-17"}}
# What a caller needs: the names of `scopes` in [connectors.smp.callers.WHO].
SCOPES: Final = {
    "/bus": "clinical",
    "/bus/status": "status",
    "/bus/cards": "status",
    "/bus/dial": "status",
    "/bus/questions": "questions",
    "/queue": "queue",
}
TOKEN: Final = "A token whose SHA-256 digest is in token_file of one of [connectors.smp.callers]"
ABOUT: Final = """How the ambulance system speaks with the bus. Whatever it posts is answered
2xx when it is on the router's disk, 400 with the field and the rule, 503 with Retry-After: repeat
it then. A repeat is accepted once.

What the bus brings comes in one of two ways: it is posted to the ambulance system (at the end of
this page), or the ambulance system receives and commits it by itself, when mode is "queue"."""
BUSY: Final = Reply(
    503, "the bus is away: repeat it later", contract.BusReply, headers=("Retry-After",)
)
TOO_LARGE: Final = Reply(413, "longer than body_bytes_max", contract.BusReply)
NO_TOKEN: Final = Reply(401, "no good token", contract.BusReply, headers=("WWW-Authenticate",))
_DELIVERY: Final = "3f2a9c01b7de-4711"


def describe(questions: Iterable[str], *, token: bool) -> Api:
    """Return the API of the doors."""
    operations = (*(_posted(*one) for one in POSTED.items()), _question(questions), *_queue())
    always = (TOO_LARGE, NO_TOKEN) if token else (TOO_LARGE,)
    operations = tuple(replace(one, replies=(*one.replies, *always)) for one in operations)
    return Api(
        "smpbus: the ambulance system",
        "1",
        ABOUT,
        operations,
        TOKEN if token else "",
        tuple(_brought(*one) for one in contract.PATHS.items()),
    )


def _posted(path: str, type: str) -> Operation:
    entry = catalogue.entry(type)
    return Operation(
        name=f"post_{type}".replace(".", "_"),
        method="POST",
        path=path,
        tag="What the ambulance posts",
        summary=entry.description,
        shape=SHAPES.get(type, entry.schema),
        example=entry.example | EXTRA.get(type, {}),
        replies=(
            Reply(
                200,
                "it is on the router's disk",
                contract.BusReply,
                {"code": 200, "sentence": "accepted"},
            ),
            _bad("event_id: is required"),
            BUSY,
        ),
    )


def _question(questions: Iterable[str]) -> Operation:
    return Operation(
        name="ask",
        method="POST",
        path="/bus/questions/{type}",
        tag="What the ambulance asks",
        summary="A question to another system, answered at once or not at all",
        description="The bodies of questions and answers: smpbus schema TYPE.",
        parameters=(
            Parameter(
                "type", "path", "which question", {"type": "string", "enum": list(questions)}
            ),
            Parameter("X-Asked-By", "header", "who asks: a login", {"type": "string"}, True),
            Parameter("X-Purpose", "header", "what for: care, quality", {"type": "string"}, True),
            Parameter("X-Call-Id", "header", "for which call, if any", {"type": "string"}),
        ),
        shape=dict[str, Any],
        example=catalogue.entry("patient.lookup.v1").example,
        replies=(
            Reply(200, "the answer", dict[str, Any]),
            _bad("body: is not JSON"),
            Reply(403, "this question may not be asked", contract.BusReply),
            Reply(404, "there is no such question", contract.BusReply),
            BUSY,
        ),
    )


def _queue() -> tuple[Operation, ...]:
    tag = "The queue"
    card = catalogue.entry("incident.card.v1").example
    status = catalogue.entry("call.status.v1").example
    at = datetime(2026, 11, 23, 5, 14, 41, tzinfo=UTC)
    received = contract.Received(
        ref=_DELIVERY, attempt=1, commit_by=at, type="incident.card.v1", source="sys112",
        subject="112-112-99-000001", id="0193a000-0000-7000-8000-000000000031", time=at,
        priority=1, payload=msgspec.Raw(msgspec.json.encode(card)),
    )  # fmt: skip
    pushed = Reply(409, "mode is not queue here", contract.BusReply)
    return (
        Operation(
            "send", "POST", "/queue/send", tag,
            "Send one or many messages; each is answered",
            (
                Reply(200, "each message's own answer", contract.SendReply,
                      {"results": [{"code": 200, "sentence": "accepted", "id": "a-17"}]}),
                _bad("messages: Expected `array` of length >= 1"),
                Reply(503, "none was accepted: repeat all of them later", contract.SendReply,
                      headers=("Retry-After",)),
            ),
            contract.SendRequest,
            {"messages": [{"type": "call.status.v1", "id": "a-17", "payload": status}]},
            description="Messages of one request about one subject go in the order they stand in: "
            "when one is not accepted, those after it are not tried.",
        ),
        Operation(
            "receive", "POST", "/queue/receive", tag,
            "Receive what waits, the urgent ones first, and hold it until commit_by",
            (
                Reply(200, "none, one or many messages", contract.ReceiveReply,
                      {"messages": [msgspec.json.decode(msgspec.json.encode(received))]}),
                _bad("max: Expected `int` <= 100"),
                pushed,
            ),
            contract.ReceiveRequest,
            {"max": 10, "wait_s": 20.0},
            description="The next message of a subject comes when the one before is committed.",
        ),
        Operation(
            "commit", "POST", "/queue/commit", tag,
            "Say what became of what was received",
            (
                Reply(200, "whether each counts", contract.CommitReply,
                      {"results": [{"ref": _DELIVERY, "committed": True}]}),
                _bad("reason: is required to reject"),
                pushed,
            ),
            contract.CommitRequest,
            {"refs": [_DELIVERY], "outcome": "done", "note": "2026-4711"},
        ),
    )  # fmt: skip


def _brought(type: str, path: str) -> Operation:
    entry = catalogue.entry(type)
    return Operation(
        name=f"bring_{type}".replace(".", "_"),
        method="POST",
        path=path,
        tag="What the bus posts to the ambulance",
        summary=entry.description,
        parameters=(
            Parameter(
                "Idempotency-Key", "header", "the same again must change nothing",
                {"type": "string"}, required=True,
            ),
        ),
        shape=entry.schema,
        example=entry.example,
        replies=(
            Reply(200, "it was taken", contract.CallReply, {"outcome": "done"}),
            Reply(400, "it can never be taken: a dead letter"),
            Reply(503, "it is brought again later"),
        ),
    )  # fmt: skip


def _bad(sentence: str) -> Reply:
    told = {"code": 400, "sentence": sentence}
    return Reply(400, "which field breaks which rule", contract.BusReply, told)
