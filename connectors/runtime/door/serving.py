"""The HTTP server inside a process: bound by us, so that a wrong address is one clear sentence, and
with limits on what a caller can take of it: see `gate`."""

import asyncio
import contextlib
import itertools
import logging
import socket
import ssl
from collections.abc import Callable, Iterator, Sequence
from http import HTTPStatus
from typing import Any, ClassVar, Final

import h11
import uvicorn
from starlette.requests import ClientDisconnect
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send
from uvicorn.middleware.proxy_headers import ProxyHeadersMiddleware
from uvicorn.protocols.http.h11_impl import H11Protocol

from connectors.runtime.door.counted import Counted
from connectors.runtime.door.doortls import fingerprint_shown
from connectors.runtime.door.gate import (
    Gate,
    HttpSettings,
    Phase,
    membership,
    places,
    plain_address,
)
from connectors.runtime.door.refusals import Refusals
from connectors.runtime.log import LOG
from proto import clock
from proto.exits import StartError
from proto.wording import text

FORBIDDEN_BODY: Final = b'{"Code":"403","CodeDescr":"This address is not allowed to call here"}'
FRAMED_TWICE: Final = b'{"Code":"400","CodeDescr":"Content-Length beside Transfer-Encoding"}'
TOO_LONG: Final = b'{"Code":"431","CodeDescr":"The head of the request is too long"}'
BUSY: Final = b'{"Code":"503","CodeDescr":"The service bus is busy; please repeat."}'
RETRY_AFTER_S: Final = 3
TICK_S: Final = 0.1  # as uvicorn's own, which looks only then whether to end
LOOPBACK: Final = ("127.0.0.1", "::1")
_SILENT: Final = logging.Logger("uvicorn")  # it would write a line for each stranger's bytes
_SILENT.disabled = True


class _Guarded(H11Protocol):
    """A connection that the gate knows of."""

    gate: ClassVar[Gate]

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """Take a place, or be sent away."""
        super().connection_made(transport)
        self.logger = _SILENT
        host, port = self.client or ("", 0)
        self.client = plain_address(host), port
        self.peer = self.client[0]
        self.phase: Phase = "head"
        self.since = clock.monotonic()
        self.held = 0
        self.writing_since: float | None = None
        self._known_cycle: Any = None
        if shown := fingerprint_shown(transport.get_extra_info("ssl_object")):
            self.app = _showing(self.app, shown)
        if not self.gate.admit(self, self.since):
            self.drop(503)

    def connection_lost(self, exc: Exception | None) -> None:
        """Give the place back."""
        self.gate.leave(self)
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        """Read, and note how far it has come."""
        if self.transport.is_closing():
            return
        if self.phase == "idle":
            self.phase, self.since = "head", clock.monotonic()
        super().data_received(data)
        self._look(len(data))

    def on_response_complete(self) -> None:
        """What was asked is answered."""
        self.gate.release(self)
        super().on_response_complete()
        self._look(0)

    def send_400_response(self, msg: str) -> None:
        """Answer what is no HTTP, and count it."""
        self.gate.tell("http", self.peer)
        super().send_400_response(msg)

    def _look(self, size: int) -> None:
        their = self.conn.their_state
        if self.cycle is not self._known_cycle:
            self._known_cycle, self.since = self.cycle, clock.monotonic()
            self.gate.heard(self)
        if their is h11.SEND_BODY:
            self.phase = "body"
            self.gate.hold(self, size)
        elif their is not h11.IDLE:
            if self.phase != "answer":
                self.gate.hold(self, size)
            self.phase = "answer"
        elif self.cycle is not None and not self.conn.trailing_data[0]:
            if self.phase != "idle":
                self.since = clock.monotonic()
            self.phase = "idle"
        else:
            self.phase = "head"

    @property
    def unsent(self) -> int:
        """How many bytes of answers wait to be read."""
        return 0 if self.transport.is_closing() else self.transport.get_write_buffer_size()

    def drop(self, status: int) -> None:
        """Close it, with `status` (0: none) if no answer has begun."""
        if self.transport.is_closing():
            return
        begun = self.cycle is not None and self.cycle.response_started
        if status and not (begun and self.phase != "head") and not self.unsent:
            self.transport.write(_answer(status))
            self.transport.close()
        else:
            self.transport.abort()


