"""SOAP both ways over real HTTP: our server, zeep's client, and what may go wrong between them."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path

import msgspec
import pytest
from lxml import etree
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.runtime.bus.ingress import NotAccepted
from connectors.runtime.door.body import BadInput
from connectors.runtime.door.serving import HttpServer, bind
from connectors.runtime.markup import soap, xml
from connectors.runtime.markup.soapclient import SoapClient
from connectors.runtime.partner.breaker import BreakerSettings
from connectors.runtime.partner.http import HttpClient
from connectors.runtime.partner.partner import Partner, PartnerSettings
from proto.client import Reject, Retry
from proto.note import code_of
from tests.ports import free_port

NS = "urn:smpbus:test"
WSDL = f"""<?xml version="1.0" encoding="UTF-8"?>
<definitions xmlns="http://schemas.xmlsoap.org/wsdl/" xmlns:t="{NS}" targetNamespace="{NS}"
    xmlns:soap="http://schemas.xmlsoap.org/wsdl/soap/" xmlns:xs="http://www.w3.org/2001/XMLSchema">
  <types><xs:schema targetNamespace="{NS}" elementFormDefault="qualified">
    <xs:element name="Greet"><xs:complexType><xs:sequence>
      <xs:element name="Name" type="xs:string"/>
      <xs:element name="Times" type="xs:int" minOccurs="0"/>
    </xs:sequence></xs:complexType></xs:element>
    <xs:element name="GreetResponse"><xs:complexType><xs:sequence>
      <xs:element name="Code" type="xs:string"/>
      <xs:element name="Said" type="xs:string" maxOccurs="unbounded"/>
    </xs:sequence></xs:complexType></xs:element>
  </xs:schema></types>
  <message name="In"><part name="parameters" element="t:Greet"/></message>
  <message name="Out"><part name="parameters" element="t:GreetResponse"/></message>
  <portType name="Port"><operation name="Greet">
    <input message="t:In"/><output message="t:Out"/></operation></portType>
  <binding name="Binding" type="t:Port">
    <soap:binding style="document" transport="http://schemas.xmlsoap.org/soap/http"/>
    <operation name="Greet"><soap:operation soapAction=""/>
      <input><soap:body use="literal"/></input><output><soap:body use="literal"/></output>
    </operation></binding>
  <service name="Service"><port name="Port" binding="t:Binding">
    <soap:address location="{{address}}"/></port></service>
