"""What a partner's input may say that not every system behind us can hold: characters that are
none, times at the end of all time. Pure.

A door refuses it by the name of its field. Of an emergency it is mended: the field is told, and the
emergency is taken.
"""

import re
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

import msgspec

# Controls but for tab and line ends; what turns the direction of a text, so that a person reads
# another one than there is; halves of a character, and what Unicode calls no character.
ODD: Final = re.compile(
    r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ud800-\udfff\ufffe\uffff]"
)
# In the bytes of JSON: may there be any? Escapes may hide them.
_MAYBE: Final = re.compile(
    rb"\\(?:[bf]|u(?:00[0-9a-fA-F]{2}|20[26]|[dD][89a-fA-F]|[fF]{3}))"
    rb"|\x7f|\xc2[\x80-\x9f]|\xe2\x80[\xaa-\xae]|\xe2\x81[\xa6-\xa9]|\xef\xbf[\xbe\xbf]"
)
# The name of a field, or an index: what a partner calls a field of its own may be anything else.
_FIT: Final = re.compile(r"[A-Za-z_@:][A-Za-z0-9_:@-]{0,63}|\[(?:[0-9]{1,7}|\.\.\.)\]")
_PART: Final = re.compile(r"\[[^\]]*\]|[^.\[]+")
CHARACTERS: Final = "has a control character, or one that is none"
TIME: Final = "is a time that cannot be represented"
_FIRST: Final = datetime.min.replace(tzinfo=UTC) + timedelta(days=1)
_LAST: Final = datetime.max.replace(tzinfo=UTC) - timedelta(days=1)
_SHOWN_MAX: Final = 5


class Odd(NamedTuple):
    """A field, by its path, and what is wrong with it."""

    path: str
    rule: str


def may_be_odd(body: bytes) -> bool:
    """Whether it is worth looking at what `body`, JSON, says; True may be wrong, False is not."""
    return _MAYBE.search(body) is not None


def oddities(value: Any, path: str = "") -> Iterator[Odd]:
    """Yield what is odd in decoded JSON; typed times in it are judged too."""
    if isinstance(value, str) and ODD.search(value):
        yield Odd(path, CHARACTERS)
    elif isinstance(value, dict):
        for key, one in value.items():
            if ODD.search(str(key)):
                yield Odd(_join(path, "?"), CHARACTERS)
            else:
                yield from oddities(one, _join(path, fit_path(str(key).replace(".", "?"))))
    elif isinstance(value, list):
        for index, one in enumerate(value):
            yield from oddities(one, f"{path}[{index}]")
    elif isinstance(value, datetime) and not is_representable(value):
        yield Odd(path, TIME)


def odd_times(typed: Any) -> Iterator[Odd]:
    """Yield the times of a struct that cannot be represented in every zone."""
    # msgspec does not encode what is still raw; whoever reads a payload judges its times.
    plain = msgspec.to_builtins(typed, builtin_types=(datetime,), enc_hook=lambda _: None)
    return (odd for odd in oddities(plain) if odd.rule is TIME)


def is_representable(time: datetime) -> bool:
    """Whether a time can be told in every zone: it is not of the first nor of the last day."""
    try:
        return _FIRST < time.astimezone(UTC) < _LAST
    except (OverflowError, ValueError):
        return False


def mended(value: Any) -> Any:
    """Return decoded JSON without what is odd: control characters are gone or a space, halves of a
    character become the mark for one that was lost."""
    if isinstance(value, str):
        return ODD.sub(_instead, value)
    if isinstance(value, dict):
        return {ODD.sub(_instead, str(key)): mended(one) for key, one in value.items()}
    if isinstance(value, list):
        return [mended(one) for one in value]
    return value


def told(odd: list[Odd]) -> str:
    """Return which fields are odd, for people."""
    shown = ", ".join(one.path for one in odd[:_SHOWN_MAX])
    return shown if len(odd) <= _SHOWN_MAX else f"{shown} (+{len(odd) - _SHOWN_MAX})"


def fit_path(path: str) -> str:
    """Return a path fit for a log: a part that is no name of a field, and no index, is "?"."""
    return _PART.sub(lambda part: part[0] if _FIT.fullmatch(part[0]) else "?", path)


def _instead(found: "re.Match[str]") -> str:
    character = found[0]
    if character == "\x00" or "\u202a" <= character <= "\u2069":
        return ""
    return " " if character < "\u2000" else "\ufffd"


def _join(path: str, name: str) -> str:
    return f"{path}.{name}" if path else name
