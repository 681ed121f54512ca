"""Lines of one kind: the first is written, what follows within a minute is counted.

Who sends nonsense a thousand times has told us once. A kind is a word of ours, never of a partner,
so that there are few of them.
"""

from dataclasses import dataclass
from functools import partial
from typing import Final

from connectors.runtime.log import LOG
from proto import clock
from proto.wording import text

WINDOW_S: Final = 60.0
LINES: Final = 10  # of one kind in a window: one line would hide another field


@dataclass
class _Kind:
    written: set[str]
    more: int = 0


class Counted:
    """Writes lines, and counts those that are too many of their kind; needs a running loop."""

    def __init__(self, window_s: float = WINDOW_S) -> None:
        self._window_s = window_s
        self._kinds: dict[str, _Kind] = {}

    def warning(self, kind: str, line: str) -> None:
        """Write a warning, or count it: an equal line of this minute, or one too many of them."""
        known = self._kinds.get(kind)
        if known is None:
            known = self._kinds[kind] = _Kind(set())
            clock.call_later(self._window_s, partial(self._end, kind))
        if line in known.written or len(known.written) >= LINES:
            known.more += 1
            return
        known.written.add(line)
        LOG.warning(line)

    def _end(self, kind: str) -> None:
        known = self._kinds.pop(kind)
        if known.more:
            seconds = f"{self._window_s:g}"
            line = text("connector.repeated", count=known.more, seconds=seconds, kind=kind)
            LOG.warning(line)
