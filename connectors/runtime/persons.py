"""Where connectors keep persons, as a list: each of their durable files and tables, by which
columns somebody is found, and what erasing a row is.

A connector whose kind is not in `KEPT` is not finished (a test says so): what it keeps of persons
could neither be found nor erased. One that keeps none has an empty entry.
"""

import os
from collections.abc import Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Final, NamedTuple

import apsw
import msgspec

from connectors.runtime.statefile import SECURE
from proto.person import Search

BUSY_MS: Final = 10_000
BLANK: Final = "blank"  # what has to stay is emptied, and keeps its row: it is known as a repeat
DELETE: Final = "delete"


class Table(NamedTuple):
    """A table of the file that a setting names ("document.archive_file").

    `key` names a row in a protocol; `numbers` are columns with numbers of calls and cards; `bodies`
    those in which a person may be. `busy` is an SQL condition on rows that are still needed.
    """

    setting: str
    name: str
    key: str
    numbers: tuple[str, ...]
    bodies: tuple[str, ...]
    deed: str = BLANK
    busy: str = "0"


class Lines(NamedTuple):
    """A file of JSON lines: `key` names a line, `ended` one that says that a line is over. `beside`
    is added to the name of the file that the setting names."""

    setting: str
    key: str
    ended: str
    beside: str = ""


_DOCUMENTS: Final = (
    Table(
        "document.archive_file", "document", "uid", ("card", "call", "subject", "number"),
        ("source", "file", "signature"), BLANK, "state in ('sent', 'accepted')",
    ),
)  # fmt: skip
KEPT: Final[dict[str, tuple[Table | Lines, ...]]] = {
    "ats": (
        Lines("live_calls_file", "id", "ended"),
        Lines("live_calls_file", "message", "sent", ".unsent"),  # emptied when the bus has all
    ),
    "cssi112": (),  # hands on what it is given
    "external": (
        Table("state_file", "call", "ref", ("id", "number"), ("digest",)),
        Table("state_file", "event", "ref", ("call_id",), ("body",), DELETE),
    ),
    "remd": _DOCUMENTS,
    "replication": (),  # hands on what it is given
    "rmis": (
        Table("state_file", "riams_asked", "id", ("id",), ("answer",), DELETE),
        Table("state_file", "riams_call", "id", ("id", "number"), (), DELETE),
    ),
    "rmr": (),  # numbers of the register, and digests
    "smp": (),  # in memory only
    "smpsql": (),  # its tables are the ambulance system's: see `OUTSIDE`
    "sys112": (Table("state_file", "told", "call", ("call",), ("body",), DELETE),),
    "tfoms": (
        Table(
            "store_file", "card", "id", ("id", "subject"), ("draft", "insured"), DELETE,
            "ask_at is not null",
        ),
    ),
    "vimis": _DOCUMENTS,
}  # fmt: skip
# What is kept where only its own administrator can erase it: named in the report.
OUTSIDE: Final = {"smpsql": "smpbus.outbox, smpbus.inbox"}


class Row(NamedTuple):
    """What was found of a person in one place."""

    file: Path
    table: str
    key: str
    numbers: tuple[str, ...]
    busy: bool


class Place(NamedTuple):
    """One thing that a configured connector keeps."""

    connector: str
    file: Path
    kept: Table | Lines


def places(connectors: dict[str, Any], folder: Path) -> Iterator[Place]:
    """Yield what the connectors of some settings keep, of files that are there; relative paths
    start from `folder`."""
    for name, table in connectors.items():
        for kept in KEPT.get(name) or _guessed(table):
            file = _setting(table, kept.setting)
            if file is not None and isinstance(kept, Lines):
                file = file.with_name(f"{file.name}{kept.beside}")
            if file is not None and (folder / file).is_file():
                yield Place(name, folder / file, kept)


def unknown(connectors: dict[str, Any]) -> list[str]:
    """Return the connectors of which it is not known what they keep."""
    return [name for name, table in connectors.items() if name not in KEPT and not _guessed(table)]


def _guessed(table: dict[str, Any]) -> list[Table | Lines]:
    """One of another name is of a kind that keeps what its settings name."""
    every = (kept for kind in KEPT.values() for kept in kind)
    return [kept for kept in dict.fromkeys(every) if _setting(table, kept.setting) is not None]


def _setting(table: Any, dotted: str) -> Path | None:
    for step in dotted.split("."):
        table = table.get(step) if isinstance(table, dict) else None
    return Path(table) if isinstance(table, str) and table else None


