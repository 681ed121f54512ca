"""What stands where in a document: config/semd115.toml as the builder uses it."""

import sys
import tomllib
from pathlib import Path
from typing import Final, Literal

import msgspec

from proto.exits import StartError

FILE: Final = "semd115.toml"


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
    """A kind of document."""

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


def shipped(name: str) -> Path:
    """Return a file of the configuration that smpbus brings along."""
    checkout = Path(__file__).parents[2] / "config" / name
    return checkout if checkout.is_file() else Path(sys.prefix) / "share/smpbus/config" / name


def load_plan(file: Path | None = None) -> Plan:
    """Read the plan. Raises StartError naming the file and what is wrong."""
    file = file or shipped(FILE)
    try:
        plan = msgspec.convert(tomllib.loads(file.read_text(encoding="utf-8")), Plan)
    except OSError as error:
        raise StartError(f"{file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError, msgspec.ValidationError) as error:
        raise StartError(f"{file}: {error}") from None
    for field in plan.fields:
        if field.section not in plan.sections:
            raise StartError(f"{file}: fields {field.code}: no section {field.section}")
        if field.kind == "CD" and field.of not in plan.lists:
            raise StartError(f"{file}: fields {field.code}: no list {field.of}")
    return plan
