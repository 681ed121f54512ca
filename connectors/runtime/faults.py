"""Faults on demand: how a simulator plays a partner that is slow, broken or gone.

`fail` is the share of requests that fail, half of them after the work was done (the answer is
lost, which only an idempotency key can heal). `down` fails all of them. `spoil` spoils every
answer: "half" breaks off in the middle of the body, "cut" is JSON that ends too early, "html" is a
page where JSON should be, "redirect" sends elsewhere. Seeded: a run repeats.
"""

import asyncio
import random
from typing import Annotated, Final, Literal

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

CONTROL: Final = ("/ledger", "/faults", "/drive", "/livez")


class Faults(msgspec.Struct, kw_only=True):
    """The switches; `down_after_s` seconds after the start the partner goes down by itself."""

    fail: Annotated[float, msgspec.Meta(ge=0, le=1)] = 0.0
    delay_s: Annotated[float, msgspec.Meta(ge=0, le=600)] = 0.0
    down: bool = False
    down_after_s: float | None = None
    spoil: Literal["", "half", "cut", "html", "redirect"] = ""
    seed: int = 0


class FaultyApp:
    """Wraps a simulator's app; its control pages never fail. `POST /faults` sets switches."""

    def __init__(self, app: ASGIApp, faults: Faults) -> None:
        self._app = app
        self.faults = faults
        self._random = random.Random(faults.seed)
        self._started: float | None = None

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
            await asyncio.sleep(self.faults.delay_s)
        failing = self._random.random() < self.faults.fail
        after_work = self._random.random() < 0.5
        if self._is_down():
            await Response(status_code=503, headers={"retry-after": "1"})(scope, receive, send)
        elif failing:
            if after_work:
                await self._app(scope, receive, _nowhere)
            await Response(status_code=500)(scope, receive, send)
        elif self.faults.spoil:
            await self._spoiled(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _spoiled(self, scope: Scope, receive: Receive, send: Send) -> None:
        if self.faults.spoil == "html":
            await Response("<html>Technical works</html>", media_type="text/html")(
                scope, receive, send
            )
            return
        if self.faults.spoil == "redirect":
            await Response(status_code=302, headers={"location": "/elsewhere"})(
                scope, receive, send
            )
            return
        whole = Answered()
        await self._app(scope, receive, whole)
        half = whole.body[: len(whole.body) // 2]
        if self.faults.spoil == "cut":
            await Response(half, whole.status, media_type="application/json")(scope, receive, send)
            return
        length = str(len(whole.body)).encode()
        headers = [(b"content-length", length), (b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": whole.status, "headers": headers})
        await send({"type": "http.response.body", "body": half, "more_body": True})

    def _is_down(self) -> bool:
        now = asyncio.get_running_loop().time()
        self._started = now if self._started is None else self._started
        after_s = self.faults.down_after_s
        return self.faults.down or (after_s is not None and now - self._started >= after_s)

    async def _switch(self, request: Request) -> Response:
        if request.method == "POST":
            given = msgspec.json.decode(await request.body())
            merged = msgspec.to_builtins(self.faults) | given
            self.faults = msgspec.convert(merged, Faults)
        return Response(msgspec.json.encode(self.faults), media_type="application/json")


class Answered:
    """Keeps an answer instead of sending it."""

    def __init__(self) -> None:
        self.status = 500
        self.body = b""

    async def __call__(self, message: Message) -> None:
        self.status = message.get("status", self.status)
        self.body += message.get("body", b"")


async def _nowhere(_: Message) -> None:
    """Lose the answer."""
