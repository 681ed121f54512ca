"""Faults on demand: how a simulator plays a partner that is slow, broken or gone.

`fail` is the share of requests that fail, half of them after the work was done (the answer is
lost, which only an idempotency key can heal); `refuse` is the share that is refused for good.
`down` fails all of them. `spoil` spoils every answer: "half" breaks off in the middle of the body,
"cut" is a body that ends too early, "html" is a page where data should be, "encoding" is EBCDIC
that claims to be what was expected, "redirect" sends elsewhere; "any" is each of them, and now and
then a good answer. "stall" begins an answer and never ends it, "type" is the answer under a wrong
content type, "fault" and "sender" are SOAP Faults that blame us or the partner itself; "drip" is an
answer byte by byte, that never gets further, "giant" one without end at full speed, "cookies" a
good one with a hundred cookies, "later" is 503 with a Retry-After of an hour, "now" one of 0.
Seeded: a run repeats.

What a partner says of a failure quotes the request, as real ones do: none of it may be found in our
logs and notes.
"""

import asyncio
import contextlib
import random
from typing import Annotated, Final, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from connectors.runtime.markup import soap
from proto import clock
from proto.nesting import decode_json

CONTROL: Final = ("/ledger", "/ledger/entries", "/faults", "/drive", "/livez")
Spoil = Literal[
    "", "half", "cut", "html", "encoding", "redirect", "any", "stall", "type", "fault", "sender",
    "drip", "giant", "cookies", "later", "now",
]  # fmt: skip
COOKIES: Final = 100
DRIP_S: Final = 0.1
GIANT_PIECE: Final = 256 * 1024
LISTENS_S: Final = 60.0
SPOILS: Final[tuple[Spoil, ...]] = ("half", "cut", "html", "encoding", "redirect", "")


class Faults(msgspec.Struct, kw_only=True):
    """The switches. `down_after_s` after the first request the partner goes down by itself; with
    `down_s` it is back after so long (of `down`: counted from the first request). `for_s` seconds
    after they were set over HTTP all switches are off again, whoever set them may have ended."""

    fail: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    refuse: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    delay_s: Annotated[float, msgspec.Meta(ge=0, le=600)] = 0.0
    down: bool = False
    down_after_s: float | None = None
    down_s: float | None = None
    spoil: Spoil = ""
    seed: int = 0
    for_s: Annotated[float, msgspec.Meta(gt=0)] | None = None


