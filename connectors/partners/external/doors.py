"""What outside services may ask: hand in a call, look at it, follow it, cancel it."""

import hashlib
import math
import time
import uuid
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from typing import Any, Final, TypeVar

import msgspec
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.partners.external import contract
from connectors.partners.external.checking import check
from connectors.partners.external.clients import Client, Clients
from connectors.partners.external.memory import Call, Memory, State, now_s, ref_of
from connectors.partners.external.problem import Refusal
from connectors.runtime.bus.settings import DoorSettings
from connectors.runtime.door.body import BadInput, convert, decode, decode_urgent, read_body
from connectors.runtime.door.door import Door, Mended, message_id
from connectors.runtime.door.waiting import Waiting
from proto.external import ExternalCancelled, HandIn
from proto.message import Message, Priority

CALLS: Final = "/external/calls"
NAMESPACE: Final = uuid.UUID("6f1d3f0e-1120-5d8a-9c51-0000000000e8")
JSON_TYPE: Final = "application/json"
OURS: Final = ("external", "client", "handed_in_at")  # in what the ambulance gets

Shape = TypeVar("Shape")
Answer = Callable[[Client, Request], Awaitable[Response]]


class Doors:
    """The endpoints. `waiting` wakes those who wait for the events of a call, by its ref."""

    def __init__(
        self,
        door: Door,
        clients: Clients,
        memory: Memory,
        waiting: Waiting,
        source: str,
        settings: DoorSettings,
    ) -> None:
        self._door = door
        self._clients = clients
        self._memory = memory
        self._waiting = waiting
        self._source = source
        self._settings = settings

    def routes(self) -> list[Route]:
        """Return the routes to put into an app."""
        one = f"{CALLS}/{{id}}"
        return [
            Route(CALLS, self._endpoint(self._hand_in), methods=["POST"]),
            Route(one, self._endpoint(self._look), methods=["GET"]),
            Route(f"{one}/events", self._endpoint(self._follow), methods=["GET"]),
            Route(f"{one}/cancel", self._endpoint(self._cancel), methods=["POST"]),
        ]

    def _endpoint(self, answer: Answer) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            try:
                return await answer(self._clients.admit(request), request)
            except Refusal as refusal:
                return refusal.response()
            except BadInput as bad:
                return Refusal.of(bad).response()

        return endpoint

    # -- handing in -----------------------------------------------------------------------------

    async def _hand_in(self, client: Client, request: Request) -> Response:
        key = _idempotency_key(request)
        body = await self._json(request)
        id = uuid.uuid5(NAMESPACE, msgspec.json.encode((client.name, key)).decode()).hex
        ref = ref_of(client.name, id)
        known = self._memory.call_of(client.name, id)
        if known is None:
            self._check_day(client)
        elif known.digest and known.digest != _digest(ref, body):
            raise Refusal("key_reused", "Another call was handed in under this Idempotency-Key.")
        if known is None or not known.accepted or not known.digest:
            verdict = await self._door.take(
                f"external.call.v1 {client.name}", "", body,
                lambda: self._call(client, id, ref, body),
            )  # fmt: skip
            if verdict.status != 200:
                raise Refusal.by(verdict)
            if (taken := self._memory.call_of(client.name, id)) is not None:
                self._memory.accept(taken)
        view = _view(self._own(client, id), State())  # a repeat is answered as the first time
        return _response(201, view, {"location": f"{CALLS}/{id}"})

    def _check_day(self, client: Client) -> None:
        limit = client.settings.calls_per_day
        wait_s = self._memory.day_wait_s(client.name, limit, now_s())
        if wait_s:
            raise Refusal(
                "quota", f"At most {limit} calls in 24 hours.", retry_after_s=math.ceil(wait_s)
            )

    def _call(self, client: Client, id: str, ref: str, body: bytes) -> Mended:
        raw, odd = decode_urgent(body)
        call = convert(raw, HandIn)
        now = datetime.now(UTC)
        check(call, now)
        kept = Call(
            ref=ref,
            client=client.name,
            id=id,
            digest=_digest(ref, body),
            number=call.number,
            handed_in_at=now.timestamp(),
            accepted=False,
            cancel_asked_at=None,
        )
        self._memory.begin(kept)
        ours = dict(zip(OURS, (ref, client.name, now), strict=True))
        # By what it says, too: a key whose first call our file has lost is no repeat of that.
        said = kept.digest.hex()
        return Mended([self._message("external.call.v1", ref, raw | ours, said)], odd)

    # -- following ------------------------------------------------------------------------------

    async def _look(self, client: Client, request: Request) -> Response:
        return self._shown(200, self._own(client, _id(request)))

    async def _follow(self, client: Client, request: Request) -> Response:
        call = self._own(client, _id(request))
        after = _query(request, "after", contract.Number, 0)
        wait_s = _query(request, "wait_s", float, 0.0)
        if not 0 <= wait_s <= contract.WAIT_S_MAX:
            raise BadInput("wait_s", f"is not between 0 and {contract.WAIT_S_MAX:g}")
        until = time.monotonic() + wait_s
        while not (events := self._memory.events(call.ref, after, contract.EVENTS_MAX)):
            if not await self._waiting.wait(call.ref, until - time.monotonic()):
                break
        told = contract.Events(events, events[-1].number if events else after)
        return _response(200, told)

    # -- cancelling -----------------------------------------------------------------------------

    async def _cancel(self, client: Client, request: Request) -> Response:
        call = self._own(client, _id(request))
        body = await self._json(request, empty=True)
        if call.cancel_asked_at is None:
            if self._memory.state(call.ref).status in contract.ENDED:
                raise Refusal("ended", "The ambulance has ended this call already.")
            verdict = await self._door.take(
                f"external.cancelled.v1 {client.name}", "", body,
                lambda: [self._cancelled(client, call.ref, body)],
            )  # fmt: skip
            if verdict.status != 200:
                raise Refusal.by(verdict)
            self._memory.note_cancel(call, now_s())
        return self._shown(202, self._own(client, call.id))

    def _cancelled(self, client: Client, ref: str, body: bytes) -> Message:
        asked = decode(body, contract.CancelRequest)
        cancelled = ExternalCancelled(
            external=ref,
            client=client.name,
            reason=asked.reason,
            recorded_at=datetime.now(UTC),
        )
        return self._message("external.cancelled.v1", ref, cancelled)

    # -- what they stand on ---------------------------------------------------------------------

    def _message(self, type: str, ref: str, body: object, *said: str) -> Message:
        return Message.new(
            type,
            self._source,
            body,
            subject=f"ext-{ref}",
            id=message_id(type, ref, *said),
            priority=Priority.EMERGENCY,
            correlation_id=ref,
        )

    def _own(self, client: Client, id: str) -> Call:
        """Return a call of this client. Raises Refusal: whether another has it is not told."""
        call = self._memory.call_of(client.name, id)
        if call is None or not call.accepted:
            raise Refusal("no_such_call", "There is no such call of yours.")
        return call

    def _shown(self, status: int, call: Call) -> Response:
        at = call.cancel_asked_at
        asked_at = None if at is None else datetime.fromtimestamp(at, UTC)
        return _response(status, _view(call, self._memory.state(call.ref), asked_at))

    async def _json(self, request: Request, *, empty: bool = False) -> bytes:
        """Return the body. Raises Refusal, BadInput; with `empty` none at all is "{}"."""
        body = await read_body(request, self._settings.body_bytes_max)
        if empty and not body:
            return b"{}"
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind != JSON_TYPE:
            raise Refusal("media_type", f"Content-Type must be {JSON_TYPE}.")
        return body


