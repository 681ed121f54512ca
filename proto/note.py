"""A note: why a delivery ended or comes again, as a code with fields. Pure.

`connector.untold system=112` is what goes over the wire and into the journal; readers see it in
words of their own language (`proto.wording.in_words`). A value that is more than letters, digits
and `_./@+-` is a JSON string, and may be a note itself. Notes that belong together are joined by
": " (the second says more of the first) or "; " (it came later).

A note may be any text, too: that of a partner, of an operator, of an earlier version or a client in
another language. It is shown as it is.
"""

import re
from collections.abc import Callable, Mapping
from typing import Final

import msgspec

from .visible import visible

VALUE_LENGTH_MAX: Final = 120  # characters: a note has to fit into a settlement whole
_STRING: Final = r'"(?:[^"\\]|\\.)*"'
_PLAIN: Final = r"[A-Za-z0-9_./@+-]+"
_FIELD: Final = rf"([a-z_]+)=({_PLAIN}|{_STRING})"
_is_plain: Final = re.compile(_PLAIN).fullmatch
_field: Final = re.compile(_FIELD)
# Where one begins, and where the next one may.
_coded: Final = re.compile(
    rf"(?:\A|(?<=[:;] ))([a-z][a-z0-9]*\.[a-z][a-z0-9_]*)((?: {_FIELD})*)(?=[:;] |\Z)"
)


def coded(code: str, /, **fields: object) -> str:
    """Return a note of a code, "OWNER.WHAT", and its fields. It has no personal data: whoever may
    look at the bus reads it. A value that is too long is cut."""
    return " ".join((code, *(f"{name}={_written(str(it))}" for name, it in fields.items())))


def translated(text: str, words: Callable[[str, Mapping[str, str]], str | None]) -> str:
    """Return `text` with the words for each coded note in it; `words(code, fields)` returns None
    for a code that it does not know, or of which fields are missing."""

    def replace(found: re.Match[str]) -> str:
        fields = {name: translated(_read(value), words) for name, value in _field.findall(found[2])}
        told = words(found[1], fields)
        return found[0] if told is None else told

    return _coded.sub(replace, text)


def code_of(text: str) -> str:
    """Return the code with which a note begins, "" when it begins with words."""
    found = _coded.match(text)
    return found[1] if found else ""


def _written(value: str) -> str:
    if _is_plain(value):
        return value
    text = value[:VALUE_LENGTH_MAX].encode("utf-8", "replace").decode()
    return msgspec.json.encode(text).decode()


def _read(value: str) -> str:
    # What was escaped in the string must not steer a terminal when it is not any more.
    if not value.startswith('"'):
        return value
    try:
        return visible(msgspec.json.decode(value, type=str))
    except msgspec.DecodeError:
        return value