def _answer(status: int) -> bytes:
    phrase = HTTPStatus(status).phrase
    return (
        f"HTTP/1.1 {status} {phrase}\r\nretry-after: {RETRY_AFTER_S}\r\nconnection: close\r\n"
        "content-length: 0\r\n\r\n"
    ).encode()


class _Server(uvicorn.Server):
    def __init__(
        self, config: uvicorn.Config, context: ssl.SSLContext | None, handshake_s: float
    ) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()
        self.context = context
        self.handshake_s = handshake_s
        self._told = asyncio.Event()

    def end(self) -> None:
        """Stop serving, now and not at the next tick."""
        self.should_exit = True
        self._told.set()

    async def main_loop(self) -> None:
        """Tick until told to end."""
        for counter in itertools.count():
            if await self.on_tick(counter):
                return
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(TICK_S):
                    await self._told.wait()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen, and say so."""
        if self.context is None:
            await super().startup(sockets)
        else:
            await super().startup([])
            for channel in sockets or ():
                # The library would wait a minute for whoever says nothing.
                listener = await asyncio.get_running_loop().create_server(
                    self._protocol,
                    sock=channel,
                    ssl=self.context,
                    ssl_handshake_timeout=self.handshake_s,
                    backlog=self.config.backlog,
                )
                self.servers.append(listener)
        self.ready.set()

    def _protocol(self) -> asyncio.Protocol:
        shape: Any = self.config.http_protocol_class
        made: asyncio.Protocol = shape(
            config=self.config, server_state=self.server_state, app_state=self.lifespan.state
        )
        return made

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Leave the signals to the process: it has more to stop than HTTP."""
        yield


def bind(address: str, where: str) -> socket.socket:
    """Return a listening socket at HOST:PORT. Raises StartError naming `where` it is set."""
    host, _, port = address.rpartition(":")
    host = host.strip("[]")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    channel = socket.socket(family, socket.SOCK_STREAM)
    channel.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        channel.bind((host, int(port)))
        channel.listen(256)
    except (OSError, OverflowError) as error:
        channel.close()
        number = getattr(error, "errno", None) or 22  # EINVAL: no such port number
        raise StartError(
            text("connector.bind", errno=number, address=address, where=where)
        ) from None
    channel.setblocking(False)
    return channel


