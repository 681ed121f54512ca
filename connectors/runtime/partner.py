"""One partner as a connector sees it: ask, and know what an answer or a silence means.

Failures are of two kinds. Those that may pass (no connection, no answer in time, 408, 425, 429,
5xx, and 401/407, which are our own settings) raise Retry. Every other refusal is about the message
itself and raises Reject, unless the connector expects it.
"""

import asyncio
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Annotated, Final
from urllib.parse import urlsplit

import msgspec

from connectors.runtime import tls
from connectors.runtime.breaker import Breaker, BreakerSettings
from connectors.runtime.http import HttpAnswer as Answer
from connectors.runtime.http import HttpClient, Unreachable
from connectors.runtime.limiter import Limiter
from connectors.runtime.outage import Outage
from proto.client import Reject, Retry
from proto.exits import StartError
from proto.wording import text

__all__ = ["Answer", "Partner", "PartnerSettings"]

Seconds = Annotated[float, msgspec.Meta(gt=0, le=3600)]

AWAY: Final = frozenset({429, 502, 503, 504})
PASSING: Final = frozenset({401, 407, 408, 425, 429})
EXPLAINED: Final = frozenset({400, 403, 404, 409, 410, 422})


class PartnerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to reach a partner. `credentials_file` holds one line, `user:password` (HTTP Basic).
    `ca_file` holds the certificates (PEM) of the only authorities that are trusted for it; the
    client's certificate is shown to a partner that asks for one."""

    url: Annotated[str, msgspec.Meta(pattern=r"^https?://[^/]")]
    system: str = ""
    connect_timeout_s: Seconds = 3.0
    timeout_s: Seconds = 10.0
    rate_per_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    rate_burst: Annotated[int, msgspec.Meta(ge=1)] = 10
    connections_max: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 32
    credentials_file: Path | None = None
    breaker: BreakerSettings = BreakerSettings()
    ca_file: Path | None = None
    client_certificate_file: Path | None = None
    client_key_file: Path | None = None


class Partner:
    """Requests to one partner, within its rate, its timeouts and its breaker."""

    def __init__(self, name: str, settings: PartnerSettings) -> None:
        """Raises StartError."""
        self.name = name
        self.settings = settings
        self.context = tls.make_context(settings)
        self.breaker = Breaker(settings.breaker)
        self.on_change: Callable[[], None] = lambda: None
        host = urlsplit(settings.url).netloc.rpartition("@")[2]
        self.outage = Outage(settings.system or name, host)
        self._limiter = Limiter(settings.rate_per_s, settings.rate_burst)
        user, password = credentials(settings.credentials_file)
        self._http = HttpClient(
            settings.url.rstrip("/"),
            connect_timeout_s=settings.connect_timeout_s,
            timeout_s=settings.timeout_s,
            connections_max=settings.connections_max,
            user=user,
            password=password,
            context=self.context,
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._http.close()

    async def send(
        self,
        method: str,
        path: str,
        body: bytes,
        key: str,
        headers: Mapping[str, str] | None = None,
        explained: Collection[int] = EXPLAINED,
    ) -> Answer:
        """Ask once, with `key` as the idempotency key. Raises Retry or Reject (see the module).

        Answers 2xx are returned, and so are those `explained`, which a contract may explain in
        their body: 400, 403, 404, 409, 410 and 422; SOAP 1.1 tells its Faults with 500.
        """
        wait_s = self._limiter.take(time.monotonic())
        if wait_s:
            await asyncio.sleep(wait_s)
        sent = {**(headers or {}), "idempotency-key": key}
        asked_at = time.monotonic()
        try:
            async with asyncio.timeout(self.settings.timeout_s + self.settings.connect_timeout_s):
                answer = await self._http.request(method, path, body, sent)
        except Unreachable as error:
            self.failed(tls.sentence_of(error.kind), asked_at)
            raise Retry(text("connector.note_no_answer", why=error.kind)) from None
        except TimeoutError:
            self.failed(asked_at=asked_at)
            raise Retry(text("connector.note_no_answer", why="timeout")) from None
        if answer.status in AWAY:
            self.failed(f"HTTP {answer.status}", asked_at)
        else:
            self.succeeded()
        classify(answer, explained)
        return answer

    def failed(self, answer: str = "", asked_at: float | None = None) -> None:
        """Note that the partner did not answer, or why we cannot use what it answered (a sentence
        for the administrator)."""
        now = time.monotonic()
        self.breaker.failed(now)
        self.outage.failed(now, answer, asked_at)
        if not self.breaker.closed:
            self.on_change()

    def succeeded(self) -> None:
        """Note that the partner is there."""
        was_closed = self.breaker.closed
        self.breaker.succeeded()
        self.outage.recovered(time.monotonic())
        if not was_closed:
            self.on_change()


def classify(answer: Answer, explained: Collection[int] = EXPLAINED) -> None:
    """Raise Retry or Reject for an answer that is neither 2xx nor one a contract explains."""
    status = answer.status
    if 200 <= status < 300 or status in explained:
        return
    if status in PASSING or status >= 500 or 300 <= status < 400:
        raise Retry(f"HTTP {status}", retry_after_s(answer))
    raise Reject(f"HTTP {status}")


def retry_after_s(answer: Answer) -> float | None:
    """Return the seconds of the partner's Retry-After, at most an hour, or None."""
    value = answer.headers.get("retry-after", "")
    return min(float(value), 3600.0) if value.isascii() and value.isdigit() else None


def credentials(path: Path | None) -> tuple[str | None, str | None]:
    """Return user and password of a file that only its owner may read. Raises StartError."""
    if path is None:
        return None, None
    try:
        mode = path.stat().st_mode & 0o077
        user, _, password = path.read_text(encoding="utf-8").strip().partition(":")
    except OSError as error:
        raise StartError(f"{path}: {error.strerror}") from None
    if mode:
        raise StartError(text("connector.secret_too_open", path=path))
    return user, password
