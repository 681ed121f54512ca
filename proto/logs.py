"""Log lines as the administrator reads them: to stderr, errors and warnings marked by a word.

The word comes from the texts (`ОШИБКА`, `ПРЕДУПРЕЖДЕНИЕ`), so that one search finds every error of
every process, in journald and in files alike. The time is left to journald when it listens.
"""

import logging
import os
import sys
from typing import Final

from proto.wording import text

# Libraries say per request what we say once per outage, and may quote what they were sent.
QUIET: Final = ("httpx", "httpcore", "zmq", "uvicorn", "asyncio")


class LineFormatter(logging.Formatter):
    """`2026-11-23T10:51:37+0300 ОШИБКА: sentence`; without the time under journald."""

    def __init__(self) -> None:
        timed = "" if "JOURNAL_STREAM" in os.environ else "%(asctime)s "
        super().__init__(f"{timed}%(message)s", datefmt="%Y-%m-%dT%H:%M:%S%z")

    def format(self, record: logging.LogRecord) -> str:
        """See logging.Formatter. A log line is one line: what would break it is escaped."""
        marked = logging.makeLogRecord(record.__dict__)
        marked.msg = _mark(record.levelno, record.getMessage()).replace("\n", "\\n")
        marked.args = None
        return super().format(marked)


def _mark(level: int, sentence: str) -> str:
    if level >= logging.ERROR:
        return text("log.error", sentence=sentence)
    if level >= logging.WARNING:
        return text("log.warning", sentence=sentence)
    return sentence


def configure_logs(level: str = "info") -> None:
    """Send this process's log lines to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(LineFormatter())
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name in QUIET:
        logging.getLogger(name).setLevel(logging.ERROR)
