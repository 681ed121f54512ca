"""Connections to one partner, kept open between requests.

The library's own pool looks through all its connections at each request, with a call of the system
for each idle one: the busier a connector is, the dearer is a request. Here the connection used last
is used next, so that few are open, and only the one at hand is looked at.
"""

import asyncio
import ssl
import sys
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from importlib.util import find_spec
from typing import Any, Final

import httpcore

KEEP_S: Final = 5.0
if find_spec("sniffio") is None:
    # httpcore tries to import it at every lock; an import that fails searches the disk each time.
    sys.modules["sniffio"] = None  # type: ignore[assignment]


class Pool(httpcore.AsyncConnectionPool):
    """At most `connections_max` at once; who comes beyond waits for the timeout "pool" of its
    request. For one address: a request to another one is a mistake of ours."""

    def __init__(self, context: ssl.SSLContext | None, connections_max: int) -> None:
        super().__init__()
        self._context = context
        self._backend = httpcore.AnyIOBackend()
        self._room = asyncio.Semaphore(connections_max)
        self._idle: list[httpcore.AsyncHTTPConnection] = []
        self._busy: set[httpcore.AsyncHTTPConnection] = set()

    async def handle_async_request(self, request: httpcore.Request) -> httpcore.Response:
        """Send a request over a connection that is its own until the answer is closed. Raises what
        httpcore's pool raises."""
        await self._enter(request)
        connection = None
        try:
            connection = await self._take(request.url.origin)
            answer = await connection.handle_async_request(request)
        except BaseException:
            await self._give_back(connection)
            raise
        body = _Body(answer.stream, partial(self._give_back, connection))
        return httpcore.Response(
            answer.status, headers=answer.headers, content=body, extensions=answer.extensions
        )

    async def aclose(self) -> None:
        """Close every connection."""
        closing = [*self._idle, *self._busy]
        self._idle.clear()
        self._busy.clear()
        for connection in closing:
            await connection.aclose()

    async def _enter(self, request: httpcore.Request) -> None:
        if not self._room.locked():
            await self._room.acquire()
            return
        try:
            async with asyncio.timeout(request.extensions.get("timeout", {}).get("pool")):
                await self._room.acquire()
        except TimeoutError:
            raise httpcore.PoolTimeout from None

    async def _take(self, origin: httpcore.Origin) -> httpcore.AsyncHTTPConnection:
        while self._idle:
            connection = self._idle.pop()
            self._busy.add(connection)
            if not connection.has_expired():
                return connection
            self._busy.discard(connection)
            await connection.aclose()
        connection = httpcore.AsyncHTTPConnection(
            origin,
            ssl_context=self._context,
            keepalive_expiry=KEEP_S,
            network_backend=self._backend,
        )
        self._busy.add(connection)
        return connection

    async def _give_back(self, connection: httpcore.AsyncHTTPConnection | None) -> None:
        """Make room for the next one, whatever becomes of this connection."""
        self._room.release()
        if connection not in self._busy or connection is None:
            return  # closed meanwhile
        self._busy.discard(connection)
        if connection.is_idle() and not connection.is_closed():
            self._idle.append(connection)
        else:
            await connection.aclose()
        if self._idle and self._idle[0].has_expired():  # the one that was used longest ago
            await self._idle.pop(0).aclose()


class _Body:
    """The body of an answer; its end gives the connection back, once."""

    def __init__(self, stream: Any, give_back: Callable[[], Awaitable[None]]) -> None:
        self._stream = stream
        self._give_back: Callable[[], Awaitable[None]] | None = give_back

    async def __aiter__(self) -> AsyncIterator[bytes]:
        async for part in self._stream:
            yield part

    async def aclose(self) -> None:
        give_back, self._give_back = self._give_back, None
        if give_back is None:
            return
        try:
            await self._stream.aclose()
        finally:
            await give_back()
