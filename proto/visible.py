"""Text from elsewhere, made safe for a terminal or a log: control characters are shown, not
obeyed."""

from typing import Any, Final

_STEERS: Final = (
    *range(0x20),  # C0: line feeds, escapes
    *range(0x7F, 0xA0),  # DEL and C1, which begins escapes as well
    *range(0x200B, 0x2010),  # marks of no width, and of direction
    0x2028,
    0x2029,
    *range(0x202A, 0x202F),
    *range(0x2066, 0x206A),
    0xFEFF,
)
_SHOWN: Final = {
    **{code: f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}" for code in _STEERS},
    10: "\\n",
    13: "\\r",
    9: "\\t",
}
_IN_JSON: Final = {code: f"\\u{code:04x}" for code in _STEERS if code >= 0x7F}


def visible(words: str) -> str:
    """Return the words on one line, with what steers a terminal written out (`\\x1b`)."""
    return words if words.isprintable() else words.translate(_SHOWN)


def visible_in(value: Any) -> Any:
    """Return a decoded JSON value with all its strings made visible."""
    if isinstance(value, str):
        return visible(value)
    if isinstance(value, dict):
        return {visible(key): visible_in(item) for key, item in value.items()}
    if isinstance(value, list):
        return [visible_in(item) for item in value]
    return value


def visible_json(document: str) -> str:
    """Return a JSON document that means the same, with nothing in it that steers a terminal."""
    return document.translate(_IN_JSON)
