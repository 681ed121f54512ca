"""One partner as a connector sees it: ask, and know what an answer or a silence means.

Failures are of two kinds. Those that may pass (no connection, no answer in time, 408, 425, 429,
5xx, and 401/407, which are our own settings) raise Retry. Every other refusal is about the message
itself and raises Reject, unless the connector expects it. A partner that is silent, cannot serve us
now or talks nonsense fails: after some failures in a row it is left alone for a while, and who asks
meanwhile gets Retry at once.
"""

import asyncio
import math
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Annotated, Final, TypeVar
from urllib.parse import urlsplit

import msgspec

from connectors.runtime import tls
from connectors.runtime.breaker import Breaker, BreakerSettings
from connectors.runtime.http import HttpAnswer as Answer
from connectors.runtime.http import HttpClient, Unreachable
from connectors.runtime.limiter import Limiter
from connectors.runtime.outage import Outage
from connectors.runtime.secretfile import read_secret
from connectors.runtime.tally import Tally
from proto.client import Reject, Retry
from proto.wording import text

__all__ = ["Answer", "BadReply", "Partner", "PartnerSettings", "Unauthorised", "Untouched"]

Result = TypeVar("Result")
Seconds = Annotated[float, msgspec.Meta(gt=0, le=3600)]

AWAY: Final = frozenset({429, 502, 503, 504})
NOT_BEGUN: Final = frozenset({429, 503})
PASSING: Final = frozenset({401, 407, 408, 425, 429})
EXPLAINED: Final = frozenset({400, 403, 404, 409, 410, 422})


class Unauthorised(Retry):
    """401: for whoever can renew what it shows; for all others one more reason to try later."""


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


class BadReply(Retry):
    """An answer that is not of the contract: a page of some gateway, a service being repaired."""


class Untouched(Retry):
    """The partner did not take the request up: it is left alone, nobody listens, or it answered
    that it cannot serve now. After any other Retry nobody knows whether it did the work."""


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
        self.tally = Tally()
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
        return await self.ask(method, path, body, key, _as_it_is, headers, explained)

    async def ask(
        self,
        method: str,
        path: str,
        body: bytes,
        key: str,
        read: Callable[[Answer], Result],
        headers: Mapping[str, str] | None = None,
        explained: Collection[int] = EXPLAINED,
    ) -> Result:
        """Ask as `send` does and return what `read` makes of the answer. When it raises BadReply
        the partner has failed, whatever else it raises or returns shows that it is there."""
        asked_at = time.monotonic()
        answer = await self.fetch(method, path, body, key, headers, explained)
        try:
            result = read(answer)
        except BadReply as bad:
            self.failed(str(bad), "reply", asked_at)
            raise
        except Exception:
            self.succeeded()
            raise
        self.succeeded()
        return result

    async def fetch(
        self,
        method: str,
        path: str,
        body: bytes,
        key: str,
        headers: Mapping[str, str] | None = None,
        explained: Collection[int] = EXPLAINED,
    ) -> Answer:
        """Ask as `send` does, for whoever reads the answer elsewhere: he says `succeeded`, or
        `failed` when it cannot be read."""
        wait_s = self._limiter.take(time.monotonic())
        if wait_s:
            await asyncio.sleep(wait_s)
        within_s = self.settings.timeout_s + self.settings.connect_timeout_s
        rest_s = self.breaker.admit(time.monotonic(), within_s)
        if rest_s:
            raise Untouched(text("connector.note_resting", seconds=math.ceil(rest_s)), rest_s)
        asked_at = time.monotonic()
        answer = await self._request(
            method, path, body, {**(headers or {}), "idempotency-key": key}
        )
        if answer.status in AWAY:
            self.failed(f"HTTP {answer.status}", asked_at=asked_at)
            kind = Untouched if answer.status in NOT_BEGUN else Retry
            raise kind(f"HTTP {answer.status}", retry_after_s(answer))
        try:
            classify(answer, explained)
        except (Retry, Reject):
            self.succeeded()
            raise
        return answer

    async def _request(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str]
    ) -> Answer:
        """Raises Retry when no answer came."""
        began = time.monotonic()
        self.tally.requests += 1
        try:
            async with asyncio.timeout(self.settings.timeout_s + self.settings.connect_timeout_s):
                answer = await self._http.request(method, path, body, headers)
        except Unreachable as error:
            why = error.kind
        except TimeoutError:
            why = "timeout"
        except asyncio.CancelledError:
            self.breaker.released()
            raise
        else:
            now = time.monotonic()
            self.tally.answered((now - began) * 1000, now)
            return answer
        self.failed(tls.sentence_of(why), why.replace(" ", "_"), began)
        kind = Untouched if why in ("connect", tls.CERTIFICATE) else Retry
        raise kind(text("connector.note_no_answer", why=why))

    def failed(self, answer: str = "", kind: str = "", asked_at: float | None = None) -> None:
        """Note that the partner did not answer, or why we cannot use what it answered (a sentence
        for the administrator); `kind` is the word under which it is counted, `asked_at` the
        monotonic time of the request."""
        self.tally.failures[kind or ("unready" if answer else "connect")] += 1
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


def _as_it_is(answer: Answer) -> Answer:
    return answer


def classify(answer: Answer, explained: Collection[int] = EXPLAINED) -> None:
    """Raise Retry or Reject for an answer that is neither 2xx nor one a contract explains."""
    status = answer.status
    if 200 <= status < 300 or status in explained:
        return
    if status == 401:
        raise Unauthorised(f"HTTP {status}", retry_after_s(answer))
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
    user, _, password = read_secret(path).decode().partition(":")
    return user, password
