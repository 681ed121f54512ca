"""The HTTP server inside a process: bound by us, so that a wrong address is one clear sentence."""

import asyncio
import contextlib
import ipaddress
import socket
from collections.abc import Callable, Iterator, Sequence
from typing import Final

import uvicorn
from starlette.requests import ClientDisconnect
from starlette.types import ASGIApp, Receive, Scope, Send

from connectors.runtime.log import LOG
from proto.exits import StartError
from proto.wording import text

# Longer than our own clients and common ones keep an idle connection: who closes first is to be the
# one that asks, else a request goes into a connection that is being closed.
KEEP_ALIVE_S: Final = 30.0
FORBIDDEN_BODY: Final = b'{"Code":"403","CodeDescr":"This address is not allowed to call here"}'


class _Server(uvicorn.Server):
    def __init__(self, config: uvicorn.Config) -> None:
        super().__init__(config)
        self.ready = asyncio.Event()

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        """Begin to listen, and say so."""
        await super().startup(sockets)
        self.ready.set()

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
    """One app on one listening socket."""

    def __init__(
        self, app: ASGIApp, channel: socket.socket, keep_alive_s: float = KEEP_ALIVE_S
    ) -> None:
        """A connection that is not used for `keep_alive_s` seconds is closed."""
        config = uvicorn.Config(
            app,
            log_config=None,
            access_log=False,
            lifespan="on",
            server_header=False,
            timeout_graceful_shutdown=5,
            timeout_keep_alive=keep_alive_s,  # type: ignore[arg-type]  # any number of seconds
            ws="none",
        )
        self._server = _Server(config)
        self._channel = channel
        self._task: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Serve from now on; returns when requests are being answered."""
        self._task = asyncio.create_task(self._server.serve([self._channel]))
        ready = asyncio.create_task(self._server.ready.wait())
        await asyncio.wait({self._task, ready}, return_when=asyncio.FIRST_COMPLETED)
        ready.cancel()
        if self._task.done():
            self._task.result()

    async def stop(self) -> None:
        """Finish the requests under way and close."""
        self._server.should_exit = True
        if self._task is not None:
            await self._task
        self._channel.close()


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


def membership(networks: Sequence[str]) -> Callable[[str], bool]:
    """Return what tells whether an address is in one of `networks`. Raises ValueError for what is
    no network."""
    allowed = [ipaddress.ip_network(network) for network in networks]

    def known(host: str) -> bool:
        try:
            address = ipaddress.ip_address(host)
        except ValueError:
            return False
        return any(address in network for network in allowed)

    return known
