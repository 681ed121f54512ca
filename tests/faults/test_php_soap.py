"""SOAP with PHP's own SoapServer and SoapClient, as half of the regions' systems are made."""

import asyncio
import json
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette

from connectors.partners.rmis.search import contract
from connectors.partners.rmis.search.client import PersonSearch
from connectors.runtime.door.serving import HttpServer, bind
from connectors.runtime.markup import soap, xml
from connectors.runtime.partner.http import HttpClient
from connectors.runtime.partner.partner import PartnerSettings
from connectors.simulators.kit.people import people
from connectors.simulators.rmis import search as server
from proto import clinical
from proto.client import Reject, Retry
from tests.faults.neighbours import php
from tests.ports import free_port

SCRIPT = Path(__file__).parents[1] / "php" / "search.php"
PERSON = people(0)[0]


@pytest.fixture(scope="module")
def port() -> Iterator[int]:
    with php(SCRIPT, SMPBUS_WSDL=str(contract.WSDL)) as port:
        yield port


def _found(port: int, family: str) -> clinical.PatientAnswer:
    async def act() -> clinical.PatientAnswer:
        settings = msgspec.convert({"url": f"http://127.0.0.1:{port}"}, PartnerSettings)
        search = PersonSearch("test", settings)
        try:
            return await search.identify(clinical.PatientQuestion(family=family, given="Анна"))
        finally:
            await search.close()

    return asyncio.run(act())


@pytest.mark.fault("C6")
@pytest.mark.parametrize(
    ("family", "outcome"),
    [("Иванова", "found"), ("Никто", "not_found"), ("Дважды", "found"), ("Пустая", "found")],
)
def test_what_phps_soapserver_says_is_understood(port: int, family: str, outcome: str) -> None:
    """Its empty list is an empty element, which made the whole answer unreadable; its dates have a
    zone, and of an object that comes twice, or is empty, it has its own idea."""
    told = _found(port, family)
    assert told.outcome == outcome
    assert [one.birth_date.isoformat() for one in told.patients if one.birth_date] == (
        [] if outcome == "not_found" else ["1980-01-02"]
    )


@pytest.mark.fault("C6")
@pytest.mark.parametrize(("family", "kind"), [("Сбой", Retry), ("Вина", Reject)])
def test_its_faults_are_told_apart_and_not_quoted(
    port: int, family: str, kind: type[Exception], caplog: pytest.LogCaptureFixture
) -> None:
    """PHP writes its codes with a namespace of its own."""
    with pytest.raises(kind) as told:
        _found(port, family)
    assert "Канарейкина" not in f"{told.value}{caplog.text}"


@pytest.mark.fault("C6")
def test_what_it_says_once_and_refers_to_is_read_twice(port: int) -> None:
    """SOAP encoding: the second of two equal objects is a reference to the first."""

    async def act() -> bytes:
        asked = soap.envelope(xml.parse(f'<searchPersonServices xmlns="{contract.NAMESPACE}"/>'
                                             .encode()))  # fmt: skip
        async with HttpClient(f"http://127.0.0.1:{port}") as http:
            answer = await http.request(
                "POST", "/?use=encoded", asked, {"content-type": "text/xml"}
            )
            return answer.body

    raw = asyncio.run(act())
    assert b'href="#' in raw
    (result,) = soap.read_envelope(raw).body
    assert [xml.read(item, contract.Person).surname for item in result] == ["Канарейкина"] * 2


def _asked(family: str) -> Any:
    """Return what PHP's SoapClient is told by our server."""
    command = shutil.which("php")
    assert command, "php is not installed: apt-get install php-cli php-soap, or run make test"

    async def act() -> str:
        port = free_port()
        app = Starlette(routes=[server.route(people(0))])
        ours = HttpServer(app, bind(f"127.0.0.1:{port}", "test"))
        await ours.start()
        address = f"http://127.0.0.1:{port}{server.PATH}"
        try:
            asking = await asyncio.create_subprocess_exec(
                command, str(SCRIPT), f"{address}?wsdl", address, family,
                stdout=subprocess.PIPE,
            )  # fmt: skip
            async with asyncio.timeout(20):
                said, _ = await asking.communicate()
            return said.decode()
        finally:
            await ours.stop()

    return json.loads(asyncio.run(act()))


@pytest.mark.fault("C6")
def test_phps_soapclient_reads_our_wsdl_and_our_answers() -> None:
    """From our own WSDL, over our own server."""
    wrap = _asked("БЕДА")["searchedResponseServicesWrap"]["searchResponseWrap"]
    assert wrap["rmisError"]["displayText"]
    family = PERSON["family"]
    told = _asked(family)["searchedResponseServicesWrap"]["searchResponseWrap"]
    found = told.get("personsData", [])
    assert all(one["surname"] == family for one in (found if isinstance(found, list) else [found]))
