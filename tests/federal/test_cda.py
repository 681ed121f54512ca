"""The call card as a document against the official XSD of kind 115, its codes against the lists."""

import csv
import json
from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest
from lxml import etree

from connectors.partners.remd.verdict import load_verdicts
from connectors.services.document import Organisation, build, load_plan
from proto import catalogue, clinical

V3 = "{urn:hl7-org:v3}"
PLAN = load_plan()
PLACE = Organisation(oid="1.2.643.5.1.13.13.12.2.99.9999", name="Станция СМП", phone="+70000000001")
EXAMPLE = catalogue.entry("call.card.v1").example
NSI = "1.2.643.5.1.13.13."


def coded(system: str, code: str) -> dict[str, str]:
    return {"code": code, "system": NSI + system}


STATUSES = ("assigned", "departed", "arrived", "transport_started", "at_hospital", "returned")
EVENTS = [
    {
        "event_id": code,
        "call_id": "1",
        "code": code,
        "occurred_at": f"2026-11-23T08:2{number}:00+03:00",
        "recorded_at": "2026-11-23T09:00:00+03:00",
    }
    for number, code in enumerate(STATUSES)
]
FINDINGS = [
    {
        "kind": {"code": field.code, "system": PLAN.field_list},
        "value": {"code": next(iter(PLAN.lists[field.of].codes)), "system": field.of}
        if field.kind == "CD"
        else None,
        "text": "да",
    }
    for field in PLAN.fields
    if field.source == "finding"
]
FULL = {
    "events": EVENTS,
    "findings": FINDINGS,
    "accident": coded("11.1529", "2"),
    "delay": coded("11.1527", "1"),
    "got_by": coded("11.1526", "2"),
    "carried": coded("11.1544", "1"),
    "complications_effect": coded("11.1542", "1"),
    "anamnesis": "Со слов",
    "objective": "Состояние средней тяжести",
    "help_on_scene": "Осмотр",
    "help_in_car": "Кислород",
    "intoxicated": False,
    "consent": True,
    "visit_wanted": True,
    "notes": "Без замечаний",
    "caller": {"phone": "+70000000001", "relation": "родственник"},
    "brigades": [{"id": "12", "profile": coded("99.2.291", "1")}],
}
CARDS: dict[str, dict[str, Any]] = {
    "usual": {},
    "full": FULL,
    "unknown patient": {"patients": [{"sex": "unknown"}], "crew": []},
    "nobody": {"patients": [], "diagnoses": [], "measurements": [], "brigades": []},
    "without a result": {"result": {"code": "1", "system": "7011"}},
}


def document(changes: dict[str, Any]) -> bytes:
    card = msgspec.convert(EXAMPLE | changes, clinical.CallCard, strict=False)
    return build(card, PLAN, PLACE, number="kv-1", version=2)


@pytest.mark.parametrize("name", CARDS)
def test_the_document_is_valid_by_the_official_schema(data: Path, name: str) -> None:
    schema = etree.XMLSchema(file=str(data / "cda" / "kind115_karta_vyzova" / "CDA.xsd"))
    schema.assertValid(etree.fromstring(document(CARDS[name])))


def test_every_coded_value_is_of_its_list_and_version(data: Path) -> None:
    rows: dict[str, dict[str, set[str]]] = {}
    versions: dict[str, str] = {}
    for part in (data / "nsi").glob("*_part1.json"):
        oid, version = part.name.split("_")[:2]
        versions[oid] = version
        found = rows.setdefault(oid, {})
        for row in json.loads(part.read_text())["list"]:
            cells = {str(cell["value"]) for cell in row}
            for cell in cells:
                found.setdefault(cell, set()).update(cells)
    root = etree.fromstring(document(FULL))
    checked = 0
    for one in root.iter():
        system = one.get("codeSystem") if isinstance(one.tag, str) else None
        if system not in rows:
            continue
        checked += 1
        assert one.get("codeSystemVersion") == versions[system], system
        assert one.get("codeSystemName"), system
        assert one.get("displayName") in rows[system][str(one.get("code"))], (system, one.attrib)
    assert checked > 40


def test_every_field_of_the_plan_is_a_coded_field_of_this_document(data: Path) -> None:
    (path,) = (data / "nsi").glob("coded_fields_*.tsv")
    with path.open(encoding="utf-8") as file:
        known = {row["ID"]: row for row in csv.DictReader(file, delimiter="\t")}
    for field in PLAN.fields:
        row = known[field.code]
        assert "1.2.643.5.1.13.13.15.72.2" in row["DOC_OID"], field.code
        assert row["NAME"] == field.name
    codes = [field.code for field in PLAN.fields]
    assert len(codes) == len(set(codes))
    written = {
        str(one.get("code"))
        for one in etree.fromstring(document(FULL)).iter(f"{V3}code")
        if one.get("codeSystem") == PLAN.field_list
    }
    unwritten = set(codes) - written
    assert unwritten <= {"12042"}, unwritten  # this patient was handed to no special brigade


def test_every_error_code_of_the_register_has_one_verdict(data: Path) -> None:
    (path,) = (data / "remd").glob("*305*.tsv")
    with path.open(encoding="utf-8") as file:
        codes = {row["nsi_error_code"] for row in csv.DictReader(file, delimiter="\t")}
    verdicts = load_verdicts()
    classed = verdicts.again | verdicts.correct | verdicts.stop | verdicts.done
    assert codes == classed
    assert len(codes) == 127


def test_kind_and_type_are_those_of_the_federal_list(data: Path) -> None:
    (path,) = (data / "remd").glob("*1520*.tsv")
    with path.open(encoding="utf-8") as file:
        rows = {row["code_kind"]: row for row in csv.DictReader(file, delimiter="\t")}
    row = rows[PLAN.kind]
    assert row["type_code"] == PLAN.type
    assert row["oid"].startswith("1.2.643.5.1.13.13.15.72.")
    assert PLAN.type_name in row["name"]
    assert datetime.fromisoformat(row["start_date"]) < datetime(2026, 11, 23)
