"""The HTTP client: the only module that knows which library it is."""

import ssl
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from http.cookiejar import CookieJar, DefaultCookiePolicy
from types import TracebackType
from typing import Any, Final, Self

import httpx

from connectors.runtime.partner import tls

JSON_TYPE: Final = "application/json"
# The library looks at every idle connection at each request: with 32 of them under way a request
# cost twice as much processor time as with 8.
IDLE_MAX: Final = 8
CLOSED: Final = ("the handler is closed", "has no attribute 'getpeername'")
ANSWER_BYTES_MAX: Final = 4 * 1024 * 1024  # unpacked
IDLE_S: Final = 3.0  # common servers close what is idle after 5 s
PACKED: Final = frozenset({"gzip", "x-gzip", "deflate"})
PIECE: Final = 64 * 1024
BEFORE: Final = {"content-type": JSON_TYPE, "accept": JSON_TYPE, "accept-encoding": "gzip"}


@dataclass(frozen=True)
class HttpAnswer:
    """What the other side answered; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Unreachable(Exception):
    """No answer: `kind` is "connect" (nobody listens), "certificate" (not trusted), "tls",
    "timeout", "broken" or "too long"; no other detail but what a certificate `lack`s."""

    def __init__(self, kind: str, lack: str = "") -> None:
        super().__init__(kind)
        self.kind = kind
        self.lack = lack


class HttpClient:
    """Requests to one base address, with connections kept open."""

    def __init__(
        self,
        base: str,
        *,
        connect_timeout_s: float = 3.0,
        timeout_s: float = 10.0,
        connections_max: int = 32,
        user: str | None = None,
        password: str | None = None,
        answer_bytes_max: int = ANSWER_BYTES_MAX,
        idle_s: float = IDLE_S,
        context: ssl.SSLContext | None = None,
    ) -> None:
        """`context` is how to speak TLS; without one an https address has to be trusted by this
        machine."""
        secure = base.startswith("https:")
        self._base = base
        self._answer_bytes_max = answer_bytes_max
        # Proxies and .netrc of the environment would change silently where patients' data goes.
        self._client = httpx.AsyncClient(
            base_url=base,
            timeout=httpx.Timeout(timeout_s, connect=connect_timeout_s),
            limits=httpx.Limits(
                max_connections=connections_max,
                max_keepalive_connections=IDLE_MAX,
                keepalive_expiry=idle_s,
            ),
            # No contract has cookies: what a partner sets would grow and go back with each request.
            cookies=CookieJar(DefaultCookiePolicy(allowed_domains=[])),
            auth=None if user is None else httpx.BasicAuth(user, password or ""),
            verify=secure and (context or tls.client_context()),
            trust_env=False,
        )

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        await self.close()

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def request(
        self,
        method: str,
        path: str,
        body: bytes = b"",
        headers: Mapping[str, str] | None = None,
        *,
        again: bool = False,
    ) -> HttpAnswer:
        """Send `body`, JSON unless the headers say otherwise, to the base and `path` ("": to the
        base itself). Raises Unreachable when no whole answer came.

        With `again` a request that went into a connection which had been used before, and that the
        other side closed with no word of an answer, goes at once into the next one.
        """
        given = {name.lower(): value for name, value in (headers or {}).items()}
        lost = False
        while True:
            line = _Line()
            try:
                return await self._once(method, path, body, BEFORE | given, line)
            except Unreachable as error:
                if not (again and line.closed_meanwhile and error.kind == "broken"):
                    if lost and error.kind == "connect":
                        error.kind = "broken"  # the one before may have been heard
                    raise
                lost = True

    async def _once(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str], line: "_Line"
    ) -> HttpAnswer:
        try:
            async with self._client.stream(
                method,
                path or self._base,
                content=body,
                headers=headers,
                extensions={"trace": line.note},
            ) as answer:
                whole = await self._read(answer)
        except httpx.ConnectTimeout:
            raise Unreachable("connect") from None
        except httpx.TimeoutException:
            raise Unreachable("timeout") from None
        except httpx.ConnectError as error:
            raise Unreachable(tls.kind_of(error) or "connect", tls.lack_of(error)) from None
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            # OSError: what TLS says after the handshake passes all of the library as it is.
            raise Unreachable(tls.kind_of(error) or "broken") from None
        except (RuntimeError, AttributeError) as error:
            # What uvloop, or anyio of a socket that is no more, says of a connection that the other
            # side closes at this very moment; no library between takes it for what it is.
            if not any(words in str(error) for words in CLOSED):
                raise
            raise Unreachable("broken") from None
        return HttpAnswer(answer.status_code, answer.headers, whole)

    async def _read(self, answer: httpx.Response) -> bytes:
        """Raises Unreachable for a body that is too long, or packed in a way we did not offer."""
        packing = answer.headers.get("content-encoding", "identity").strip().lower()
        unpack = _Unpacking(self._answer_bytes_max) if packing in PACKED else None
        if unpack is None and packing not in ("", "identity"):
            raise Unreachable("broken")
        whole = bytearray()
        async for part in answer.aiter_raw(PIECE):
            whole += part if unpack is None else unpack.more(part, len(whole))
            if len(whole) > self._answer_bytes_max:
                raise Unreachable("too long")
        if unpack is not None and whole and not unpack.ended:
            raise Unreachable("broken")
        return bytes(whole)


class _Line:
    """What happened to one request on its way."""

    def __init__(self) -> None:
        self._connected = False
        self._sent = False
        self._answered = False

    async def note(self, event: str, _: Mapping[str, Any]) -> None:
        """Take an event of the library underneath."""
        self._connected |= event.startswith("connection.connect")
        self._sent |= event.endswith("send_request_headers.started")
        self._answered |= event.endswith("receive_response_headers.complete")

    @property
    def closed_meanwhile(self) -> bool:
        """Whether a connection from before was used, and nothing came back."""
        return self._sent and not self._connected and not self._answered


class _Unpacking:
    """Unpacks a body piece by piece, never much further than its limit."""

    def __init__(self, bytes_max: int) -> None:
        self._bytes_max = bytes_max
        self._stream = zlib.decompressobj(zlib.MAX_WBITS | 32)  # gzip or zlib, as its head says

    @property
    def ended(self) -> bool:
        """Whether all of it has come."""
        return self._stream.eof

    def more(self, part: bytes, size: int) -> bytes:
        """Return what `part` says after `size` bytes. Raises Unreachable."""
        try:
            return self._stream.decompress(part, self._bytes_max + 1 - size)
        except zlib.error:
            raise Unreachable("broken") from None
