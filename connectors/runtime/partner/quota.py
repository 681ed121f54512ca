"""A partner's limit of requests a minute, shared by every process that asks it."""

import fcntl
import os
import stat
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Final

from connectors.runtime.outside import Outside
from connectors.runtime.ownfile import refuse_link
from connectors.runtime.partner.limiter import Limiter
from proto import clock
from proto.exits import StartError

LOCK_S: Final = 10.0
STATE: Final = struct.Struct("<dd")


class Quota:
    """At most `per_minute` requests in any 60 seconds, `burst` of them at once.

    `file` is shared by the processes of this machine, and outlives them: a restart gives no second
    burst. None keeps the count in this object.
    """

    def __init__(
        self, per_minute: int, burst: int = 5, file: Path | None = None, lock_s: float = LOCK_S
    ) -> None:
        """Raises StartError when `file` cannot be opened."""
        burst = max(1, min(burst, per_minute // 2))
        # A full bucket and what drips in meanwhile are, together, what a minute may bring.
        self._limiter = Limiter(max(per_minute - burst, 1) / 60, burst)
        self._file: int | None = None
        self._waiting = Outside("quota file", lock_s)
        if file is not None:
            try:
                refuse_link(file)
                self._file = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
                _share(self._file, file.parent)
            except OSError as error:
                raise StartError(f"{file}: {error.strerror}") from None

    async def take(self) -> None:
        """Wait for this request's turn. Raises Retry when the file hangs, or its lock."""
        if self._file is None:
            wait_s = self._limiter.take(clock.monotonic())
        else:
            wait_s = await self._waiting.call(self.reserve, clock.monotonic())
        await clock.sleep(wait_s)

    def reserve(self, now: float) -> float:
        """Take the next place in the line of all processes; return the seconds until its turn.

        `now` is the machine's monotonic clock, in seconds.
        """
        return self._turn(self._limiter.take, now)

    def admit(self, now: float) -> float:
        """Take a place if there is one now and return 0; else take none, and return the seconds
        until there is one."""
        return self._turn(self._limiter.admit, now)

    def _turn(self, take: Callable[[float], float], now: float) -> float:
        if self._file is None:
            return take(now)
        fcntl.flock(self._file, fcntl.LOCK_EX)
        try:
            kept = os.pread(self._file, STATE.size, 0)
            if len(kept) == STATE.size:
                tokens, at = STATE.unpack(kept)
                self._limiter.state = _sane(tokens, at, now)
            wait_s = take(now)
            os.pwrite(self._file, STATE.pack(*self._limiter.state), 0)
        finally:
            fcntl.flock(self._file, fcntl.LOCK_UN)
        return wait_s

    def close(self) -> None:
        """Let go of the file."""
        if self._file is not None:
            os.close(self._file)
            self._file = None


def _share(file: int, folder: Path) -> None:
    """Let the folder's group use a file of ours, if the folder is for it: where each connector is a
    user of its own they could not keep a limit together."""
    if os.stat(folder).st_mode & stat.S_IWGRP and os.fstat(file).st_uid == os.geteuid():
        os.fchmod(file, 0o660)


def _sane(tokens: float, at: float, now: float) -> tuple[float, float]:
    """Return the state of the file; one from before a reboot, whose clock began anew, or one that
    cannot be, counts as an empty bucket."""
    if 0 <= at <= now and -100_000 < tokens < 100_000:
        return tokens, at
    return 0.0, now
