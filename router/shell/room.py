"""Room on the disk: how much may still be accepted, and for whom.

Below `free_bytes_min` new messages are refused, emergencies last: what lies between that and a
quarter of it is theirs, and the last quarter belongs to the outcomes of what was accepted. Pages
inside the journal that pruning has emptied are room like any other, as long as the log beside it
can grow. Half of `free_bytes_min` is set aside in a file, so that other programs cannot take it,
and is given back when less is left; as much again is kept for a start, which takes the log into the
journal, and given back by nothing else.
"""

import contextlib
import logging
import os
from pathlib import Path
from typing import Final

from proto.wording import text
from router.shell.ballast import FILE, Ballast

BALLAST_SHARE: Final = 2  # of free_bytes_min
START_SHARE: Final = 2  # kept for a start
OUTCOMES_SHARE: Final = 4  # of free_bytes_min: not even emergencies may take it
RESERVE_FILE: Final = "journal.reserve"
# Free space must come back by this factor before publishers are let in again: no flapping.
FREE_AGAIN: Final = 1.25
UNBOUNDED: Final = 2**62
log = logging.getLogger("smpbus.router")


class Room:
    """The disk of the journal's folder; `least` is `free_bytes_min`, 0 judges nothing."""

    def __init__(self, folder: Path, least: int) -> None:
        self._folder = folder
        self._least = least
        self._ballast = Ballast(folder, least // BALLAST_SHARE, FILE)
        self._reserve = Ballast(folder, least // START_SHARE, RESERVE_FILE)
        self.free_bytes = 0  # on the disk
        self.inside_bytes = 0  # in the journal's empty pages
        self.is_full = False

    @property
    def urgent_bytes(self) -> int:
        """Return how many bytes emergencies may take beyond what all may."""
        return self._least - self._least // OUTCOMES_SHARE

    def measure(self) -> None:
        """Look how much is free, and give back what is set aside when that is little."""
        status = os.statvfs(self._folder)
        self.free_bytes = status.f_bavail * status.f_frsize
        if self._ballast.watch(self.free_bytes):
            log.error(text("router.ballast", folder=self._folder))

    def make_way(self) -> None:
        """See to it that a start can write: it takes the log into the journal, which may grow."""
        self.measure()
        if self._reserve.watch(self.free_bytes):
            log.warning(text("router.reserve", folder=self._folder))

    def judge(self, waiting_bytes: int) -> int:
        """Return how many bytes may be accepted until it is judged again; less than 0 when only
        emergencies are taken. `waiting_bytes` are accepted and not on the disk yet."""
        self.measure()
        if not self._least:
            return UNBOUNDED
        room = self.free_bytes - waiting_bytes
        if room >= self._least // OUTCOMES_SHARE:  # the log can grow
            room += self.inside_bytes
        wanted = int(self._least * FREE_AGAIN) if self.is_full else self._least
        full = room < wanted
        if full != self.is_full:
            self.is_full = full
            key = "router.disk_full" if full else "router.disk_free"
            log.log(
                logging.ERROR if full else logging.INFO,
                text(key, folder=self._folder, free=room >> 20, want=wanted >> 20),
            )
        elif self.free_bytes >= 2 * wanted:  # taking it must not fill the disk
            for kept in (self._ballast, self._reserve):
                with contextlib.suppress(OSError):  # it is taken later
                    kept.take()
        return min(room - self._least, -1) if full else room - self._least
