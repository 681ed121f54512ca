"""The three requests of the queue API: POST /queue/send, /queue/receive, /queue/commit."""

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final, TypeVar

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.partners.smp import contract
from connectors.partners.smp.making import Maker
from connectors.partners.smp.queue import Queue
from connectors.runtime.bus.settings import DoorSettings
from connectors.runtime.door.body import BadInput, decode, decode_each, read_body, refuse
from connectors.runtime.door.door import Door, Verdict
from connectors.runtime.oddities import oddities
from proto import clock
from proto.message import Message

NOT_HERE: Final = "messages are pushed to the ambulance system here, mode is not queue"
GONE: Final = 499  # nobody reads this answer

Shape = TypeVar("Shape")
Made = list[Message] | BadInput


@dataclass(frozen=True)
class _Unread:
    """A message of a batch that is none of the contract; the others are none the worse for it."""

    bad: BadInput
    payload: bytes
    type: str = "send"
    id: str | None = None


class QueueDoor:
    """Endpoints of the queue; without a `queue` only sending is served."""

    def __init__(
        self, door: Door, maker: Maker, queue: Queue | None, settings: DoorSettings
    ) -> None:
        self._door = door
        self._maker = maker
        self._queue = queue
        self._settings = settings

    def routes(self) -> list[Route]:
        """Return the routes to put into an app."""
        return [
            Route("/queue/send", self._send_endpoint, methods=["POST"]),
            Route(
                "/queue/receive",
                self._endpoint(contract.ReceiveRequest, self._receive),
                methods=["POST"],
            ),
            Route(
                "/queue/commit",
                self._endpoint(contract.CommitRequest, self._commit),
                methods=["POST"],
            ),
        ]

    def _endpoint(
        self, shape: type[Shape], answer: Callable[[Request, Shape], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def endpoint(request: Request) -> Response:
            try:
                body = await read_body(request, self._settings.body_bytes_max)
                # The payloads are looked at one by one.
                return await answer(request, decode(body or b"{}", shape, whole=False))
            except BadInput as bad:
                return _told(bad.status, bad.sentence)

        return endpoint

    async def _receive(self, request: Request, asked: contract.ReceiveRequest) -> Response:
        queue = self._queue
        if queue is None:
            return _told(409, NOT_HERE)
        until = clock.monotonic() + asked.wait_s
        while not (messages := queue.receive(asked.max)):
            if not await queue.wait(until - clock.monotonic()):
                break
            if await request.is_disconnected():  # what nobody reads is not given out
                return Response(status_code=GONE)
        return _json(200, contract.ReceiveReply(messages))

    async def _commit(self, _: Request, asked: contract.CommitRequest) -> Response:
        if self._queue is None:
            return _told(409, NOT_HERE)
        refuse(oddities({"reason": asked.reason, "note": asked.note}))
        if asked.outcome == "reject" and not asked.reason.strip():
            raise BadInput("reason", "is required to reject")
        return _json(200, contract.CommitReply(self._queue.commit(asked)))

    async def _send_endpoint(self, request: Request) -> Response:
        try:
            body = await read_body(request, self._settings.body_bytes_max)
            return await self._send(_read(body))
        except BadInput as bad:
            return _told(bad.status, bad.sentence)

    async def _send(self, messages: list[contract.Sent | _Unread]) -> Response:
        """Publish; what shares a subject goes one after another, as it stands."""
        last: dict[str, asyncio.Task[contract.SendResult]] = {}
        tasks = []
        size = 0
        for index, sent in enumerate(messages):
            if size > contract.MADE_BYTES_MAX:  # and so are all that follow: none overtakes another
                tasks.append(asyncio.create_task(_later(sent)))
                continue
            made = self._made(index, sent)
            size += sum(len(one.body) for one in made) if isinstance(made, list) else 0
            subjects = (
                {one.subject for one in made if one.subject} if isinstance(made, list) else ()
            )
            before = [last[subject] for subject in subjects if subject in last]
            tasks.append(asyncio.create_task(self._one(sent, made, before)))
            last |= dict.fromkeys(subjects, tasks[-1])
        reply = contract.SendReply(await asyncio.gather(*tasks))
        if all(result.code == 503 for result in reply.results):
            headers = {"retry-after": str(self._settings.retry_after_s)}
            return _json(503, reply, headers)
        return _json(200, reply)

    async def _one(
        self,
        sent: contract.Sent | _Unread,
        made: Made,
        before: list[asyncio.Task[contract.SendResult]],
    ) -> contract.SendResult:
        if any(result.code >= 500 for result in await asyncio.gather(*before)):
            verdict = Verdict(503, "one before it was not accepted; please repeat")
        else:
            take = _giver(made)
            verdict = await self._door.take(sent.type, "", bytes(sent.payload), take)
        path = verdict.bad.path if verdict.bad else ""
        return contract.SendResult(verdict.status, verdict.sentence, path, sent.id)

    def _made(self, index: int, sent: contract.Sent | _Unread) -> Made:
        if isinstance(sent, _Unread):
            return sent.bad
        try:
            refuse(oddities({"id": sent.id, "subject": sent.subject}))
        except BadInput as bad:
            return BadInput(f"messages[{index}].{bad.path}", bad.rule)
        try:
            messages = self._maker.make(sent.type, bytes(sent.payload))
        except BadInput as bad:
            inner = bad.path if bad.path == "type" else f"payload.{bad.path}".rstrip(".")
            return BadInput(f"messages[{index}].{inner}", bad.rule, bad.status)
        told: dict[str, Any] = {
            name: value
            for name in ("subject", "priority")
            if (value := getattr(sent, name)) is not None
        }
        told |= {
            name: _ms(value)
            for name in ("not_before", "expires")
            if (value := getattr(sent, name)) is not None
        }
        return [
            msgspec.structs.replace(
                message,
                **told,
                id=message.id if sent.id is None else self._maker.sent_id(message, sent.id, number),
            )
            for number, message in enumerate(messages)
        ]


def _read(body: bytes) -> list[contract.Sent | _Unread]:
    """Return the messages of a request, each read for itself. Raises BadInput for what is no
    request, or has no message that can be read."""
    found: list[contract.Sent | _Unread] = []
    for index, raw in enumerate(decode_each(body or b"{}", contract.RawSend, "messages")):
        try:
            # The payloads are looked at one by one.
            found.append(decode(raw, contract.Sent, whole=False))
        except BadInput as bad:
            path = f"messages[{index}].{bad.path}".rstrip(".")
            found.append(_Unread(BadInput(path, bad.rule, bad.status), raw))
    if all(isinstance(one, _Unread) for one in found):
        raise next(one.bad for one in found if isinstance(one, _Unread))
    return found


async def _later(sent: contract.Sent | _Unread) -> contract.SendResult:
    return contract.SendResult(503, "too much for one request; please repeat", "", sent.id)


def _giver(made: Made) -> Callable[[], list[Message]]:
    def give() -> list[Message]:
        if isinstance(made, BadInput):
            raise made
        return made

    return give


def _ms(instant: datetime) -> int:
    return max(0, int(instant.timestamp() * 1000))


def _json(status: int, body: Any, headers: dict[str, str] | None = None) -> Response:
    return Response(msgspec.json.encode(body), status, headers, "application/json")


def _told(status: int, sentence: str) -> Response:
    return _json(status, contract.BusReply(status, sentence))
