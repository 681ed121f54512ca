"""Who is turned away at a door: told once a minute, counted, and kept waiting when it goes on.

A token is never looked at here, and so is in no line. Only who has been refused waits: a good token
from the same address, or through the same proxy, is served at once.
"""

import ipaddress
from collections import Counter
from functools import partial
from typing import Final, Literal

from starlette.types import ASGIApp, Message, Receive, Scope, Send

from connectors.runtime.door.gate import plain_address
from connectors.runtime.log import LOG
from proto import clock
from proto.wording import text

Why = Literal["token", "scope", "address", "unnamed_proxy", "no_header"]
REFUSED: Final = "smpbus.refused"  # in a request: why a guard further in refuses it
WINDOW_S: Final = 60.0
FREE: Final = 10  # refusals of an address within a window that are answered at once
SLOW_S: Final = 1.0
WAITING_MAX: Final = 32  # they hold connections that others may need
ADDRESSES_MAX: Final = 1000
OTHERS: Final = "?"  # who has no address, or one too many


class Refusals:
    """Counts of one process, by why: no good secret (401), one that is not good for this path, from
    where nobody may call (403), told by a proxy that no setting names, by a named proxy that did
    not say for whom. Needs a running loop."""

    def __init__(self, window_s: float = WINDOW_S, slow_s: float = SLOW_S) -> None:
        self.counts: Counter[Why] = Counter()
        self._window_s = window_s
        self._slow_s = slow_s
        self._seen: dict[str, Counter[tuple[str, Why]]] = {}  # by address, of this window
        self._waiting = 0

    @property
    def count(self) -> int:
        """How many were turned away."""
        return self.counts.total()

    async def note(self, door: str, host: str, why: Why) -> None:
        """Tell and count a refusal; returns when it may be answered."""
        self.counts[why] += 1
        peer = _address(host)
        if peer not in self._seen and len(self._seen) >= ADDRESSES_MAX:
            peer = OTHERS
        seen = self._seen.get(peer)
        if seen is None:
            seen = self._seen[peer] = Counter()
            clock.call_later(self._window_s, partial(self._end, peer))
        seen[door, why] += 1
        if seen[door, why] == 1:
            LOG.warning(text("connector.turned_away", door=door, peer=peer, why=_told(why)))
        if seen.total() > FREE and self._waiting < WAITING_MAX:
            self._waiting += 1
            try:
                await clock.sleep(self._slow_s)
            finally:
                self._waiting -= 1

    def _end(self, peer: str) -> None:
        for (door, why), count in self._seen.pop(peer).items():
            if count > 1:
                told = {"door": door, "peer": peer, "why": _told(why), "count": count - 1}
                LOG.warning(text("connector.turned_away_more", **told))

    def watch(self, app: ASGIApp, door: str) -> ASGIApp:
        """Return `app`, with every 401 and 403 of it noted."""

        async def watched(scope: Scope, receive: Receive, send: Send) -> None:
            async def sent(message: Message) -> None:
                if message["type"] == "http.response.start":
                    why = _why(message["status"], scope)
                    if why is not None:
                        await self.note(door, (scope.get("client") or ("", 0))[0], why)
                await send(message)

            await app(scope, receive, sent if scope["type"] == "http" else send)

        return watched


def _why(status: int, scope: Scope) -> Why | None:
    if status == 401:
        return "token"
    if status != 403:
        return None
    if scope.get(REFUSED) == "scope":
        return "scope"
    # What is believed of this header is the caller's address by now, and told as that.
    has_one = any(name == b"x-forwarded-for" for name, _ in scope["headers"])
    unnamed = has_one and scope.get("smpbus.peer") == scope.get("client")
    return "unnamed_proxy" if unnamed else "address"


def _address(host: str) -> str:
    """Return an address as one word; what a proxy tells may be anything."""
    try:
        return str(ipaddress.ip_address(plain_address(host)))
    except ValueError:
        return OTHERS


def _told(why: Why) -> str:
    return text(f"connector.why_{why}")
