"""What НСИ, the federal register of code lists, answers (REST; docs/domain.md 8).

    GET /passport?userKey=&identifier=OID[&version=]
    GET /data?userKey=&identifier=OID&version=&page=&size=

Every row of `data` is a list of {column, value}, values are texts or null. Which column is the code
differs from list to list and stands in the passport's `keys`.
"""

from typing import Final

import msgspec

from connectors.services.lookup import CodeList

OK: Final = "OK"
# The most rows a page may have, by the service's own description.
PAGE_ROWS_MAX: Final = 200
PER_MINUTE: Final = 50
JOINT: Final = "|"


class Key(msgspec.Struct, frozen=True):
    """A key column: PRIMARY is the code, VALUE its name, FOREIGN a code of a parent row."""

    field: str
    type: str


class Field(msgspec.Struct, frozen=True, rename="camel"):
    """A column: `data_type` is VARCHAR, INTEGER, DATETIME, BOOLEAN ..."""

    field: str
    data_type: str
    alias: str | None = None


class Passport(msgspec.Struct, frozen=True, rename="camel"):
    """What a code list says of itself."""

    oid: str
    version: str
    full_name: str
    rows_count: int
    fields: list[Field]
    keys: list[Key]
    short_name: str | None = None
    publish_date: str | None = None
    last_update: str | None = None
    hierarchical: bool = False
    archive: bool = False


class Cell(msgspec.Struct, frozen=True, gc=False):
    """One value of a row."""

    column: str
    value: str | None = None


class Page(msgspec.Struct, frozen=True, rename={"rows": "list"}):
    """Some rows of a list of `total` rows."""

    total: int
    rows: list[list[Cell]]


class Outcome(msgspec.Struct, frozen=True, rename="camel"):
    """How every answer begins; anything but "OK" is a refusal with a code."""

    result: str
    result_code: str | int | None = None


class Broken(Exception):
    """A code list contradicts its own passport; the text says how and holds no data."""


def code_list(passport: Passport, rows: list[list[Cell]]) -> CodeList:
    """Return the list with its rows by code. Raises Broken."""
    keys = [key.field for key in passport.keys if key.type == "PRIMARY"]
    if not keys:
        raise Broken("the passport names no PRIMARY key")
    found: dict[str, dict[str, str | None]] = {}
    for cells in rows:
        row = {cell.column: cell.value for cell in cells}
        parts = [row.get(key) for key in keys]
        code = JOINT.join(part for part in parts if part is not None)
        if None in parts or code in found:
            raise Broken("a row has no code, or the code of another row")
        found[code] = row
    return CodeList(
        oid=passport.oid,
        version=passport.version,
        name=passport.full_name,
        key=JOINT.join(keys),
        title=title_of(passport, found),
        rows=found,
    )


def title_of(passport: Passport, rows: dict[str, dict[str, str | None]]) -> str:
    """Return the column that people read: the VALUE key, else a text column with "name" in its own
    name, else the one with the longest texts, else the code."""
    for key in passport.keys:
        if key.type == "VALUE":
            return key.field
    primary = {key.field for key in passport.keys if key.type == "PRIMARY"}
    texts = [
        field.field
        for field in passport.fields
        if field.data_type == "VARCHAR" and field.field not in primary
    ]
    for field in texts:
        if "name" in field.casefold():
            return field
    lengths = {field: sum(len(row.get(field) or "") for row in rows.values()) for field in texts}
    return max(lengths, key=lengths.__getitem__) if lengths else passport.keys[0].field
