"""The HTTP client: the only module that knows which library it is."""

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Final, Self

import httpx

from connectors.runtime import tls

JSON_TYPE: Final = "application/json"
# The library looks at every idle connection at each request: with 32 of them under way a request
# cost twice as much processor time as with 8.
IDLE_MAX: Final = 8
CLOSED: Final = "the handler is closed"
ANSWER_BYTES_MAX: Final = 32 * 1024 * 1024  # unpacked: nobody has so much to say to us


@dataclass(frozen=True)
class HttpAnswer:
    """What the other side answered; header names are in lower case."""

    status: int
    headers: Mapping[str, str]
    body: bytes


class Unreachable(Exception):
    """No answer: `kind` is "connect" (nobody listens), "certificate" (not trusted), "tls",
    "timeout", "broken" or "too long"; no other detail."""

    def __init__(self, kind: str) -> None:
        super().__init__(kind)
        self.kind = kind


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
                max_connections=connections_max, max_keepalive_connections=IDLE_MAX
            ),
            auth=None if user is None else httpx.BasicAuth(user, password or ""),
            verify=secure and (context or ssl.create_default_context()),
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
        self, method: str, path: str, body: bytes = b"", headers: Mapping[str, str] | None = None
    ) -> HttpAnswer:
        """Send `body`, JSON unless the headers say otherwise, to the base and `path` ("": to the
        base itself). Raises Unreachable when no whole answer came."""
        sent = {"content-type": JSON_TYPE, "accept": JSON_TYPE, **(headers or {})}
        try:
            async with self._client.stream(
                method, path or self._base, content=body, headers=sent
            ) as answer:
                whole = await self._read(answer)
        except httpx.ConnectTimeout:
            raise Unreachable("connect") from None
        except httpx.TimeoutException:
            raise Unreachable("timeout") from None
        except httpx.ConnectError as error:
            raise Unreachable(tls.kind_of(error) or "connect") from None
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unreachable(tls.kind_of(error) or "broken") from None
        except RuntimeError as error:
            # What uvloop says of a connection that the other side closes at this very moment; no
            # library between it and us takes it for what it is.
            if CLOSED not in str(error):
                raise
            raise Unreachable("broken") from None
        return HttpAnswer(answer.status_code, answer.headers, whole)

    async def _read(self, answer: httpx.Response) -> bytes:
        parts: list[bytes] = []
        size = 0
        async for part in answer.aiter_bytes():
            size += len(part)
            if size > self._answer_bytes_max:
                raise Unreachable("too long")
            parts.append(part)
        return b"".join(parts)
