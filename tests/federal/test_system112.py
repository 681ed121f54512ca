"""System-112's own papers: fields, marks and codes of the ЦПГ protocol against our structures."""

import re
from collections import defaultdict
from pathlib import Path
from typing import Any, get_args

import pytest
from msgspec import inspect

from connectors.sys112 import contract, soapdoor

PROTOCOL = "system112/PITV_GIS-CPG_v1.txt"
HEADING = re.compile(r"^([A-Za-z]\w*) \(|^Содержимое (?:запроса|ответа) (\w+)")
ROW = re.compile(r"^\|\s*[\d.]*\s*\|\s*([A-Za-z]\w*)\s*(\*?)\s*\|\s*([\w ]+?)\s*\|")
CODE = re.compile(r"^\|\s*(\w*)\s*\|\s*(\w+)\s*\|")

# What ours has beyond the protocol, which was written for service 01: the block of service 03, the
# card that a repeat call belongs to, and a sentence in every answer.
BEYOND = {
    "Card": {"DdsData03"},
    "CommonData": {"ParentId112"},
    "UpdateCardResponse": {"CodeDescr"},
}
# A request that names no card says nothing that can be passed on.
STRICTER = {("UpdateCardRequest", "Card")}
SHAPES: dict[str, type[Any]] = {
    "UpdateCardRequest": contract.UpdateCard,
    "CancelCardRequest": contract.CancelCard,
    "CloseCardRequest": contract.CloseCard,
    "AddReactionRequest": contract.AddReaction,
    "FinishReactionRequest": contract.FinishReaction,
    "UpdateCardResponse": soapdoor.CardReply,
    "CancelCardResponse": soapdoor.PlainReply,
    "Card": contract.Card,
    "CommonData": contract.CommonData,
    "Location": contract.Location,
    "Address": contract.Address,
    "Coords": contract.Coords,
    "Operator": contract.Operator,
    "Ier": contract.Ier,
    "FullName": contract.FullName,
}
KINDS = {
    "string": (inspect.StrType, inspect.DateTimeType, inspect.DateType, inspect.LiteralType),
    "int": (inspect.IntType, inspect.LiteralType),
    "boolean": (inspect.BoolType,),
    "Структура": (inspect.StructType, inspect.DictType),
}


@pytest.fixture(scope="module")
def tables(data: Path) -> dict[str, dict[str, tuple[bool, str]]]:
    """Fields by table: (is it required, its kind)."""
    found: dict[str, dict[str, tuple[bool, str]]] = defaultdict(dict)
    name = ""
    for line in (data / PROTOCOL).read_text(encoding="utf-8").splitlines():
        if heading := HEADING.match(line):
            name = heading[1] or heading[2]
        elif row := ROW.match(line):
            found[name][row[1]] = (row[2] == "*", row[3])
    return found


def fields_of(shape: type[Any]) -> dict[str, inspect.Field]:
    found = inspect.type_info(shape)
    assert isinstance(found, inspect.StructType)
    return {field.encode_name: field for field in found.fields}


def kind_of(field: inspect.Field) -> inspect.Type:
    kind = field.type
    while isinstance(kind, inspect.Metadata | inspect.UnionType):
        if isinstance(kind, inspect.Metadata):
            kind = kind.type
        else:
            kind = next(one for one in kind.types if not isinstance(one, inspect.NoneType))
    return kind


@pytest.mark.parametrize("name", SHAPES)
def test_fields_required_marks_and_kinds_are_those_of_the_protocol(
    tables: dict[str, dict[str, tuple[bool, str]]], name: str
) -> None:
    theirs, ours = tables[name], fields_of(SHAPES[name])
    assert len(theirs) >= 2
    assert set(ours) - set(theirs) == BEYOND.get(name, set())
    for field, (required, kind) in theirs.items():
        if field not in ours:
            assert not required, f"{name}.{field}"  # it travels among the extensions
            continue
        wanted = required or (name, field) in STRICTER
        assert ours[field].required == wanted, f"{name}.{field}"
        assert isinstance(kind_of(ours[field]), KINDS[kind]), f"{name}.{field}"


def codes(data: Path, heading: str) -> set[str]:
    """The names of one code list."""
    text = (data / PROTOCOL).read_text(encoding="utf-8")
    part = re.split(rf"^{heading}\b[^\n]*\n", text, flags=re.M)[-1].split("\n\n")[0]
    rows = [CODE.match(line) for line in part.splitlines()[1:]]
    return {row[2] for row in rows if row}


def test_code_lists_are_whole(data: Path) -> None:
    assert codes(data, r"ActionType \(") == set(get_args(contract.ActionType))
    assert codes(data, r"IncidentState \(") == set(get_args(contract.IncidentState))
    text = (data / PROTOCOL).read_text(encoding="utf-8").rsplit("Коды ответов", 1)[1]
    told = {int(code) for code in re.findall(r"^\| (\d{3}) \|", text, re.M)}
    assert told == soapdoor.PROTOCOL_CODES
