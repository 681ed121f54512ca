"""The real WSDL of ВИМИС: zeep talks by it to our simulator; our requests and callbacks fit."""

import asyncio
from pathlib import Path

import msgspec
import zeep
from lxml import etree

from connectors.partners.vimis import contract
from connectors.runtime.door.serving import HttpServer, bind
from connectors.runtime.markup import soap, xml
from connectors.runtime.markup.soapclient import SoapClient
from connectors.runtime.partner.partner import Partner, PartnerSettings
from connectors.simulators.kit.simulation import SimulatorSettings
from connectors.simulators.vimis import create_app

SCHEMA = "{http://www.w3.org/2001/XMLSchema}schema"
DOCUMENT = b'<ClinicalDocument xmlns="urn:hl7-org:v3"><id extension="kv-1.1"/></ClinicalDocument>'


def schema(wsdl: Path) -> etree.XMLSchema:
    found = etree.parse(str(wsdl)).find(f".//{SCHEMA}")
    assert found is not None
    return etree.XMLSchema(found)


def request() -> contract.SendDocument:
    terms = contract.load_terms()
    return contract.SendDocument(
        terms.vmcl, terms.doc_type, terms.doc_type_version, terms.trigger_point, DOCUMENT
    )


def test_zeep_with_the_real_wsdl_talks_to_our_simulator(data: Path) -> None:
    async def run() -> tuple[str, str]:
        server = HttpServer(create_app(SimulatorSettings()), channel := bind("127.0.0.1:0", "test"))
        await server.start()
        address = f"http://127.0.0.1:{channel.getsockname()[1]}/receiver"

        def ask() -> str:
            client = zeep.Client(str(data / "vimis" / "vimis_receiver.wsdl"))
            service = client.create_service(
                "{http://vimis.rosminzdrav.ru/}receiverSoapBinding", address
            )
            return str(service.sendDocument(**msgspec.to_builtins(request())))

        partner = Partner("vimis", PartnerSettings(address))
        ours = SoapClient(partner, contract.WSDL)
        try:
            theirs = await asyncio.to_thread(ask)
            fields = msgspec.to_builtins(request())
            given = await ours.call("sendDocument", contract.MessageId, "key", fields)
            return theirs, given.msg_id
        finally:
            ours.close()
            await partner.close()
            await server.stop()

    assert asyncio.run(run()) == ("V-1", "V-1")


def test_our_request_and_answer_are_valid_by_the_real_schema(data: Path) -> None:
    valid = schema(data / "vimis" / "vimis_receiver.wsdl")
    ours = zeep.Client(str(contract.WSDL))
    envelope = ours.create_message(ours.service, "sendDocument", **msgspec.to_builtins(request()))
    valid.assertValid(soap.read_envelope(etree.tostring(envelope)).body)
    answer = etree.Element(f"{{{contract.SERVICE}}}returnMsgId")
    xml.write(answer, contract.MessageId("V-1"), None)
    valid.assertValid(answer)


def test_our_callbacks_are_valid_by_the_real_schema_and_read_by_our_server(data: Path) -> None:
    valid = schema(data / "vimis" / "vimis_callback.wsdl")
    for name, value in (
        ("sendResult", contract.Result("V-1", 1, "ok")),
        ("sendInterimMsg", contract.Interim("V-1", "wait")),
    ):
        root = etree.Element(f"{{{contract.CALLBACK}}}{name}")
        xml.write(root, value, None)
        valid.assertValid(root)
        assert xml.read(root, type(value)) == value


def test_our_wsdl_has_no_other_operations_and_fields_than_the_real_one(data: Path) -> None:
    ours, real = (
        zeep.Client(str(contract.WSDL)),
        zeep.Client(str(data / "vimis" / "vimis_receiver.wsdl")),
    )
    for name in ("sendDocument", "returnMsgId"):
        element = f"{{{contract.SERVICE}}}{name}"
        shapes = [client.get_element(element).type.elements for client in (ours, real)]
        told = [[(one, e.accepts_multiple, e.is_optional) for one, e in shape] for shape in shapes]
        assert told[0] == told[1]
