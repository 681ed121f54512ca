"""One TOML file of the configuration: its tree, and on which line each key stands.

tomllib gives values without their places, and an administrator who is woken at night is helped
by "line 7", so the text is scanned once more for the key when there is something to say about it.
"""

import re
import tomllib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

KeyPath = tuple[str | int, ...]

_HEADER: Final = re.compile(r"""\s*(\[\[?)\s*([^\[\]]+?)\s*\]""")
_KEY: Final = re.compile(r"""\s*((?:[A-Za-z0-9_-]+|"[^"]*"|'[^']*')(?:\s*\.\s*[^=\s]+)*)\s*=""")
_PART: Final = re.compile(r""""([^"]*)"|'([^']*)'|([A-Za-z0-9_-]+)""")
_AT_LINE: Final = re.compile(r"\s*\(at (?:line ([0-9]+), column [0-9]+|end of document)\)")


class TomlError(Exception):
    """The file is not TOML: `reason` in tomllib's words, `line` where it stopped, if known."""

    def __init__(self, reason: str, line: int | None) -> None:
        super().__init__(reason)
        self.reason = reason
        self.line = line


@dataclass(frozen=True)
class TomlFile:
    """A parsed file; `tree` is what tomllib made of `text`."""

    path: Path
    text: str
    tree: dict[str, Any]

    @classmethod
    def read(cls, path: Path) -> "TomlFile":
        """Read and parse. Raises OSError, or TomlError for what is not UTF-8 or not TOML."""
        raw = path.read_bytes()
        try:
            text = raw.decode("utf-8-sig")
        except UnicodeDecodeError as error:
            raise TomlError("not UTF-8", raw.count(b"\n", 0, error.start) + 1) from None
        try:
            return cls(path, text, tomllib.loads(text))
        except tomllib.TOMLDecodeError as error:
            raise _toml_error(str(error), text) from None

    @cached_property
    def _lines(self) -> dict[KeyPath, int]:
        return lines_of(self.text)

    def line(self, key: KeyPath) -> int | None:
        """Return the line of `key`, see `find_line`."""
        return _nearest(self._lines, key)


def find_line(text: str, key: KeyPath) -> int | None:
    """Return the line (from 1) where `key` is set; that of its nearest parent when it is not set
    by a line of its own (an element of a list, a key that is missing); None when there is none.

    Tables of an array are addressed by their index: ("routes", 1, "to").
    """
    return _nearest(lines_of(text), key)


def _nearest(lines: dict[KeyPath, int], key: KeyPath) -> int | None:
    for length in range(len(key), 0, -1):
        if (line := lines.get(key[:length])) is not None:
            return line
    return None


def lines_of(text: str) -> dict[KeyPath, int]:
    """Return the line where each table begins and each key is set, the first one where it is
    several times."""
    table: KeyPath = ()
    tables_seen: dict[KeyPath, int] = {}
    found: dict[KeyPath, int] = {}
    for number, line in _plain_lines(text):
        if header := _HEADER.match(line):
            table = _table(header[1], _parts(header[2]), tables_seen)
            here = table
        elif assignment := _KEY.match(line):
            here = table + _parts(assignment[1])
            for length in range(len(table) + 1, len(here)):  # the tables that a dotted key makes
                found.setdefault(here[:length], number)
        else:
            continue
        found.setdefault(here, number)
    return found


def _plain_lines(text: str) -> list[tuple[int, str]]:
    """Number the lines and leave out those that lie inside a multi-line string."""
    lines = []
    inside = False
    for number, line in enumerate(text.splitlines(), 1):
        if not inside:
            lines.append((number, line))
        if (line.count('"""') + line.count("'''")) % 2:
            inside = not inside
    return lines


def _parts(dotted: str) -> tuple[str, ...]:
    return tuple(a or b or c for a, b, c in _PART.findall(dotted))


def _table(bracket: str, parts: tuple[str, ...], seen: dict[KeyPath, int]) -> KeyPath:
    table: KeyPath = ()
    for part in parts[:-1]:
        table = (*table, part)
        if table in seen:
            table = (*table, seen[table])
    table = (*table, *parts[-1:])
    if bracket == "[[":
        seen[table] = seen.get(table, -1) + 1
        return (*table, seen[table])
    return table


def _toml_error(message: str, text: str) -> TomlError:
    place = _AT_LINE.search(message)
    if place is None:
        return TomlError(message, None)
    line = int(place[1]) if place[1] else text.count("\n") + 1
    return TomlError(_AT_LINE.sub("", message), line)
