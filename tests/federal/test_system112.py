"""System-112's own papers: fields, marks and codes of the ЦПГ protocol against our structures."""

import asyncio
import re
from collections import defaultdict
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
import zeep
from lxml import etree
from msgspec import inspect
from starlette.applications import Starlette

from connectors.partners.cssi112 import contract as cssi
from connectors.partners.cssi112 import mapping as cssi_mapping
from connectors.partners.sys112 import contract, soapdoor
from connectors.runtime.door.serving import HttpServer, bind
from connectors.runtime.markup import soap, xml
from connectors.runtime.markup.soapclient import SoapClient
from connectors.runtime.partner.partner import Partner, PartnerSettings
from connectors.simulators.cssi112 import create_app as cssi_simulator
from connectors.simulators.kit.simulation import SimulatorSettings
from proto import catalogue, schemas

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


# -- ЦССИ-112 -----------------------------------------------------------------------------------

XSD = "http://www.w3.org/2001/XMLSchema"
CSSI = "system112/cssi112_send_ukio_v4_3.wsdl"
CSSI_TEXT = "system112/PITV_CSSI-112_v5_20250730.txt"


def whole_wsdl(data: Path, tmp_path: Path) -> Path:
    """The real WSDL names types that it does not define: they are made open ones, no more."""
    tree = etree.parse(str(data / CSSI))
    schema = tree.find(f".//{{{XSD}}}schema")
    assert schema is not None
    defined = set(schema.xpath("*[local-name()='complexType']/@name"))
    named = {kind[4:] for kind in schema.xpath(".//@type") if kind.startswith("tns:")}
    for name in sorted(named - defined):
        kind = etree.SubElement(schema, f"{{{XSD}}}complexType", name=name)
        inner = etree.SubElement(kind, f"{{{XSD}}}sequence")
        etree.SubElement(
            inner, f"{{{XSD}}}any", processContents="lax", minOccurs="0", maxOccurs="unbounded"
        )
    file = tmp_path / "whole.wsdl"
    tree.write(str(file))
    return file


def cards() -> list[cssi.Ukio]:
    terms = cssi.load_terms()
    card = msgspec.convert(catalogue.entry("incident.card.v1").example, schemas.IncidentCard)
    status = catalogue.entry("call.status.v1").example
    steps = [
        cssi_mapping.of_status(
            msgspec.convert(status | {"code": code}, schemas.StatusEvent), card.id112, terms, "SMP"
        )
        for code in get_args(schemas.StatusCode)
    ]
    ended = catalogue.entry("incident.cancelled.v1").example
    end = cssi_mapping.of_end(msgspec.convert(ended, schemas.IncidentCancelled), terms)
    whole = cssi_mapping.of_card(card, terms, "4.3")
    return [whole, *(step for step in steps if step is not None), end]


def test_our_request_is_valid_by_the_real_wsdl_and_a_server_of_it(
    data: Path, tmp_path: Path
) -> None:
    """The body that our client sends, caught on the wire, validates against the real schema."""
    wsdl = whole_wsdl(data, tmp_path)
    schema = etree.XMLSchema(next(etree.parse(str(wsdl)).iterfind(f".//{{{XSD}}}schema")))
    caught: list[bytes] = []

    async def take(call: soap.Call) -> xml.Element:
        caught.append(call.raw)
        root = etree.Element("{s112}Response", nsmap={None: "s112"})
        xml.write(root, cssi.Reply("OK"), "s112")
        schema.assertValid(root)
        return root

    async def run() -> cssi.Reply:
        service = soap.SoapService("/soap_4_3", {"Ukios": take}, bytes_max=1 << 20)
        server = HttpServer(
            Starlette(routes=[service.route()]), wire := bind("127.0.0.1:0", "test")
        )
        await server.start()
        address = f"http://127.0.0.1:{wire.getsockname()[1]}/soap_4_3"
        partner = Partner("cssi112", PartnerSettings(address))
        client = SoapClient(partner, cssi.WSDL)
        try:
            fields = msgspec.to_builtins(cssi.Ukios(cards()))
            return await client.call("send_ukio", cssi.Reply, "key", fields)
        finally:
            client.close()
            await partner.close()
            await server.stop()

    assert asyncio.run(run()) == cssi.Reply("OK")
    (raw,) = caught
    body = soap.read_envelope(raw).body
    assert len(body) == len(cards()) > 8
    schema.assertValid(etree.ElementTree(body))


def test_zeep_with_the_real_wsdl_talks_to_our_simulator(data: Path, tmp_path: Path) -> None:
    wsdl = whole_wsdl(data, tmp_path)

    async def run() -> str:
        server = HttpServer(
            cssi_simulator(SimulatorSettings()), wire := bind("127.0.0.1:0", "test")
        )
        await server.start()
        address = f"http://127.0.0.1:{wire.getsockname()[1]}/cssi"

        def ask() -> str:
            client = zeep.Client(str(wsdl))
            service = client.create_service("{s112}binding", address)
            now = "2026-11-23T10:00:00+03:00"
            card = {"globalId": "1", "dtSend": now, "bWrong": False, "bChildPlay": False}
            return str(service.send_ukio(Ukio=[card])["status"])

        try:
            return await asyncio.to_thread(ask)
        finally:
            await server.stop()

    assert asyncio.run(run()) == "OK"


def test_the_fields_of_edition_5_are_those_of_its_text(data: Path) -> None:
    found: dict[str, set[str]] = defaultdict(set)
    name = ""
    for line in (data / CSSI_TEXT).read_text(encoding="utf-8").splitlines():
        if heading := re.match(r"^Таблица 1\.\d+ – Описание полей (\w+)", line):
            name = heading[1]
        elif row := re.match(r"^\|[^|]*\|\s*(\w+)\*?\s*\|", line):
            found[name].add(row[1])
    shapes = {
        "Ukio": cssi.Ukio,
        "CallContent": cssi.CallContent,
        "Address": cssi.Address,
        "ReceptionItem": cssi.ReceptionItem,
        "EosItem": cssi.EosItem,
        "DispatchService": cssi.DispatchService,
        "eosResource": cssi.EosResource,
        "Card03": cssi.Card03,
        "Patient": cssi.Patient,
    }
    for table, shape in shapes.items():
        assert set(shape.__struct_encode_fields__) <= found[table], table