</definitions>"""


class Greet(msgspec.Struct, rename="pascal"):
    name: str
    times: int | None = None


class Greeted(msgspec.Struct, rename="pascal"):
    code: str
    said: list[str]


async def _greet(call: soap.Call) -> xml.Element:
    asked = xml.read(call.body, Greet)
    match asked.name:
        case "away":
            raise NotAccepted("not_connected", "The service bus is away.", 3, temporary=True)
        case "bad":
            raise BadInput("Name", "is not a name")
        case "mistake":
            raise RuntimeError("Иванов Иван")
    answer = etree.Element(f"{{{NS}}}GreetResponse", nsmap={None: NS})
    xml.write(answer, Greeted("200", [f"Здравствуйте, {asked.name}"] * (asked.times or 1)), NS)
    return answer


def _service() -> Route:
    return soap.SoapService(
        "/greet", {"Greet": _greet}, wsdl=WSDL.encode(), bytes_max=100_000
    ).route()


@asynccontextmanager
async def _serving(*routes: Route) -> AsyncIterator[str]:
    port = free_port()
    server = HttpServer(Starlette(routes=list(routes)), bind(f"127.0.0.1:{port}", "test"))
    await server.start()
    try:
        yield f"http://127.0.0.1:{port}"
    finally:
        await server.stop()


@asynccontextmanager
async def _client(url: str, folder: Path, path: str = "/greet") -> AsyncIterator[SoapClient]:
    wsdl = folder / "greet.wsdl"
    wsdl.write_text(WSDL, encoding="utf-8")
    partner = Partner("test", PartnerSettings(url, timeout_s=2.0))
    client = SoapClient(partner, wsdl, path=path)
    try:
        yield client
    finally:
        client.close()
        await partner.close()


def _ask(folder: Path, *routes: Route, name: str = "Анна", path: str = "/greet") -> Greeted:
    async def run() -> Greeted:
        async with _serving(*routes) as url, _client(url, folder, path) as client:
            return await client.call("Greet", Greeted, "key-1", {"Name": name, "Times": 2})

    return asyncio.run(run())


def test_zeep_and_the_server_understand_each_other(tmp_path: Path) -> None:
    assert _ask(tmp_path, _service()) == Greeted("200", ["Здравствуйте, Анна"] * 2)


def test_calls_run_side_by_side(tmp_path: Path) -> None:
    async def run() -> list[Greeted]:
        async with _serving(_service()) as url, _client(url, tmp_path) as client:
            return await asyncio.gather(
                *(
                    client.call("Greet", Greeted, f"key-{n}", {"Name": f"Имя {n}"})
                    for n in range(20)
                )
            )

    answers = asyncio.run(run())
    assert [answer.said for answer in answers] == [[f"Здравствуйте, Имя {n}"] for n in range(20)]


@pytest.mark.parametrize(
    ("name", "kind", "note"),
    [("bad", Reject, "Client"), ("away", Retry, "Server"), ("mistake", Retry, "Server")],
)
def test_a_fault_tells_who_is_to_blame_and_no_more(
    tmp_path: Path, name: str, kind: type[Exception], note: str
) -> None:
    with pytest.raises(kind) as told:
        _ask(tmp_path, _service(), name=name)
    assert note in str(told.value)
    assert "Иванов" not in str(told.value)


Answering = Callable[[Request], Awaitable[Response]]


def _answering(body: bytes, status: int = 200, kind: str = "text/xml", **headers: str) -> Route:
    async def answer(_: Request) -> Response:
        return Response(body, status, headers, kind)

    return Route("/greet", answer, methods=["POST"])


GOOD = soap.envelope(
    etree.fromstring(f'<GreetResponse xmlns="{NS}"><Said>Анна</Said></GreetResponse>')
)
HALF = GOOD[: len(GOOD) // 2]


@pytest.mark.parametrize(
    "answer",
    [
        _answering(b"<html>works</html>", kind="text/html"),
        _answering(b"Bad gateway", 502, "text/plain"),
        _answering(HALF),
        _answering(GOOD),
        _answering(b'<!DOCTYPE a [<!ENTITY b "c">]>' + GOOD.partition(b"?>")[2].strip()),
        _answering(soap.envelope(None)),
        _answering("<?xml version='1.0' encoding='UTF-8'?><a>я</a>".encode("cp1251")),
        _answering(b"", 302, location="/elsewhere"),
        _answering(b""),
    ],
    ids=["html", "502", "half", "field missing", "dtd", "empty body", "encoding", "302", "nothing"],
)
def test_what_is_no_answer_of_the_contract_is_asked_again(tmp_path: Path, answer: Route) -> None:
    with pytest.raises(Retry):
        _ask(tmp_path, answer)


@pytest.mark.parametrize("body", [b"<html/>", HALF, GOOD], ids=["html", "half", "field missing"])
def test_nonsense_in_a_row_is_a_partner_that_does_not_answer(tmp_path: Path, body: bytes) -> None:
    async def run() -> list[str]:
        async with _serving(_answering(body)) as url, _client(url, tmp_path) as client:
            told = []
            for n in range(BreakerSettings().failures_max + 1):
                with pytest.raises(Retry) as caught:
                    await client.call("Greet", Greeted, f"key-{n}", {"Name": "Анна"})
                told.append(str(caught.value))
            return told

    *read, at_last = asyncio.run(run())
    assert set(read) == {"connector.bad_reply status=200"}
    assert code_of(at_last) == "connector.resting"


def test_a_request_without_what_the_wsdl_requires_is_rejected(tmp_path: Path) -> None:
    async def run() -> Greeted:
        async with _serving(_service()) as url, _client(url, tmp_path) as client:
            return await client.call("Greet", Greeted, "key-1", {"Times": 2})

    with pytest.raises(Reject):
        asyncio.run(run())


def _post(
    body: bytes, kind: str = "text/xml", method: str = "POST", query: str = ""
) -> tuple[int, bytes]:
    async def run() -> tuple[int, bytes]:
        async with _serving(_service()) as url, HttpClient(url) as http:
            answer = await http.request(method, "/greet" + query, body, {"content-type": kind})
            return answer.status, answer.body

    return asyncio.run(run())


def _request(inner: str, header: str = "", version: str = soap.SOAP11) -> bytes:
    return f'<e:Envelope xmlns:e="{version}">{header}<e:Body>{inner}</e:Body></e:Envelope>'.encode()


ASK = f'<Greet xmlns="{NS}"><Name>Анна</Name></Greet>'


def test_soap_12_is_answered_as_soap_12() -> None:
    status, body = _post(_request(ASK, version=soap.SOAP12), "application/soap+xml")
    assert status == 200
    assert soap.read_envelope(body).version == soap.SOAP12
    status, body = _post(_request("<Unknown/>", version=soap.SOAP12), "application/soap+xml")
    assert status == 400
    assert b"soap:Sender" in body


@pytest.mark.parametrize(
    ("body", "words"),
    [
        (b"{}", b"is not well-formed XML"),
        (b"<a/>", b"is not a SOAP envelope"),
        (_request(""), b"has not exactly one element"),
        (_request("<Unknown/>"), b"there are: Greet"),
        (_request(f'<Greet xmlns="{NS}"/>'), b"Name: is required"),
        (b"<!DOCTYPE a><a/>", b"DOCTYPE"),
        (b"<a>" + b" " * 100_000 + b"</a>", b"is longer than 100000 bytes"),
        (
            _request(ASK, '<e:Header><s:Sign xmlns:s="urn:s" e:mustUnderstand="1"/></e:Header>'),
            b"Header.Sign: is not understood",
        ),
    ],
    ids=["json", "other", "empty", "unknown", "missing", "dtd", "long", "must understand"],
)
def test_a_bad_request_is_a_fault_with_path_and_rule(body: bytes, words: bytes) -> None:
    status, answer = _post(body)
    assert status == 500  # SOAP 1.1, 6.2
    assert words in answer
    assert xml.local(soap.read_envelope(answer).body) == "Fault"


def test_the_wsdl_is_served_with_the_address_of_the_caller() -> None:
    status, body = _post(b"", method="GET", query="?wsdl")
    assert status == 200
    address = etree.fromstring(body).find(".//{http://schemas.xmlsoap.org/wsdl/soap/}address")
    assert address is not None
    assert str(address.get("location")).endswith("/greet")
    assert _post(b"", method="GET")[0] == 405


def test_nothing_is_loaded_but_files_beside_the_wsdl(tmp_path: Path) -> None:
    outside = tmp_path / "outside.xsd"
    outside.write_text("<schema/>")
    inside = tmp_path / "package"
    inside.mkdir()
    imported = '<xs:import namespace="urn:o" schemaLocation="../outside.xsd"/>'
    wsdl = inside / "evil.wsdl"
    wsdl.write_text(
        WSDL.replace('<xs:element name="Greet">', imported + '<xs:element name="Greet">')
    )
    partner = Partner("test", PartnerSettings("http://127.0.0.1:9"))

    async def run() -> None:
        try:
            SoapClient(partner, wsdl)
        finally:
            await partner.close()

    with pytest.raises(ValueError, match="is not beside the WSDL"):
        asyncio.run(run())
