"""Questions of the ambulance to other systems: POST /bus/questions/TYPE, answered at once."""

import re
from typing import Any, Final, Protocol

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.runtime.access import Accesses, Unrecorded
from connectors.runtime.door.body import BadInput, decode, read_body, without_mark
from connectors.runtime.door.callers import caller_of
from proto import catalogue
from proto.client import BusClient
from proto.errors import Code, RequestFailed
from proto.message import Message

# Who wants to know (a login of the ambulance system), and what for (a call's number, a word).
ASKED_BY: Final = "x-asked-by"
PURPOSE: Final = "x-purpose"
CALL_ID: Final = "x-call-id"  # where there is one
_WHO: Final = re.compile(r"[A-Za-z0-9_.@-]{1,64}")
_WHY: Final = re.compile(r"[A-Za-z0-9_.:/ -]{1,100}")
_CALL: Final = re.compile(r"[A-Za-z0-9_.:/-]{0,64}")
STATUS: Final[dict[str, int]] = {
    Code.BAD_MESSAGE: 400,
    Code.NOT_PERMITTED: 403,
    Code.UNKNOWN_TYPE: 404,
}


class _Settings(Protocol):
    @property
    def questions(self) -> dict[str, str]: ...
    @property
    def body_bytes_max(self) -> int: ...
    @property
    def question_timeout_s(self) -> float: ...
    @property
    def retry_after_s(self) -> int: ...


class Questions:
    """Passes a question on and answers what was answered, or why it was not: 400 for a question
    without sense, 404 for an unknown one, 503 when nobody answers."""

    def __init__(self, bus: BusClient, settings: _Settings, accesses: Accesses) -> None:
        self._bus = bus
        self._accesses = accesses
        self._settings = settings

    def route(self) -> Route:
        """Return the route to put into an app."""
        return Route("/bus/questions/{type}", self._endpoint, methods=["POST"])

    async def _endpoint(self, request: Request) -> Response:
        type = str(request.path_params["type"])
        questions = self._settings.questions
        destination = questions.get(type)
        if destination is None:
            return self._told(404, f"there is no such question; there are {', '.join(questions)}")
        who, why = (request.headers.get(name, "") for name in (ASKED_BY, PURPOSE))
        if not _WHO.fullmatch(who):
            return self._told(400, "X-Asked-By: names who asks, up to 64 of A-Z a-z 0-9 _ . @ -")
        if not _WHY.fullmatch(why):
            return self._told(400, "X-Purpose: says what for, up to 100 of A-Z a-z 0-9 _ . : / -")
        call_id = request.headers.get(CALL_ID, "")
        if not _CALL.fullmatch(call_id):
            return self._told(
                400, "X-Call-Id: the call's number, up to 64 of A-Z a-z 0-9 _ . : / -"
            )
        try:
            body = await read_body(request, self._settings.body_bytes_max)
            decode(body, _schema_of(type))
        except BadInput as bad:
            return self._told(bad.status, bad.sentence)
        message = Message.new(type, self._bus.name, without_mark(body))
        try:
            ids = [one for one in (call_id, message.id) if one]
            await self._accesses.note(type, f"{caller_of(request.scope)}/{who}", why, ids)
        except Unrecorded:
            return self._told(503, "the question could not be written down; please repeat")
        timeout_s = self._settings.question_timeout_s
        try:
            reply = await self._bus.request(destination, message, timeout_s=timeout_s)
        except RequestFailed as failed:
            return self._told(STATUS.get(failed.code, 503), failed.sentence)
        return Response(reply.body, media_type="application/json")

    def _told(self, status: int, sentence: str) -> Response:
        headers = {"retry-after": str(self._settings.retry_after_s)} if status == 503 else {}
        body = msgspec.json.encode({"code": status, "sentence": sentence})
        return Response(body, status, headers, "application/json")


def _schema_of(type: str) -> Any:
    """Return what the body of a question has to be: a region's own may be any object."""
    known = {entry.name: entry.schema for entry in catalogue.entries()}
    return known.get(type, dict[str, Any])
