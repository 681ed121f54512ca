"""What libraries would write to the log: nothing of their own words.

A library's sentence or traceback may quote what it was working on: a name, a birth date, a body.
So no word of any of them is written, whichever it is and wherever it comes from: an error leaves a
line with the place in its code and the kind of exception, everything less leaves none.
"""

import logging
from typing import Any, Final

from proto.wording import text

OURS: Final = "smpbus"
_make: Final = logging.LogRecord


def is_ours(record: logging.LogRecord) -> bool:
    """Whether a record is the project's own, or an error of a library: all that may be written."""
    return _is_own(record.name) or record.levelno >= logging.ERROR


def record_without_words(
    name: Any, level: Any, path: str, line: int, message: object, args: Any, exc_info: Any,
    *rest: Any, **more: Any,
) -> logging.LogRecord:  # fmt: skip
    """Make a log record (see logging.setLogRecordFactory); a library's has no words of its own."""
    if name is None or _is_own(name):  # None: a copy of another one is being made
        return _make(name, level, path, line, message, args, exc_info, *rest, **more)
    kind = exc_info[0].__name__ if isinstance(exc_info, tuple) and exc_info[0] else "-"
    where = f"{path.rpartition('/')[2]}:{line}"
    told = text("log.library", name=name, where=where, kind=kind)
    return _make(name, level, path, line, told, None, None)  # nor its stack


def close_to_strangers(handler: logging.Handler) -> None:
    """Let `handler`, and every other one of this process, write nothing that a library says."""
    logging.setLogRecordFactory(record_without_words)
    handler.addFilter(is_ours)


def _is_own(name: str) -> bool:
    return name.partition(".")[0] == OURS
