"""What stands where in a document: config/semd115.toml as the builder uses it."""

from pathlib import Path
from typing import Final, Literal

import msgspec

from connectors.services.vocabulary import load_codes, load_statuses
from proto.configuration.layers import Layers
from proto.configuration.typed import read_table

FILE: Final = "semd115.toml"
COLUMN: Final = "semd"  # of the chain of statuses
TIME: Final = "time"


class Field(msgspec.Struct, frozen=True, forbid_unknown_fields=True, rename={"source": "from"}):
    """One coded field: where its value comes from and of what kind it is."""

    section: str
    code: str
    name: str
    source: str
    kind: Literal["ST", "CD", "TS", "PQ", "BL"]
    of: str = ""
    unit: str = ""


class CodeList(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A code list: what the register compares. An `open` one is longer than what is written."""

    version: str
    name: str
    open: bool = False
    codes: dict[str, str] = {}


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A kind of document. `sexes` are codes of 1.2.643.5.1.13.13.11.1040 by our words, from
    code_systems.toml."""

    kind: str
    type: str
    type_name: str
    template: str
    field_list: str
    field_version: str
    field_name: str
    section_list: str
    section_version: str
    section_name: str
    type_list: str
    type_version: str
    type_list_name: str
    sections: dict[str, str]
    fields: list[Field]
    lists: dict[str, CodeList]
    sexes: dict[str, str] = {}


def load_plan(file: Path | None = None) -> Plan:
    """Read the plan. Raises StartError naming the file and what is wrong."""
    plan, layers = read_table(Plan, FILE, file)
    for n, field in enumerate(plan.fields):
        if field.section not in plan.sections:
            layers.place("fields", n, "section").fail_undefined(field.section, plan.sections)
        if field.kind == "CD" and field.of not in plan.lists:
            layers.place("fields", n, "of").fail_undefined(field.of, plan.lists)
    fields = _with_statuses(plan.fields, layers)
    sexes = load_codes()["sex"].words("nsi")
    sexes.pop("unknown", None)  # a document says NI then
    return msgspec.structs.replace(plan, fields=fields, sexes=sexes)


def _with_statuses(fields: list[Field], layers: Layers) -> list[Field]:
    """Say of each time whose time it is, by the chain of statuses."""
    chain = load_statuses()
    statuses = chain.meanings(COLUMN)
    found = []
    for n, field in enumerate(fields):
        status = statuses.pop(field.code, None)
        if field.source == TIME:
            if status is None:
                where = layers.place("fields", n)
                where.fail("document.no_status", code=field.code, file=chain.file)
            field = msgspec.structs.replace(field, source=f"{TIME}:{status}")
        found.append(field)
    if statuses:
        code, status = min(statuses.items())
        chain.fail("no_word", status, COLUMN, code)
    return found
