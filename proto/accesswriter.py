"""The thread that records accesses, in order and many at a time, beside any event loop.

A full disk must not stop an emergency: what cannot be written is kept in memory, counted, reported
as an error, and written once the disk has room again. An access is refused only when that memory
is full.
"""

import logging
import queue
import threading
import time
from concurrent.futures import Future
from typing import Final

from .accesses import Access, AccessFiles, Head
from .wording import text

HELD_MAX: Final = 10_000  # lines, some megabytes
GROUP: Final = 512
AGAIN_S: Final = 1.0
TELL_S: Final = 3600.0
CLOSE_S: Final = 3.0

log = logging.getLogger("smpbus.access")
_Work = tuple[list[Access], "Future[bool]"]


class AccessWriter:
    """Writes to one journal of accesses until closed."""

    def __init__(self, files: AccessFiles) -> None:
        self._files = files
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._held: list[Access] = []
        self._told = Head()
        self._told_at = 0.0
        self.reason = ""  # why nothing can be written, "" if it can
        self.written = 0
        self.lost = 0
        self._thread = threading.Thread(target=self._run, name="accesses", daemon=True)
        self._thread.start()

    @property
    def held(self) -> int:
        """How many lines wait in memory for the disk."""
        return len(self._held)

    def figures(self) -> dict[str, object]:
        """Return the counters, and why nothing can be written."""
        held = {"held": self.held, "lost": self.lost, "reason": self.reason}
        return {"written": self.written, **held}

    def put(self, accesses: list[Access]) -> "Future[bool]":
        """Write lines down; the answer is whether they are kept, on the disk or for it."""
        kept: Future[bool] = Future()
        self._work.put((accesses, kept))
        return kept

    def close(self) -> None:
        """Write what is there, tell the head, and end."""
        self._work.put(None)
        self._thread.join(CLOSE_S)

    def _run(self) -> None:
        going = True
        while going:
            group: list[_Work] = []
            try:
                first = self._work.get(timeout=AGAIN_S if self._held else TELL_S)
                going = first is not None
                if first is not None:
                    group.append(first)
                while going and len(group) < GROUP:
                    more = self._work.get_nowait()
                    going = more is not None
                    if more is not None:
                        group.append(more)
            except queue.Empty:
                pass
            self._write(group)
            self._tell(last=not going)
        self._files.close()

    def _write(self, group: list[_Work]) -> None:
        lines = [*self._held, *(line for lines, _ in group for line in lines)]
        try:
            if lines:
                self._files.append(lines)
        except OSError as error:
            self._hold(group, error)
            return
        if lines and self._files.was_cut:
            self._files.was_cut = False
            log.error(text("access.cut", name=self._files.name, folder=self._files.folder))
        self.written += len(lines)
        if lines and self.reason:
            log.info(text("access.back", name=self._files.name, count=len(self._held)))
            self.reason = ""
        self._held = []
        for _, kept in group:
            _answer(kept, True)

    def _hold(self, group: list[_Work], error: OSError) -> None:
        reason = error.strerror or type(error).__name__
        if not self.reason:
            where = {"name": self._files.name, "folder": self._files.folder}
            log.error(text("access.away", reason=reason, **where))
        self.reason = reason
        for lines, kept in group:
            is_kept = len(self._held) + len(lines) <= HELD_MAX
            if is_kept:
                self._held = [*self._held, *lines]
            else:
                self.lost += len(lines)
            _answer(kept, is_kept)

    def _tell(self, last: bool) -> None:
        """Tell the head in the log, at the end and once an hour: whoever may write to the journal
        may not write there."""
        head, now = self._files.head, time.monotonic()
        if head != self._told and (last or not self._told.n or now - self._told_at >= TELL_S):
            self._told, self._told_at = head, now
            log.info(text("access.head", name=self._files.name, n=head.n, seal=head.seal[:32]))


def _answer(kept: "Future[bool]", value: bool) -> None:
    if kept.set_running_or_notify_cancel():
        kept.set_result(value)
