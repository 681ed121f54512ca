"""Keeps the words of libraries out of the log.

A library's sentence or traceback may quote what it was working on: a name, a birth date, a body. So
none of them is written, whichever library it comes from: an error leaves a line with its place in
the code and the kind of exception; anything less than an error leaves no line.
"""

import logging
import sys
import threading
import traceback
from types import TracebackType
from typing import Any, Final

from .wording import text

OURS: Final = "smpbus"
PLACES_MAX: Final = 6
_log: Final = logging.getLogger(f"{OURS}.lost")
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
    where = f"{_file(path)}:{line}"
    told = text("log.library", name=name, where=where, kind=kind)
    return _make(name, level, path, line, told, None, None)  # nor its stack


def close_to_strangers(handler: logging.Handler) -> None:
    """Let `handler`, and every other one of this process, write nothing that a library says."""
    logging.setLogRecordFactory(record_without_words)
    handler.addFilter(is_ours)
    # The interpreter writes these to stderr by itself, with all their words.
    logging.captureWarnings(True)
    sys.excepthook = _of_main
    threading.excepthook = _of_thread
    sys.unraisablehook = _of_nobody


def kind_and_places(kind: type[BaseException], trace: TracebackType | None) -> str:
    """Return what may be told of an exception: its kind and where it was, innermost first."""
    frames = reversed(traceback.extract_tb(trace)[-PLACES_MAX:])
    return ", ".join([kind.__name__, *(f"{_file(one.filename)}:{one.lineno}" for one in frames)])


def _of_main(kind: type[BaseException], _: BaseException, trace: TracebackType | None) -> None:
    _log.critical(text("log.lost_exception", what=kind_and_places(kind, trace)))


def _of_thread(lost: threading.ExceptHookArgs) -> None:
    if not issubclass(lost.exc_type, SystemExit):
        _log.error(text("log.lost_exception", what=_lost(lost)))


def _of_nobody(lost: "sys.UnraisableHookArgs") -> None:
    _log.error(text("log.lost_exception", what=_lost(lost)))


def _lost(lost: "threading.ExceptHookArgs | sys.UnraisableHookArgs") -> str:
    return kind_and_places(lost.exc_type, lost.exc_traceback)


def _file(path: str) -> str:
    return path.rpartition("/")[2]


def _is_own(name: str) -> bool:
    return name.partition(".")[0] == OURS
