"""The bus's words in those of РИАМС: config/riams.toml as the dialect uses it."""

from collections.abc import Collection
from pathlib import Path
from typing import Annotated, Final, Literal, get_args

import msgspec

from connectors.services.document.plan import load_plan
from proto import schemas
from proto.configuration.layers import Layers
from proto.configuration.typed import read_table

FILE: Final = "riams.toml"
NSI: Final = "1.2.643.5.1.13.13."
# The lists of the ministry that a ticket or a card may hold, and АДИС may have a field for.
FORMS: Final = f"{NSI}11.1551"
LISTS: Final = (
    *(f"{NSI}11.{number}" for number in (1524, 1525, 1526, 1527, 1528, 1529, 1543, 1545)),
    FORMS,
)
# A value of this system is a code of the region's own РИАМС.
OWN: Final = "riams"

TimeField = Literal["none", "TPER", "VYEZ", "PRZD", "TGSP", "TSTA", "TISP", "TVZV"]
VisitState = Literal["accepted", "assigned", "done", "refused", "moved", "cancelled"]


class CodeTable(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One list: the field of its code, that of its words ("": there is none), and the codes."""

    code: Annotated[str, msgspec.Meta(min_length=1)]
    codes: dict[str, str]
    text: str = ""


class Visit(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The codes that a visit at home is asked for with."""

    profile: int
    kind: int
    state: int
    caller: int


class Tables(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """config/riams.toml."""

    statuses: dict[schemas.StatusCode, TimeField]
    sex: dict[schemas.Sex, str]
    urgency: dict[Literal["1", "2", "3"], str]
    lists: dict[str, CodeTable]
    visit: Visit
    visit_states: dict[str, VisitState]

    def fields(self, list: str, value: schemas.Coded | None) -> dict[str, str]:
        """Return what a value fills in, by the last part of its list's OID; nothing when РИАМС is
        not told it, or when it is of another list."""
        oid = f"{NSI}11.{list}"
        table = self.lists[oid]
        code = ""
        if value is not None and value.system in (OWN, oid):
            code = value.code if value.system == OWN else table.codes.get(value.code, "")
        if not code or value is None:
            return {}
        return {table.code: code} | ({table.text: value.text} if table.text and value.text else {})


def load_tables(file: Path | None = None) -> Tables:
    """Read the tables. Raises StartError naming the file and the key when they are broken, miss a
    code or hold one that does not exist."""
    tables, layers = read_table(Tables, FILE, file)
    lists = {oid: list(one.codes) for oid, one in load_plan().lists.items()}
    lists[FORMS] = ["1", "2", "3"]
    _check(layers, ("statuses",), tables.statuses, get_args(schemas.StatusCode))
    _check(layers, ("sex",), tables.sex, get_args(schemas.Sex))
    _check(layers, ("urgency",), tables.urgency, ("1", "2", "3"))
    _check(layers, ("lists",), tables.lists, LISTS)
    for oid, table in tables.lists.items():
        _check(layers, ("lists", oid, "codes"), table.codes, lists[oid])
    return tables


def _check(
    layers: Layers, key: tuple[str, ...], given: Collection[str], wanted: Collection[str]
) -> None:
    for code in sorted(set(wanted) - set(given)):
        layers.place(*key).fail("config.missing_key", missing=code)
    for code in sorted(set(given) - set(wanted)):
        layers.place(*key, code).fail_unknown(code, wanted)
