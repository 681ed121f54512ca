"""The real SearchPersonService: zeep talks by it to our simulator, requests and answers fit; the
tables of РИАМС have the codes of the ministry's own lists."""

import asyncio
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import zeep
import zeep.transports
from lxml import etree
from zeep.helpers import serialize_object

from connectors.partners.rmis.riams.tables import LISTS, load_tables
from connectors.partners.rmis.search import PersonSearch, contract
from connectors.partners.rmis.search.client import question
from connectors.runtime.door.serving import HttpServer, bind
from connectors.runtime.markup import soap, xml
from connectors.runtime.partner.http import HttpClient
from connectors.runtime.partner.partner import PartnerSettings
from connectors.services.nsi.contract import Page, Passport, code_list
from connectors.simulators.kit.people import people
from connectors.simulators.kit.simulation import SimulatorSettings
from connectors.simulators.rmis import search as server
from connectors.simulators.rmis.simulator import create_app
from proto import clinical
from proto.schemas import IdentityDocument

ONE = people(0)[1]
ASKED = clinical.PatientQuestion(
    enp=ONE["enp"],
    snils="00000000017",
    document=IdentityDocument(type=14, series="99 99", number="999999"),
    family=ONE["family"],
    given=ONE["given"],
    middle="ИВАНОВИЧ",
    birth_date=date.fromisoformat(ONE["birth_date"]),
    street=ONE["street"],
    house=ONE["house"],
    flat="1",
)


class Files(zeep.transports.Transport):
    """Loads what the real WSDL imports from where it lies, and nothing else."""

    def __init__(self, folder: Path) -> None:
        super().__init__()  # type: ignore[no-untyped-call]
        self._folder = folder

    def load(self, url: str) -> bytes:
        return (self._folder / url.rpartition("/")[2]).read_bytes()


def real(data: Path) -> zeep.Client:
    folder = data / "rmis"
    return zeep.Client(str(folder / "SearchPersonService.wsdl"), transport=Files(folder))


def schema(data: Path) -> etree.XMLSchema:
    return etree.XMLSchema(etree.parse(str(data / "rmis" / "RmisSearchPersons.xsd")))


def fields() -> dict[str, Any]:
    plain: dict[str, Any] = msgspec.to_builtins(question(ASKED), builtin_types=(date,))
    return plain


def test_zeep_with_the_real_wsdl_talks_to_our_simulator(data: Path) -> None:
    async def run() -> tuple[Any, clinical.PatientAnswer]:
        server_ = HttpServer(
            create_app(SimulatorSettings()), channel := bind("127.0.0.1:0", "test")
        )
        await server_.start()
        address = f"http://127.0.0.1:{channel.getsockname()[1]}{server.PATH}"

        def ask() -> Any:
            service = real(data).create_service(
                f"{{{contract.NAMESPACE}}}RmisSearchPersonsPortBinding", address
            )
            return service.searchPersonServices(**fields())

        ours = PersonSearch("rmis", PartnerSettings(address))
        try:
            return await asyncio.to_thread(ask), await ours.identify(ASKED)
        finally:
            await ours.close()
            await server_.stop()

    theirs, ours = asyncio.run(run())
    (found,) = theirs[0].personsData  # zeep takes an only child out
    (patient,) = ours.patients
    assert found.personIdentifiers.personUniqID == patient.id == ONE["id"]
    assert found.birthday == patient.birth_date == ASKED.birth_date


def test_our_request_is_valid_by_the_real_schema_and_read_as_it_was_meant(data: Path) -> None:
    ours = zeep.Client(str(contract.WSDL))
    envelope = ours.create_message(ours.service, contract.OPERATION, **fields())
    body = soap.read_envelope(etree.tostring(envelope)).body
    schema(data).assertValid(body)
    assert xml.read(body, contract.Request) == question(ASKED)


