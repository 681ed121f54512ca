"""One line when a partner falls silent, one when it is back: never one per message."""

import math

from connectors.runtime.log import LOG
from proto.message import now_ms
from proto.wording import text


class Outage:
    """The outage of one system: counts the failures between its two lines.

    `up` is whether it answered the last time, None while nothing is known; `since` when that began,
    `answered_at` when it answered last (ms UTC).
    """

    def __init__(self, system: str, host: str) -> None:
        self.system = system
        self.host = host
        self.count = 0
        self.up: bool | None = None
        self.since = now_ms()
        self.answered_at: int | None = None
        self._since = 0.0
        self._recovered_at = -math.inf

    def failed(self, now: float, answer: str = "", asked_at: float | None = None) -> None:
        """A request failed; `answer` is the partner's ("HTTP 503"), "" if none came. One that was
        asked before an outage ended belongs to that one, however late it fails."""
        if not self.count and asked_at is not None and asked_at <= self._recovered_at:
            return
        self.count += 1
        self._become(False)
        if self.count > 1:
            return
        self._since = now
        if answer:
            LOG.error(text("connector.unready", host=self.host, system=self.system, answer=answer))
        else:
            LOG.error(text("connector.unreachable", host=self.host, system=self.system))

    def recovered(self, now: float) -> None:
        """The system answers; says so if it did not before."""
        self._become(True)
        self.answered_at = now_ms()
        if self.count:
            seconds = round(now - self._since, 1)
            LOG.info(
                text(
                    "connector.recovered",
                    host=self.host,
                    system=self.system,
                    count=self.count,
                    seconds=seconds,
                )
            )
            self._recovered_at = now
        self.count = 0

    def _become(self, up: bool) -> None:
        if up != self.up:
            self.up, self.since = up, now_ms()
