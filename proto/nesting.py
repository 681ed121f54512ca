"""How deeply JSON from outside may be nested: the same everywhere and on every Python.

The interpreter's own limit is some thousands and differs between versions, so one machine would
pass on what another refuses. JSON that somebody else wrote is always read with `decode_json`.
"""

import re
from itertools import accumulate
from typing import Any, Final, TypeVar, overload

import msgspec

DEPTH_MAX: Final = 64

# A string, up to its end or that of the text; brackets in it nest nothing.
_STRING: Final = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_OTHERS: Final = bytes(set(range(256)) - set(b"[]{}"))
_STEPS: Final = bytes.maketrans(b"[{]}", b"\x01\x01\xff\xff")  # one down, one up, as signed bytes

Shape = TypeVar("Shape")


class TooDeep(RecursionError):
    """JSON that is nested more than DEPTH_MAX deep."""

    def __init__(self) -> None:
        super().__init__("nested too deeply")


def check_depth(data: bytes | str) -> None:
    """Raise TooDeep for JSON that is nested more than DEPTH_MAX deep. Whether it is JSON at all is
    left to whoever decodes it."""
    raw = data if isinstance(data, bytes) else data.encode("utf-8", "surrogatepass")
    if raw.count(b"[") + raw.count(b"{") <= DEPTH_MAX:
        return
    steps = _STRING.sub(b"", raw).translate(_STEPS, _OTHERS)
    if max(accumulate(memoryview(steps).cast("b")), default=0) > DEPTH_MAX:
        raise TooDeep


@overload
def decode_json(data: bytes | str) -> Any: ...


@overload
def decode_json(data: bytes | str, type: type[Shape], *, strict: bool = True) -> Shape: ...


def decode_json(data: bytes | str, type: Any = Any, *, strict: bool = True) -> Any:
    """Return JSON from outside as `type`. Raises TooDeep, msgspec.DecodeError (ValidationError when
    it is of another shape) or UnicodeDecodeError: all of them are `UNREADABLE` of `message`."""
    check_depth(data)
    return msgspec.json.decode(data, type=type, strict=strict)