def test_our_simulators_answer_is_valid_by_the_real_schema(data: Path) -> None:
    async def run() -> bytes:
        server_ = HttpServer(
            create_app(SimulatorSettings()), channel := bind("127.0.0.1:0", "test")
        )
        await server_.start()
        ours = zeep.Client(str(contract.WSDL))
        envelope = ours.create_message(ours.service, contract.OPERATION, **fields())
        async with HttpClient(f"http://127.0.0.1:{channel.getsockname()[1]}") as http:
            asked = etree.tostring(envelope)
            answer = await http.request(
                "POST", server.PATH, asked, {"content-type": "text/xml; charset=utf-8"}
            )
        await server_.stop()
        return answer.body

    body = soap.read_envelope(asyncio.run(run())).body
    schema(data).assertValid(body)
    assert ONE["id"] in etree.tostring(body).decode()


def filled(kind: Any, deep: int = 0) -> Any:
    """Return a value with every element that a type of the real schema may have."""
    if not hasattr(kind, "elements"):
        samples = {"date": date(2026, 11, 23), "boolean": True, "long": 1, "integer": 1}
        return samples.get(kind.name, "x")
    values = {name: filled(one.type, deep + 1) for name, one in kind.elements}
    many = {name for name, one in kind.elements if one.accepts_multiple}
    return {name: [value] if name in many else value for name, value in values.items()}


def test_whatever_the_real_service_answers_is_read(data: Path) -> None:
    theirs = real(data)
    element = theirs.get_element(f"{{{contract.NAMESPACE}}}{contract.OPERATION}Response")
    parent = etree.Element("Body")
    element.render(parent, element(**filled(element.type)))
    schema(data).assertValid(parent[0])
    ours = zeep.Client(str(contract.WSDL), settings=zeep.Settings(strict=True))
    shape = ours.get_element(f"{{{contract.NAMESPACE}}}{contract.OPERATION}Response")
    told = serialize_object(shape.parse(parent[0], ours.wsdl.types), dict)
    answer = msgspec.convert(told, contract.Answer, strict=False)
    wrap = answer.searched_response_services_wrap
    (one,) = (wrap and wrap.search_response_wrap) or []
    (person,) = (one and one.persons_data) or []
    assert person.surname == "x"
    assert person.birthday == date(2026, 11, 23)


def shapes(kind: Any) -> dict[str, Any]:
    return {
        name: (one.accepts_multiple, one.is_optional, one.type.name)
        for name, one in getattr(kind, "elements", ())
    }


def test_our_wsdl_has_no_other_operations_and_fields_than_the_real_one(data: Path) -> None:
    ours, theirs = zeep.Client(str(contract.WSDL)), real(data)
    operations = [set(client.service._binding._operations) for client in (ours, theirs)]
    assert operations[0] <= operations[1]
    # What we never ask for is left out of the request; what is answered is whole.
    beyond = {
        "searchRequestServicesWrap": {"targetServices", "requestName", "requestTime"},
    }
    names = [
        kind.name for kind in ours.wsdl.types.types if kind.qname and
        kind.qname.namespace == contract.NAMESPACE
    ]  # fmt: skip
    assert len(names) > 10
    for name in names:
        mine, real_one = (
            shapes(client.get_type(f"{{{contract.NAMESPACE}}}{name}")) for client in (ours, theirs)
        )
        left_out = beyond.get(name, set())
        expected = {field: one for field, one in real_one.items() if field not in left_out}
        assert list(mine.items()) == list(expected.items()), name


def test_every_table_has_the_codes_of_the_ministrys_list(data: Path) -> None:
    tables = load_tables()
    assert set(tables.lists) == set(LISTS)
    for oid, table in tables.lists.items():
        (file,) = (data / "nsi").glob(f"{oid}_*_passport.json")
        passport = msgspec.json.decode(file.read_bytes(), type=Passport)
        part = file.with_name(file.name.replace("_passport", "_part1"))
        page = msgspec.json.decode(part.read_bytes(), type=Page)
        assert set(table.codes) == set(code_list(passport, page.rows).rows), oid
