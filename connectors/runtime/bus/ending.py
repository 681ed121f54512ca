"""The end of a process, within a bound, whatever hangs.

SIGTERM is heard by a thread of its own, also while the loop stands still in a call to a dead disk;
and what does not let go in time (a library's thread, a resolver, a plug-in) is left behind. The
router gives what was in our hands to the next process, as after any loss.
"""

import asyncio
import contextlib
import os
import signal
import threading
from collections.abc import Callable
from typing import Final

from connectors.runtime.log import LOG
from connectors.runtime.outside import hanging
from proto.wording import text

SIGNALS: Final = {signal.SIGTERM, signal.SIGINT}
SPARE_S: Final = 0.9  # for closing, after what is under way had its time
TELL_S: Final = 0.2


class Ending:
    """To be made in the main thread, before others are: they inherit that signals are ours."""

    def __init__(self) -> None:
        self._asked = threading.Event()
        self._wake: Callable[[], None] | None = None
        self.within_s = 4.0
        signal.pthread_sigmask(signal.SIG_BLOCK, SIGNALS)
        threading.Thread(target=self._listen, name="signals", daemon=True).start()

    def event(self) -> asyncio.Event:
        """Return what is set when the process is to end."""
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()

        def wake() -> None:
            with contextlib.suppress(RuntimeError):  # the loop is closed: we are ending already
                loop.call_soon_threadsafe(stop.set)

        self._wake = wake
        if self._asked.is_set():
            wake()
        return stop

    def soon(self, status: int) -> None:
        """The work is over: end with `status`, shortly, if what is left does not end by itself."""
        self._after(SPARE_S, status)

    def _listen(self) -> None:
        signal.sigwait(SIGNALS)
        self._asked.set()
        if self._wake is not None:
            self._wake()
        self._after(self.within_s + SPARE_S - TELL_S, os.EX_OK)

    def _after(self, seconds: float, status: int) -> None:
        timer = threading.Timer(seconds, _leave, (status,))
        timer.daemon = True
        timer.start()


def _leave(status: int) -> None:
    """End now. The line is told by another thread: it may be the log that hangs."""
    teller = threading.Thread(target=_tell, daemon=True)
    teller.start()
    teller.join(TELL_S)
    os._exit(status)


def _tell() -> None:
    what = ", ".join(sorted(hanging())) or "-"
    LOG.warning(text("connector.left_behind", what=what))
