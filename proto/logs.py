"""Log lines as the administrator reads them: to stderr, errors and warnings marked by a word.

The word comes from the texts (`ОШИБКА`, `ПРЕДУПРЕЖДЕНИЕ`), so that one search finds every error of
every process, in journald and in files alike. The time is left to journald when it listens.

Logging never blocks: lines go through a queue to a thread of their own. When the reader of stderr
stands still, what does not fit is dropped and counted; a warning that repeats is written a few
times and then only counted.
"""

import io
import logging
import os
import queue
import select
import signal
import sys
import threading
import time
from typing import Final

from .strangers import close_to_strangers, kind_and_places
from .visible import visible
from .wording import text

# Libraries say per request what we say once per outage, and may quote what they were sent.
QUIET: Final = ("httpx", "httpcore", "zmq", "uvicorn", "asyncio")
LINES_MAX: Final = 1_000  # that wait to be written
LINE_LENGTH_MAX: Final = 8_192
EQUAL_MAX: Final = 5  # warnings of the same words within a minute; the rest is counted
EQUAL_S: Final = 60.0
KNOWN_MAX: Final = 500
LOOK_S: Final = 1.0
LAST_S: Final = 1.0  # what is still to be written at the end is given so long


class LineFormatter(logging.Formatter):
    """`2026-11-23T10:51:37+0300 ОШИБКА: sentence`; without the time under journald."""

    def __init__(self) -> None:
        timed = "" if "JOURNAL_STREAM" in os.environ else "%(asctime)s "
        super().__init__(f"{timed}%(message)s", datefmt="%Y-%m-%dT%H:%M:%S%z")

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter. A log line is one line: what would break it is escaped, and
        of an exception the kind and the places are told, never its text."""
        marked = logging.makeLogRecord(record.__dict__)
        said = record.getMessage()[:LINE_LENGTH_MAX]
        if isinstance(record.exc_info, tuple) and record.exc_info[0] is not None:
            said = f"{said} ({kind_and_places(record.exc_info[0], record.exc_info[2])})"
        marked.msg = visible(_mark(record.levelno, said))
        marked.args = marked.exc_info = marked.exc_text = marked.stack_info = None
        return super().format(marked)


class UnhurriedHandler(logging.Handler):
    """Writes to a descriptor from a thread of its own; see the module. `lost` counts the lines that
    were dropped because nobody read."""

    def __init__(self, descriptor: int) -> None:
        super().__init__()
        self.lost = 0
        self._descriptor = descriptor
        self._lines: queue.Queue[str | None] = queue.Queue(LINES_MAX)
        self._equal: dict[tuple[int, str], list[float]] = {}  # since, how many
        self._told = 0
        self._counted_at = time.monotonic()
        self._thread = threading.Thread(target=self._run, name="log", daemon=True)
        # A signal is for the threads of the program: this one must never be found to take it.
        masked = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
        try:
            self._thread.start()
        finally:
            signal.pthread_sigmask(signal.SIG_SETMASK, masked)

    def emit(self, record: logging.LogRecord) -> None:
        """See logging.Handler."""
        try:
            if record.levelno < logging.WARNING or self._is_new(record):
                self._put(self.format(record))
        except Exception:
            self.handleError(record)

    def flush(self) -> None:
        """Give what waits a moment to be written; never longer."""
        over_at = time.monotonic() + LAST_S
        while not self._lines.empty() and time.monotonic() < over_at:
            time.sleep(0.002)

    def close(self) -> None:
        """See logging.Handler: the last counts are told, if anybody reads."""
        with self.lock or threading.Lock():
            self._tell_counts(every=True)
        self._put(None)
        self._thread.join(LAST_S)
        super().close()

    def _put(self, line: str | None) -> None:
        try:
            self._lines.put_nowait(line)
        except queue.Full:
            self.lost += 1

    def _is_new(self, record: logging.LogRecord) -> bool:
        """Whether a warning or an error is to be written, not only counted."""
        words = (record.levelno, record.getMessage())
        now = time.monotonic()
        if now - self._counted_at >= LOOK_S:
            self._tell_counts()
        seen = self._equal.get(words)
        if seen is None:
            if len(self._equal) >= KNOWN_MAX:
                del self._equal[next(iter(self._equal))]
            self._equal[words] = [now, 1]
            return True
        seen[1] += 1
        return seen[1] <= EQUAL_MAX

    def _tell_counts(self, every: bool = False) -> None:
        self._counted_at = now = time.monotonic()
        over = [words for words, seen in self._equal.items() if every or now - seen[0] >= EQUAL_S]
        for level, sentence in over:
            count = int(self._equal.pop((level, sentence))[1]) - EQUAL_MAX
            if count > 0:
                self._say(level, text("log.repeated", count=count, sentence=sentence))

    def _say(self, level: int, sentence: str) -> None:
        self._put(self.format(logging.LogRecord("smpbus", level, "", 0, sentence, None, None)))

    def _run(self) -> None:
        while True:
            try:
                line = self._lines.get(timeout=LOOK_S)
            except queue.Empty:
                with self.lock or threading.Lock():
                    self._tell_counts()
                continue
            if line is None:
                return
            if self.lost > self._told:
                count, self._told = self.lost - self._told, self.lost
                lost = logging.LogRecord(
                    "smpbus", logging.WARNING, "", 0, text("log.lost", count=count), None, None
                )
                self._write(self.format(lost))
            self._write(line)

    def _write(self, line: str) -> None:
        rest = f"{line}\n".encode(errors="backslashreplace")
        while rest:
            try:
                rest = rest[os.write(self._descriptor, rest) :]
            except BlockingIOError:
                select.select([], [self._descriptor], [])
            except OSError:
                return  # nobody is there to read


def lost_lines() -> int:
    """Return how many lines of this process were dropped, since nobody read them."""
    handlers = logging.getLogger().handlers
    return sum(one.lost for one in handlers if isinstance(one, UnhurriedHandler))


def _mark(level: int, sentence: str) -> str:
    if level >= logging.ERROR:
        return text("log.error", sentence=sentence)
    if level >= logging.WARNING:
        return text("log.warning", sentence=sentence)
    return sentence


def configure_logs(level: str = "info") -> None:
    """Send this process's log lines to stderr, without waiting for who reads them."""
    try:
        handler: logging.Handler = UnhurriedHandler(sys.stderr.fileno())
    except (AttributeError, OSError, io.UnsupportedOperation):  # stderr is no file here
        handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    close_to_strangers(handler)
    root = logging.getLogger()
    for old in root.handlers:
        old.close()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)