def find(place: Place, search: Search | None, numbers: Sequence[str]) -> list[Row]:
    """Return the rows in which somebody is, or that are of these numbers. Raises apsw.Error or
    OSError."""
    if isinstance(place.kept, Lines):
        return [row for row, *_ in _lines(place, search, numbers)]
    with closing(_open(place.file)) as db:
        return [row for row, _ in _rows(db, place, search, numbers)]


def erase(place: Place, search: Search | None, numbers: Sequence[str]) -> list[Row]:
    """Take the same out of the place, but for what is `busy`; return all. Raises as `find`."""
    if isinstance(place.kept, Lines):
        return _erase_lines(place, search, numbers)
    kept = place.kept
    with closing(_open(place.file)) as db:
        found = _rows(db, place, search, numbers)
        with db:
            for row, rowid in found:
                if not row.busy:
                    db.execute(_deed(kept), rowid)
        db.execute("pragma wal_checkpoint(truncate)").fetchall()
        return [row for row, _ in found]


def _open(file: Path) -> apsw.Connection:
    db = apsw.Connection(str(file), flags=apsw.SQLITE_OPEN_READWRITE)
    db.set_busy_timeout(BUSY_MS)
    db.execute(SECURE).fetchall()
    return db


def _deed(kept: Table) -> str:
    where = " and ".join(f'"{one}" is ?' for one in _identity(kept))
    if kept.deed == DELETE:
        return f'delete from "{kept.name}" where {where}'
    emptied = ", ".join(f"\"{one}\" = x''" for one in kept.bodies)
    return f'update "{kept.name}" set {emptied} where {where}'


def _identity(kept: Table) -> tuple[str, ...]:
    return tuple(dict.fromkeys((kept.key, *kept.numbers)))


def _rows(
    db: apsw.Connection, place: Place, search: Search | None, numbers: Sequence[str]
) -> list[tuple[Row, tuple[Any, ...]]]:
    kept = place.kept
    if isinstance(kept, Lines) or not _has_table(db, kept.name):
        return []
    identity, wanted, found = _identity(kept), set(numbers), []
    columns = ", ".join(f'"{one}"' for one in (*identity, *kept.bodies))
    question = f'select {kept.busy}, {columns} from "{kept.name}"'
    for busy, *values in db.execute(question):
        names, bodies = values[: len(identity)], values[len(identity) :]
        told = [str(one) for one in names if one is not None]
        alive = [one for one in bodies if isinstance(one, bytes | str) and one]
        if not alive and kept.bodies:
            continue  # emptied before
        is_his = wanted & set(told) or (search and any(search.finds(one) for one in alive))
        if is_his:
            row = Row(place.file, kept.name, told[0], tuple(dict.fromkeys(told[1:])), bool(busy))
            found.append((row, tuple(names)))
    return found


def _has_table(db: apsw.Connection, name: str) -> bool:
    return bool(db.execute("select 1 from sqlite_master where name = ?", (name,)).fetchall())


def _lines(
    place: Place, search: Search | None, numbers: Sequence[str]
) -> list[tuple[Row, int, int]]:
    """Return what is found, and where its line begins and how long it is."""
    kept, wanted = place.kept, set(numbers)
    if isinstance(kept, Table):
        return []
    at, found, ended = 0, list[tuple[str, int, int]](), set[str]()
    for line in place.file.read_bytes().splitlines(keepends=True):
        try:
            record = msgspec.json.decode(line, type=dict[str, Any])
        except msgspec.DecodeError:
            record = {}
        if kept.ended in record:
            ended.add(str(record[kept.ended]))
        elif record and (record.get(kept.key) in wanted or (search and search.finds(line))):
            found.append((str(record.get(kept.key)), at, len(line)))
        at += len(line)
    return [
        (Row(place.file, "lines", key, (), key not in ended), at, size) for key, at, size in found
    ]


def _erase_lines(place: Place, search: Search | None, numbers: Sequence[str]) -> list[Row]:
    """Write blanks over lines of what is over: whoever adds lines goes on behind them."""
    found = _lines(place, search, numbers)
    descriptor = os.open(place.file, os.O_WRONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
    try:
        for row, at, size in found:
            if not row.busy:
                os.pwrite(descriptor, b" " * (size - 1), at)
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
    return [row for row, *_ in found]