class HttpServer:
    """One app on one listening socket, within the limits of `settings`; `known` tells from which
    addresses one may call at all; with a `context` it speaks TLS. Raises StartError."""

    def __init__(
        self,
        app: ASGIApp,
        channel: socket.socket,
        settings: HttpSettings | None = None,
        known: Callable[[str], bool] = lambda _: True,
        refusals: Refusals | None = None,
        context: ssl.SSLContext | None = None,
    ) -> None:
        settings = settings or HttpSettings()
        refusals = refusals or Refusals()
        self._counted = Counted()
        host, port = channel.getsockname()[:2]
        self._door = f"{host}:{port}"
        named = settings.forwarded_from
        # Who may call anyway gains nothing by another address.
        believed = [one for one in LOOPBACK if known(one)] if named is None else list(named)
        try:
            is_proxy = membership(believed)
        except ValueError as error:
            channel.close()
            raise StartError(text("connector.bad_proxy", problem=error)) from None
        must_tell = is_proxy if named else lambda _: False
        if not believed and membership(["127.0.0.0/8", "::1"])(host) and not known(host):
            LOG.error(text("connector.nobody_can_call", door=self._door))
        gate = Gate(settings, self._tell, lambda host: is_proxy(host) or known(host), places())
        self._gate = gate

        class Protocol(_Guarded):
            """The connections of this door."""

        Protocol.gate = gate
        config = uvicorn.Config(
            _forwarded(_within_reason(app, gate), believed, must_tell, refusals, self._door),
            http=Protocol,
            h11_max_incomplete_event_size=settings.head_bytes_max,
            # Theirs would be taken from the environment.
            proxy_headers=False,
            forwarded_allow_ips=[],
            log_config=None,
            access_log=False,
            lifespan="on",
            server_header=False,
            timeout_keep_alive=round(settings.idle_s) + 1,  # the gate is first
            timeout_graceful_shutdown=5,
            ws="none",
        )
        self._server = _Server(config, context, settings.head_s)
        self._channel = channel
        self._task: asyncio.Task[None] | None = None
        self._looking: asyncio.Task[None] | None = None

    def _tell(self, limit: str, peer: str) -> None:
        line = text("connector.door_limit", door=self._door, peer=peer or "?", limit=limit)
        self._counted.warning(f"{self._door}, {limit}", line)

    async def start(self) -> None:
        """Serve from now on; returns when requests are being answered."""
        self._task = asyncio.create_task(self._server.serve([self._channel]))
        self._looking = asyncio.create_task(self._look())
        ready = asyncio.create_task(self._server.ready.wait())
        await asyncio.wait({self._task, ready}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if self._task.done():
            self._task.result()

    async def _look(self) -> None:
        while True:
            await clock.sleep(self._gate.look_s)
            self._gate.look(clock.monotonic())

    async def stop(self) -> None:
        """Finish the requests under way and close."""
        self._server.end()
        if self._task is not None:
            await self._task
        if self._looking is not None:
            self._looking.cancel()
            await asyncio.gather(self._looking, return_exceptions=True)
        self._channel.close()


def _showing(app: Any, certificate: str) -> ASGIApp:
    """Return `app`, told the fingerprint of the certificate that this connection showed."""

    async def shown(scope: Scope, receive: Receive, send: Send) -> None:
        scope["smpbus.certificate"] = certificate
        await app(scope, receive, send)

    return shown


def _within_reason(app: ASGIApp, gate: Gate) -> ASGIApp:
    """Return `app`, answering 400 to a request whose end is told in two ways: somebody before us
    may have believed the other one; and 503 while too many bytes are held."""

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            names = {name for name, _ in scope["headers"]}
            refused = None
            if {b"content-length", b"transfer-encoding"} <= names:
                refused = Response(FRAMED_TWICE, 400, {"connection": "close"}, "application/json")
            elif _head_bytes(scope) > gate.settings.head_bytes_max:  # it came in one piece
                refused = Response(TOO_LONG, 431, {"connection": "close"}, "application/json")
            elif gate.is_full:
                headers = {"connection": "close", "retry-after": str(RETRY_AFTER_S)}
                refused = Response(BUSY, 503, headers, "application/json")
            if refused is not None:
                await refused(scope, receive, send)
                return
        await app(scope, receive, send)

    return guarded


def _forwarded(
    app: ASGIApp,
    believed: list[str],
    must_tell: Callable[[str], bool],
    refusals: Refusals,
    door: str,
) -> ASGIApp:
    """Return `app`, with the callers' addresses from the proxies that are `believed`. A proxy that
    `must_tell` for whom it asks and does not is answered 403: else all its callers would be it."""
    watched = refusals.watch(app, door)

    async def told(scope: Scope, receive: Receive, send: Send) -> None:
        peer = scope.get("smpbus.peer")
        if peer and scope.get("client") == peer and must_tell(peer[0]):
            await refusals.note(door, peer[0], "no_header")
            refused = Response(FORBIDDEN_BODY, 403, media_type="application/json")
            await refused(scope, receive, send)
            return
        await watched(scope, receive, send)

    resolved = ProxyHeadersMiddleware(told, believed)  # type: ignore[arg-type]

    async def forwarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            scope["smpbus.peer"] = scope.get("client")
        await resolved(scope, receive, send)  # type: ignore[arg-type]

    return forwarded


def _head_bytes(scope: Scope) -> int:
    lines = sum(len(name) + len(value) + 4 for name, value in scope["headers"])
    return len(scope["raw_path"]) + len(scope["query_string"]) + lines


def allow_only(app: ASGIApp, networks: Sequence[str]) -> ASGIApp:
    """Return `app`, answering 403 to whoever is not in `networks`. Raises StartError."""
    try:
        known = membership(networks)
    except ValueError as error:
        raise StartError(text("connector.bad_network", problem=error)) from None

    async def guarded(scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or known((scope.get("client") or ("", 0))[0]):
            try:
                await app(scope, receive, send)
            except ClientDisconnect:
                pass  # it hung up before it had said everything; it will repeat
            except Exception as error:  # answered 500 already; the text may hold personal data
                kind = type(error).__name__
                LOG.error(text("connector.mistake", id=scope.get("method", ""), kind=kind))
            return
        headers = [(b"content-type", b"application/json")]
        await send({"type": "http.response.start", "status": 403, "headers": headers})
        await send({"type": "http.response.body", "body": FORBIDDEN_BODY})

    return guarded
