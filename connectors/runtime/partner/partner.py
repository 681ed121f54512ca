"""One partner as a connector sees it: ask, and know what an answer or a silence means.

Failures are of two kinds. Those that may pass (no connection, no answer in time, 408, 425, 429,
5xx, and 401/407, which are our own settings) raise Retry. Every other refusal is about the message
itself and raises Reject, unless the connector expects it. A partner that is silent or cannot serve
us now fails, and so does one that answers different requests with nonsense or "not now" and none
with anything else: after some failures in a row it is left alone for a while, and who asks
meanwhile gets Retry at once.
"""

import asyncio
import math
import re
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Annotated, Final, TypeVar
from urllib.parse import quote, urlsplit

import msgspec

from connectors.runtime.partner import tls
from connectors.runtime.partner.breaker import Breaker, BreakerSettings
from connectors.runtime.partner.http import ANSWER_BYTES_MAX, IDLE_S, HttpClient, Unreachable
from connectors.runtime.partner.http import HttpAnswer as Answer
from connectors.runtime.partner.limiter import Limiter
from connectors.runtime.partner.outage import Outage
from connectors.runtime.partner.retryafter import retry_after_s
from connectors.runtime.partner.tally import Tally
from connectors.runtime.partner.turns import Turns
from connectors.runtime.secretfile import read_secret_text
from proto import clock
from proto.client import Reject, Retry
from proto.configuration.declared import FORM, ReadFile, SecretFile
from proto.note import coded
from proto.wording import in_words, text

__all__ = [
    "Answer",
    "BadReply",
    "Partner",
    "PartnerSettings",
    "Unauthorised",
    "Untouched",
    "path_part",
]

Result = TypeVar("Result")
_PAGE: Final = re.compile(
    rb"(?:\xef\xbb\xbf)?\s*(?:<\?xml[^>]{0,200}>\s*)?(?:<!--[^>]{0,500}-->\s*)?<(?:!doctype\s+html|html)\b",
    re.IGNORECASE,
)
Seconds = Annotated[float, msgspec.Meta(gt=0, le=3600)]

AWAY: Final = frozenset({429, 502, 503, 504})
NOT_BEGUN: Final = frozenset({429, 503})
PASSING: Final = frozenset({401, 407, 408, 425, 429})
ELSEWHERE: Final = frozenset({403, 404, 405, 410})
EXPLAINED: Final = frozenset({400, 403, 404, 409, 410, 422})


class Unauthorised(Retry):
    """401: for whoever can renew what it shows; for all others one more reason to try later."""


class PartnerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to reach a partner. `credentials_file` holds one line, `user:password` (HTTP Basic).
    `ca_file` holds the certificates (PEM) of the only authorities that are trusted for it; the
    client's certificate is shown to a partner that asks for one. With `strict_x509` certificates
    must have all that RFC 5280 wants of them.

    An answer longer than `answer_bytes_max` (unpacked) is no answer. A connection that was not used
    for `idle_s` seconds is not used again: to be less than the partner's own limit, often 5 s."""

    url: Annotated[
        str,
        msgspec.Meta(pattern=r"^https?://(?![^/?#]*@)[^/]", extra={FORM: "http_url"}),
    ]
    system: str = ""
    connect_timeout_s: Seconds = 3.0
    timeout_s: Seconds = 10.0
    rate_per_s: Annotated[float, msgspec.Meta(ge=0)] = 0.0
    rate_burst: Annotated[int, msgspec.Meta(ge=1)] = 10
    connections_max: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 32
    answer_bytes_max: Annotated[int, msgspec.Meta(ge=1024, le=256 * 1024**2)] = ANSWER_BYTES_MAX
    idle_s: Annotated[float, msgspec.Meta(ge=0, le=3600)] = IDLE_S
    credentials_file: SecretFile | None = None
    breaker: BreakerSettings = BreakerSettings()
    ca_file: ReadFile | None = None
    client_certificate_file: ReadFile | None = None
    client_key_file: SecretFile | None = None
    strict_x509: bool = False


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
        limiter = Limiter(settings.rate_per_s, settings.rate_burst)
        self._turns = Turns(settings.connections_max, limiter)
        self._succeeded_at = -math.inf
        user, password = credentials(settings.credentials_file)
        self._http = HttpClient(
            settings.url.rstrip("/"),
            connect_timeout_s=settings.connect_timeout_s,
            timeout_s=settings.timeout_s,
            connections_max=settings.connections_max,
            user=user,
            password=password,
            answer_bytes_max=settings.answer_bytes_max,
            idle_s=settings.idle_s,
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
        *,
        once: bool = False,
    ) -> Answer:
        """Ask, with `key` as the idempotency key. Raises Retry or Reject (see the module).

        Answers 2xx are returned, and so are those `explained`, which a contract may explain in
        their body: 400, 403, 404, 409, 410 and 422; SOAP 1.1 tells its Faults with 500. What was
        sent into a connection that the partner closed at that very moment is sent again at once,
        under the same key; not so when it may go `once` only.
        """
        return await self.ask(method, path, body, key, _as_it_is, headers, explained, once=once)

    async def ask(
        self,
        method: str,
        path: str,
        body: bytes,
        key: str,
        read: Callable[[Answer], Result],
        headers: Mapping[str, str] | None = None,
        explained: Collection[int] = EXPLAINED,
        *,
        once: bool = False,
    ) -> Result:
        """Ask as `send` does and return what `read` makes of the answer. When it raises Retry
        (BadReply: it is nonsense) this request has failed; whatever else it raises or returns
        shows that the partner is there."""
        asked_at = clock.monotonic()
        answer = await self.fetch(method, path, body, key, headers, explained, once=once)
        try:
            result = read(answer)
        except Retry as bad:
            self.doubt(str(bad), key, asked_at, "reply" if isinstance(bad, BadReply) else "")
            raise
        except Exception:
            self.succeeded(key)
            raise
        self.succeeded(key)
        return result

    async def fetch(
        self,
        method: str,
        path: str,
        body: bytes,
        key: str,
        headers: Mapping[str, str] | None = None,
        explained: Collection[int] = EXPLAINED,
        *,
        once: bool = False,
    ) -> Answer:
        """Ask as `send` does, for whoever reads the answer elsewhere: he says `succeeded`, or
        `doubt` when it cannot be read."""
        self._raise_if_resting(self.breaker.wait_s(clock.monotonic()))
        async with self._turns.turn():
            within_s = self.settings.timeout_s + self.settings.connect_timeout_s
            self._raise_if_resting(self.breaker.admit(clock.monotonic(), within_s))
            asked_at = clock.monotonic()
            sent = {**(headers or {}), "idempotency-key": key}
            answer = await self._request(method, path, body, sent, key, once)
        if answer.status in AWAY:
            self.failed(f"HTTP {answer.status}", asked_at=asked_at, key=key)
            kind = Untouched if answer.status in NOT_BEGUN else Retry
            raise kind(f"HTTP {answer.status}", retry_after_s(answer), wish=True)
        try:
            classify(answer, explained)
        except Retry as retry:
            self.doubt(str(retry), key, asked_at, "reply" if isinstance(retry, BadReply) else "")
            raise
        except Reject:
            self.succeeded(key)
            raise
        return answer

    def _raise_if_resting(self, rest_s: float) -> None:
        if rest_s:
            note = coded("connector.resting", seconds=math.ceil(rest_s))
            raise Untouched(note, rest_s, wish=True)

    async def _request(
        self, method: str, path: str, body: bytes, headers: Mapping[str, str], key: str, once: bool
    ) -> Answer:
        """Raises Retry when no answer came."""
        began = clock.monotonic()
        self.tally.requests += 1
        try:
            async with asyncio.timeout(self.settings.timeout_s + self.settings.connect_timeout_s):
                answer = await self._http.request(method, path, body, headers, again=not once)
        except Unreachable as error:
            why, lack = error.kind, error.lack
        except TimeoutError:
            why, lack = "timeout", ""
        except asyncio.CancelledError:
            self.breaker.released()
            raise
        else:
            now = clock.monotonic()
            self.tally.answered((now - began) * 1000, now)
            return answer
        told = tls.sentence_of(why, lack)
        if why == "too long":
            told = text("connector.too_long", bytes_max=self.settings.answer_bytes_max)
        gone = why in ("connect", tls.CERTIFICATE, tls.TLS)
        self.failed(told, why.replace(" ", "_"), began, "" if gone else key)
        kind = Untouched if why in ("connect", tls.CERTIFICATE) else Retry
        raise kind(coded("connector.no_answer", why=why))

    def failed(
        self, answer: str = "", kind: str = "", asked_at: float | None = None, key: str = ""
    ) -> None:
        """Note that the partner did not answer the request of `key`, or that it cannot serve us now
        and says so (`answer`, a note or a sentence for the administrator); `kind` is the word under
        which it is counted, `asked_at` the monotonic time of the request."""
        self.tally.failures[kind or ("unready" if answer else "connect")] += 1
        now = clock.monotonic()
        if self.breaker.failed(now, key) or not self.breaker.closed:
            self.outage.failed(now, in_words(answer), asked_at)
        if not self.breaker.closed:
            self.on_change()

    def doubt(self, answer: str, key: str, asked_at: float, kind: str = "") -> None:
        """Note that the request of `key` got an answer that is of no use (`answer` is a note that
        says why). One alone may be the request's own fault: the administrator is told when several
        in a row got such, and none another."""
        self.tally.failures[kind or "unready"] += 1
        if asked_at <= self._succeeded_at:
            return  # others were served meanwhile
        now = clock.monotonic()
        self.breaker.failed(now, key, answered=True)
        if not self.breaker.closed:
            self.outage.failed(now, in_words(answer), asked_at)
            self.on_change()

    def succeeded(self, key: str = "") -> None:
        """Note that the partner is there: it answered the request of `key`."""
        was_closed = self.breaker.closed
        self.breaker.succeeded(key)
        self._succeeded_at = clock.monotonic()
        self.outage.recovered(self._succeeded_at)
        if not was_closed:
            self.on_change()


