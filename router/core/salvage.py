"""What can be read of a SETTLE that breaks the rules: one bad settlement holds up no other."""

from contextlib import suppress
from typing import Any, Final

import msgspec

from proto.frames import (
    ACK,
    AFTER_MS_MAX,
    BATCH_LENGTH_MAX,
    NOTE_LENGTH_MAX,
    REJECT,
    RETRY,
    Settlement,
)
from proto.message import UNREADABLE

OUTCOMES: Final = (ACK, RETRY, REJECT)


class _Loose(msgspec.Struct, frozen=True, array_like=True):
    delivery: int
    outcome: Any = 0
    after_ms: Any = None
    note: Any = None
    generation: Any = None
    wish: Any = False


_read_all = msgspec.msgpack.Decoder(tuple[list[msgspec.Raw]]).decode
_read_one = msgspec.msgpack.Decoder(Settlement).decode
_read_loose = msgspec.msgpack.Decoder(_Loose).decode


def salvage(payload: bytes) -> list[Settlement]:
    """Read each settlement for itself; none when the payload is no list of them.

    A note that is too long is cut, a time beyond its bounds is brought within them, and what has an
    outcome that is none is to be tried again: it does not hang until the session ends.
    """
    try:
        (rows,) = _read_all(payload)
    except UNREADABLE:
        return []
    found: list[Settlement] = []
    for raw in rows[:BATCH_LENGTH_MAX]:
        with suppress(*UNREADABLE):
            found.append(_read(raw))
    return found


def _read(raw: msgspec.Raw) -> Settlement:
    try:
        return _read_one(raw)
    except UNREADABLE:
        return _mend(_read_loose(raw))


def _mend(loose: _Loose) -> Settlement:
    outcome = loose.outcome if loose.outcome in OUTCOMES else RETRY
    after_ms = loose.after_ms
    return Settlement(
        loose.delivery,
        int(outcome),
        min(max(after_ms, 0), AFTER_MS_MAX) if isinstance(after_ms, int) else None,
        loose.note[:NOTE_LENGTH_MAX] if isinstance(loose.note, str) else None,
        loose.generation if isinstance(loose.generation, str) else None,
        loose.wish is True,
    )