class FaultyApp:
    """Wraps a simulator's app; its control pages never fail. `POST /faults` sets switches."""

    def __init__(self, app: ASGIApp, faults: Faults) -> None:
        self._app = app
        self.faults = faults
        self._random = random.Random(faults.seed)
        self._started: float | None = None
        self._end: clock.Timer | None = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
        elif scope["path"] == "/faults":
            await (await self._switch(Request(scope, receive)))(scope, receive, send)
        elif scope["path"] in CONTROL:
            await self._app(scope, receive, send)
        else:
            await self._faulty(scope, receive, send)

    async def _faulty(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.faults.delay_s:
            # A slow partner has heard all of it, and does it even if nobody waits any more.
            receive = await _heard(receive)
            await asyncio.sleep(self.faults.delay_s)
        failing = self._random.random() < self.faults.fail
        refusing = self._random.random() < self.faults.refuse
        after_work = self._random.random() < 0.5
        if self._is_down():
            await Response(status_code=503, headers={"retry-after": "1"})(scope, receive, send)
        elif failing:
            if after_work:
                await self._app(scope, receive, _nowhere)
            await Response(status_code=500)(scope, receive, send)
        elif refusing:
            await Response(await _quoted(scope, receive), 422)(scope, receive, send)
        elif spoil := self._spoil():
            await self._spoiled(spoil, scope, receive, send)
        else:
            await self._app(scope, receive, send)

    def _spoil(self) -> Spoil:
        return self._random.choice(SPOILS) if self.faults.spoil == "any" else self.faults.spoil

    async def _spoiled(self, spoil: Spoil, scope: Scope, receive: Receive, send: Send) -> None:
        if spoil in ("html", "redirect", "fault", "sender"):
            await (await _instead(spoil, scope, receive))(scope, receive, send)
            return
        if spoil in ("later", "now"):
            after_s = "3600" if spoil == "later" else "0"
            await Response(status_code=503, headers={"retry-after": after_s})(scope, receive, send)
            return
        if spoil in ("drip", "giant"):
            await _without_end(spoil, receive, send)
            return
        whole = Answered()
        await self._app(scope, receive, whole)
        body, kind = whole.body, whole.media_type
        half = body[: len(body) // 2]
        if spoil in ("half", "stall"):
            headers = [
                (b"content-length", str(len(body)).encode()),
                (b"content-type", kind.encode()),
            ]
            await send({"type": "http.response.start", "status": whole.status, "headers": headers})
            await send({"type": "http.response.body", "body": half, "more_body": True})
            if spoil == "stall":
                await _gone(receive)
            return
        if spoil == "cut":
            body = half
        elif spoil == "encoding":
            body = body.decode(errors="replace").encode("cp500", "replace")
        elif spoil == "type":
            kind = "application/octet-stream"
        answer = Response(body, whole.status, media_type=kind)
        for number in range(COOKIES if spoil == "cookies" else 0):
            answer.set_cookie(f"c{number}", "x" * 50)
        await answer(scope, receive, send)

    def _is_down(self) -> bool:
        now = asyncio.get_running_loop().time()
        self._started = now if self._started is None else self._started
        began_s = 0.0 if self.faults.down else self.faults.down_after_s
        if began_s is None:
            return False
        length_s = self.faults.down_s
        gone_s = now - self._started - began_s
        return gone_s >= 0 and (length_s is None or gone_s < length_s)

    async def _switch(self, request: Request) -> Response:
        if request.method == "POST":
            given = decode_json(await request.body())
            merged = msgspec.to_builtins(self.faults) | given
            self.faults = msgspec.convert(merged, Faults)
            self._started = None
            self._end_later(self.faults.for_s)
        return Response(msgspec.json.encode(self.faults), media_type="application/json")

    def _end_later(self, for_s: float | None) -> None:
        if self._end is not None:
            self._end.cancel()
            self._end = None
        if for_s is not None:
            self._end = clock.call_later(for_s, self._recover)

    def _recover(self) -> None:
        self.faults = Faults(seed=self.faults.seed)


async def _without_end(spoil: Spoil, receive: Receive, send: Send) -> None:
    """Answer as long as somebody listens, but no longer than the longest time limit there is."""
    headers = [(b"content-type", b"application/json")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})
    piece, pause_s = (b" ", DRIP_S) if spoil == "drip" else (b" " * GIANT_PIECE, 0.0)
    loop = asyncio.get_running_loop()
    ends_at = loop.time() + LISTENS_S
    gone = asyncio.ensure_future(_gone(receive))  # what is sent to nobody may not fail
    try:
        with contextlib.suppress(OSError):
            while not gone.done() and loop.time() < ends_at:
                await send({"type": "http.response.body", "body": piece, "more_body": True})
                await asyncio.sleep(pause_s)
    finally:
        gone.cancel()


async def _gone(receive: Receive) -> None:
    """Wait until nobody listens any more."""
    while (await receive())["type"] != "http.disconnect":
        pass


class Answered:
    """Keeps an answer instead of sending it."""

    def __init__(self) -> None:
        self.status = 500
        self.media_type = "application/json"
        self.body = b""

    async def __call__(self, message: Message) -> None:
        self.status = message.get("status", self.status)
        for name, value in message.get("headers", ()):
            if name == b"content-type":
                self.media_type = value.decode()
        self.body += message.get("body", b"")


async def _instead(spoil: Spoil, scope: Scope, receive: Receive) -> Response:
    """Return what comes instead of an answer; the request is not worked on."""
    if spoil == "redirect":
        return Response(status_code=302, headers={"location": "/elsewhere"})
    quoted = await _quoted(scope, receive)
    if spoil == "html":
        return Response(f"<html>Technical works: {quoted}</html>", media_type="text/html")
    kind = Request(scope).headers.get("content-type", "")
    version = soap.SOAP12 if "soap+xml" in kind else soap.SOAP11
    who = "sender" if spoil == "sender" else "receiver"
    body = soap.fault(version, who, f"cannot take {quoted}")
    return Response(body, 500, media_type=soap.CONTENT_TYPE[version])


async def _quoted(scope: Scope, receive: Receive) -> str:
    """Return what a partner would quote: the address and the body, as far as it is text."""
    query = scope.get("query_string", b"")
    body = await Request(scope, receive).body()
    said = f"{scope['path']}?{(query + b' ' + body).decode(errors='replace')}"
    return "".join(sign for sign in said if sign.isprintable())


async def _heard(receive: Receive) -> Receive:
    """Read a request to its end; return what gives it again."""
    parts = [await receive()]
    while parts[-1].get("more_body"):
        parts.append(await receive())

    async def again() -> Message:
        return parts.pop(0) if parts else await receive()

    return again


async def _nowhere(_: Message) -> None:
    """Lose the answer."""