async def no_such_page(_: Request, error: Exception) -> Response:
    """Answer what no endpoint answers."""
    told = error if isinstance(error, HTTPException) else HTTPException(404)
    detail = "There is no such address, or not this method of it; see /docs."
    response = Refusal("no_such_page", detail, status=told.status_code).response()
    response.headers.update(told.headers or {})
    return response


def _view(call: Call, state: State, cancel_asked_at: datetime | None = None) -> contract.CallView:
    return contract.CallView(
        id=call.id,
        number=call.number,
        handed_in_at=datetime.fromtimestamp(call.handed_in_at, UTC),
        call_id=state.call_id,
        status=state.status,
        cancel_asked_at=cancel_asked_at,
        events=state.events,
    )


def _idempotency_key(request: Request) -> str:
    key = request.headers.get("idempotency-key", "").strip()
    if not key or len(key) > contract.KEY_LENGTH_MAX or not key.isprintable():
        detail = f"Idempotency-Key is required: 1 to {contract.KEY_LENGTH_MAX} characters."
        raise Refusal("idempotency_key", detail)
    return key


def _digest(ref: str, body: bytes) -> bytes:
    """Return the digest of what `body` says, however it is written down. Raises BadInput."""
    said = msgspec.json.encode(decode_urgent(body)[0], order="deterministic")
    return hashlib.sha256(ref.encode() + said).digest()


def _id(request: Request) -> str:
    return str(request.path_params["id"])


def _query(request: Request, name: str, shape: type[Shape], default: Shape) -> Shape:
    value = request.query_params.get(name)
    if value is None:
        return default
    try:
        return msgspec.convert(value, shape, strict=False)
    except msgspec.ValidationError:
        raise BadInput(name, "is not a number that can be meant") from None


def _response(status: int, body: Any, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(body), status, headers, JSON_TYPE)