def _as_it_is(answer: Answer) -> Answer:
    return answer


def classify(answer: Answer, explained: Collection[int] = EXPLAINED) -> None:
    """Raise Retry or Reject for an answer that is neither 2xx nor one a contract explains."""
    status = answer.status
    if status in ELSEWHERE and _PAGE.match(answer.body):
        # Some gateway's: it speaks of an address, and nobody of the contract has seen the message.
        raise BadReply(coded("connector.bad_reply", status=status))
    if 200 <= status < 300 or status in explained:
        return
    if status == 401:
        raise Unauthorised(f"HTTP {status}", retry_after_s(answer), wish=True)
    if status in PASSING or status >= 500 or 300 <= status < 400:
        raise Retry(f"HTTP {status}", retry_after_s(answer), wish=True)
    raise Reject(f"HTTP {status}")


def path_part(value: str) -> str:
    """Return `value` as one part of a path, whatever is in it. Raises Reject for what no part can
    be: nothing, one or two dots (another path), a control character."""
    if value in ("", ".", "..") or not value.isprintable():
        raise Reject(coded("connector.bad_part"))
    return quote(value, safe="")


def credentials(path: Path | None) -> tuple[str | None, str | None]:
    """Return user and password of a file that only its owner may read. Raises StartError."""
    if path is None:
        return None, None
    user, _, password = read_secret_text(path).partition(":")
    return user, password
