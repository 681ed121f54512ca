"""The old product's environment file, read strictly, as settings of the connectors.

Programs disagree about such files: some take the words behind a value for a part of it, others
execute them. Here a line is NAME=VALUE and nothing else, and what is not is named by its line.
"""

import re
import tomllib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Annotated, Final, NamedTuple, TypeVar

import msgspec

from proto.wording import text

FILE: Final = "old_environment.toml"
SECONDS_MAX: Final = 3600
_LINE: Final = re.compile(r"(?:export\s+)?([A-Za-z_][A-Za-z0-9_]*)=(.*)")
_QUOTED: Final = re.compile(r"""(["'])(.*)\1""")
_HOST: Final = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]*[A-Za-z0-9_])?")
_PATH: Final = re.compile(r"/?[A-Za-z0-9._~/%-]*")
_TRUE: Final = {"true": True, "1": True, "on": True, "yes": True}
_FALSE: Final = {"false": False, "0": False, "off": False, "no": False}

Read = TypeVar("Read")
Names = Annotated[tuple[str, ...], msgspec.Meta(min_length=1)]


class Address(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An address that was several variables."""

    key: str
    protocol: Names
    host: Names
    port: Names
    path: Names


class Seconds(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A time."""

    key: str
    names: Names


class Known(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """config/old_environment.toml."""

    addresses: tuple[Address, ...]
    seconds: tuple[Seconds, ...]
    switches: dict[str, str]


class Value(NamedTuple):
    """A variable and the line that sets it."""

    line: int
    text: str


class Imported(NamedTuple):
    """`settings` by dotted key; `switches`: connectors that were on or off; names that are no
    setting any more; and what is wrong, a sentence a line (then nothing else counts)."""

    settings: dict[str, str | int]
    switches: dict[str, bool]
    unknown: list[str]
    problems: list[str]


def load_known(file: Path) -> Known:
    """Read the table of names, which comes with the program."""
    return msgspec.convert(tomllib.loads(file.read_text(encoding="utf-8")), Known)


def import_environment(lines: Iterable[str], known: Known) -> Imported:
    """Return what an environment file means now."""
    problems: list[str] = []
    values = _read(lines, problems)
    reader = _Reader(values, problems)
    settings: dict[str, str | int] = {}
    for address in known.addresses:
        if url := reader.url(address):
            settings[address.key] = url
    for one in known.seconds:
        seconds = reader.take(one.names, "seconds", _seconds)
        if seconds is not None:
            settings[one.key] = seconds
    switches: dict[str, bool] = {}
    for name, connector in known.switches.items():
        on = reader.take((name,), "switch", _switch)
        if on is not None:  # one of two that are on starts the connector
            switches[connector] = on or switches.get(connector, False)
    unknown = sorted(set(values) - reader.taken)
    return Imported(settings, switches, unknown, problems)


def _read(lines: Iterable[str], problems: list[str]) -> dict[str, Value]:
    values: dict[str, Value] = {}
    for number, raw in enumerate(lines, 1):
        line = raw.strip()
        if not line or line.startswith("#"):
            continue
        found = _LINE.fullmatch(line)
        if found is None:
            problems.append(text("import_env.no_line", line=number))
        elif found[1] in values:
            first = values[found[1]].line
            problems.append(text("import_env.twice", line=number, name=found[1], first=first))
        elif (value := _value(found[2].strip(), number, problems)) is not None:
            values[found[1]] = Value(number, value)
    return values


def _value(told: str, line: int, problems: list[str]) -> str | None:
    """Return a value without its quotes; None, and say why, when more than a value stands there."""
    if quoted := _QUOTED.fullmatch(told):
        return quoted[2]
    if told.endswith(";"):
        problems.append(text("import_env.semicolon", line=line))
    elif re.search(r"\s|#", told):
        problems.append(text("import_env.comment", line=line))
    elif told[:1] in ("'", '"'):
        problems.append(text("import_env.quote", line=line))
    else:
        return told
    return None


class _Reader:
    """Takes variables by name and says what is wrong with them."""

    def __init__(self, values: dict[str, Value], problems: list[str]) -> None:
        self._values = values
        self._problems = problems
        self.taken: set[str] = set()

    def take(self, names: Names, rule: str, read: Callable[[str], Read | None]) -> Read | None:
        """Return what the variable called one of `names` means; None when there is none, or when it
        breaks `rule`."""
        given = [name for name in names if name in self._values]
        if not given:
            return None
        self.taken.update(given)
        line, told = self._values[given[0]]
        for other in given[1:]:
            where = self._values[other].line
            self._problems.append(text("import_env.twice", line=where, name=other, first=line))
        found = read(told)
        if found is None:
            broken = text(f"import_env.rule_{rule}")
            self._problems.append(text("import_env.wrong", line=line, name=given[0], rule=broken))
        return found

    def url(self, address: Address) -> str | None:
        """Return an address of its parts; None when none of them is there, or one is wrong."""
        protocol = self.take(address.protocol, "protocol", _protocol) or "http"
        host = self.take(address.host, "host", _host)
        port = self.take(address.port, "port", _port)
        path = self.take(address.path, "path", _path) or ""
        if host is not None:
            told = f"{protocol}://{host}" + (f":{port}" if port else "")
            return f"{told}/{path.lstrip('/')}" if path.strip("/") else told
        parts = {*address.protocol, *address.port, *address.path}
        if parts & self.taken and not self.taken.intersection(address.host):
            told = text("import_env.missing", name=address.host[0], key=address.key)
            self._problems.append(told)
        return None


def _protocol(told: str) -> str | None:
    return told.lower() if told.lower() in ("http", "https") else None


def _host(told: str) -> str | None:
    return told if _HOST.fullmatch(told) else None


def _port(told: str) -> int | None:
    return int(told) if re.fullmatch(r"[0-9]{1,5}", told) and 0 < int(told) < 65536 else None


def _path(told: str) -> str | None:
    return told if _PATH.fullmatch(told) else None


def _seconds(told: str) -> int | None:
    whole = re.fullmatch(r"[0-9]{1,9}", told)
    return int(told) if whole and 0 < int(told) <= SECONDS_MAX else None


def _switch(told: str) -> bool | None:
    return {**_TRUE, **_FALSE}.get(told.lower())
