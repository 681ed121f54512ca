"""What a SOAP client takes for an answer, and what it sends for a question."""

import asyncio
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.responses import Response

from connectors.partners.cssi112 import contract as cssi
from connectors.partners.rmis.search import contract as search
from connectors.partners.rmis.search.client import PersonSearch
from connectors.partners.sys112 import soapdoor
from connectors.partners.tfoms.ferzl import Ferzl, FerzlSettings
from connectors.partners.tfoms.hl7 import Hl7Settings, question
from connectors.partners.vimis import contract as vimis
from connectors.runtime.door.body import BadInput
from connectors.runtime.markup import soap, xml
from connectors.runtime.markup.multiref import FOLLOWED_MAX
from connectors.runtime.markup.soapclient import SoapClient
from connectors.runtime.partner.partner import BadReply, Partner, PartnerSettings
from proto import clinical, schemas
from proto.client import Reject, Retry
from tests.faults.partnerhouse import PAGE, Side

ASKED = {"msg_id": "1"}
NOBODY = clinical.PatientQuestion(enp="7700000000000000", family="Канарейкина")


def enveloped(inner: str) -> bytes:
    return (
        f'<?xml version="1.0"?><s:Envelope xmlns:s="{soap.SOAP11}" xmlns:v="{vimis.SERVICE}" '
        f'xmlns:c="s112" xmlns:r="{search.NAMESPACE}"><s:Body>{inner}</s:Body></s:Envelope>'
    ).encode()


def answered(inner: str, status: int = 200) -> Response:
    return Response(enveloped(inner), status, media_type="text/xml")


async def _ask(
    side: Side, wsdl: Path, operation: str, shape: Any, fields: dict[str, Any], times: int = 1
) -> Any:
    async with side.listening() as url:
        partner = Partner("test", msgspec.convert({"url": url, "system": "ТЕСТ"}, PartnerSettings))
        client = SoapClient(partner, wsdl)
        try:
            for number in range(times):
                told = await client.call(operation, shape, f"key {number}", fields)
            return told
        finally:
            client.close()
            await partner.close()


def status_of(answer: Response, times: int = 1) -> vimis.Status:
    found: vimis.Status = asyncio.run(
        _ask(Side(lambda _: answer), vimis.WSDL, "checkStatus", vimis.Status, ASKED, times)
    )
    return found


GOOD = "<v:returnStatus><status>7</status></v:returnStatus>"
NONE_OF_IT = [
    ("a foreign element", answered("<v:foreign><status>7</status></v:foreign>")),
    ("another operation's", answered("<v:returnMsgId><msg_id>7</msg_id></v:returnMsgId>")),
    ("what was asked", answered("<v:checkStatus><msg_id>1</msg_id></v:checkStatus>")),
    ("an error element", answered("<v:error><status>7</status></v:error>")),
    ("a field missing", answered("<v:returnStatus/>")),
    ("a field empty", answered("<v:returnStatus><status/></v:returnStatus>")),
    ("an unreadable value", answered("<v:returnStatus><status>seven</status></v:returnStatus>")),
    ("two elements", answered(GOOD + GOOD)),
    ("no element", answered("")),
    ("an HTTP error", answered(GOOD, 400)),
    ("202 with nothing", Response(status_code=202)),
    ("204", Response(status_code=204)),
    ("200 with nothing", Response(b"")),
    ("a page", Response(PAGE, 200, media_type="text/html")),
    ("a page that is XML", Response(b"<html xmlns='http://www.w3.org/1999/xhtml'/>", 500)),
    ("JSON", Response(b"{}")),
]


@pytest.mark.fault("C3")
@pytest.mark.fault("C9")
@pytest.mark.parametrize("answer", [pytest.param(one, id=name) for name, one in NONE_OF_IT])
def test_what_is_not_the_operations_answer_is_a_failure_of_the_partner(answer: Response) -> None:
    """Any element was taken for the answer: a foreign one, HTTP 202 or an error element counted as
    taken, an empty one as "not found", an XHTML page under 500 as a success of the partner."""
    with pytest.raises(BadReply):
        status_of(answer)


@pytest.mark.fault("C3")
def test_a_card_is_not_lost_to_an_answer_that_says_nothing() -> None:
    """Sibling: of the centre of 112 `<Response/>` and an empty status are no acceptance."""
    card = {"Ukio": [{"globalId": "1", "dtSend": "2026-11-30T10:00:00+03:00",
                      "bWrong": False, "bChildPlay": False}]}  # fmt: skip

    def sent(inner: str) -> Any:
        side = Side(lambda _: answered(inner))
        return asyncio.run(_ask(side, cssi.WSDL, "send_ukio", cssi.Reply, card))

    assert sent("<c:Response><c:status>OK</c:status></c:Response>") == cssi.Reply("OK")
    for inner in ("<c:Response/>", "<c:Response><c:status/></c:Response>",
                  "<c:Response><c:status>OK</c:status><c:errorCode>x</c:errorCode></c:Response>",
                  "<c:Accepted><c:status>OK</c:status></c:Accepted>"):  # fmt: skip
        with pytest.raises(BadReply):
            sent(inner)


def found(inner: str) -> clinical.PatientAnswer:
    async def act() -> clinical.PatientAnswer:
        side = Side(lambda _: answered(inner))
        async with side.listening() as url:
            service = PersonSearch("test", msgspec.convert({"url": url}, PartnerSettings))
            try:
                return await service.identify(NOBODY)
            finally:
                await service.close()

    return asyncio.run(act())


def wrapped(inner: str) -> str:
    wrap = f"<searchResponseWrap>{inner}</searchResponseWrap>"
    return (
        "<r:searchPersonServicesResponse><searchedResponseServicesWrap>"
        f"{wrap}</searchedResponseServicesWrap></r:searchPersonServicesResponse>"
    )


PERSON = (
    "<id>1</id><surname>Канарейкина</surname><name>Анна</name><birthday>1980-01-02+03:00</birthday>"
    "<gender>2</gender>"
)


@pytest.mark.fault("C3")
def test_an_empty_answer_is_not_nobody() -> None:
    """`<searchPersonServicesResponse/>` was "not found"."""
    with pytest.raises(BadReply):
        found("<r:searchPersonServicesResponse/>")


@pytest.mark.fault("C6")
def test_an_empty_list_of_phps_is_nobody() -> None:
    """`<personsData/>`, as PHP's SoapServer writes an empty list, made the answer unreadable."""
    assert found(wrapped("<personsData/>")).outcome == "not_found"
    assert found(wrapped(f"<personsData/><personsData>{PERSON}</personsData>")).outcome == "found"


@pytest.mark.fault("C6")
def test_what_is_referred_to_is_read_where_it_is_meant() -> None:
    """`href="#ref1"`, as SOAP encoding has it, was read as empty, silently."""
    once = wrapped('<personsData href="#ref1"/>')
    told = found(once + f'<multiRef id="ref1">{PERSON}</multiRef>')
    assert (told.outcome, told.patients[0].family) == ("found", "Канарейкина")
    inline = wrapped(f'<personsData id="ref1">{PERSON}</personsData><personsData href="#ref1"/>')
    assert found(inline).patients[0].family == "Канарейкина"


@pytest.mark.fault("C6")
@pytest.mark.parametrize(
    "inner",
    [
        '<a href="#b"/>',
        '<a id="a"><b href="#a"/></a>',
        '<a href="#b"/><b id="b"><c href="#d"/></b><d id="d"><e href="#b"/></d>',
        "<a>" + "".join(f'<l{n} id="i{n}">' + f'<x href="#i{n + 1}"/>' * 9 + f"</l{n}>"
                        for n in range(9)) + '<l9 id="i9"/></a>',
        "<a>" + '<x href="#i"/>' * (FOLLOWED_MAX + 1) + '<y id="i"/></a>',
    ],
    ids=["nothing", "its own parent", "a ring", "grows without end", "very many"],
)  # fmt: skip
def test_a_reference_that_leads_nowhere_or_on_without_end_is_refused(inner: str) -> None:
    """Small documents may mean very large ones: they end at the limits of any document."""
    with pytest.raises(BadInput):
        soap.read_envelope(enveloped(inner))


@pytest.mark.fault("C6")
def test_one_element_more_lets_the_rest_be_read_and_is_told_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One element that the WSDL does not know stopped identification altogether."""
    more = "<v:returnStatus><status>7</status><since><day>1</day></since></v:returnStatus>"
    assert status_of(answered(more), times=3).status == 7
    told = [record.getMessage() for record in caplog.records]
    assert len(told) == 1
    assert "ТЕСТ" in told[0]
    assert "since" in told[0]


@pytest.mark.fault("C4")
@pytest.mark.fault("C9")
def test_a_request_says_once_what_it_is() -> None:
    """Requests carried two Content-Type lines, JSON first, and `accept: application/json`."""
    side = Side(lambda _: answered(GOOD))
    asyncio.run(_ask(side, vimis.WSDL, "checkStatus", vimis.Status, ASKED))
    _one_of(side, {
        "content-type": "text/xml; charset=utf-8", "accept": "text/xml",
        "soapaction": '"checkStatus"', "idempotency-key": "key 0",
    })  # fmt: skip


def _one_of(side: Side, wanted: dict[str, str]) -> None:
    lines = [name for name, _ in side.raw_heads[0]]
    assert all(lines.count(name) == 1 for name in wanted)
    assert {name: dict(side.raw_heads[0])[name] for name in wanted} == wanted


@pytest.mark.fault("C4")
@pytest.mark.parametrize("version", [soap.SOAP11, soap.SOAP12])
def test_requests_without_a_wsdl_say_so_too(version: str) -> None:
    """Sibling: the other client, SOAP 1.1 with an empty SOAPAction, 1.2 without."""
    side = Side(lambda _: answered("<x/>"))

    async def act() -> None:
        async with side.listening() as url:
            partner = Partner("test", msgspec.convert({"url": url}, PartnerSettings))
            body = xml.parse(b"<Ask/>")
            await soap.ask(partner, "", body, "k", lambda call: call.raw, soap=version)
            await partner.close()

    asyncio.run(act())
    kind = soap.CONTENT_TYPE[version]
    _one_of(side, {"content-type": f"{kind}; charset=utf-8", "accept": kind})
    heads = dict(side.raw_heads[0])
    assert heads.get("soapaction") == ('""' if version == soap.SOAP11 else None)


@pytest.mark.fault("D10")
def test_what_xml_cannot_hold_is_refused_by_us_and_not_repeated() -> None:
    """A control character in a policy made the client raise ValueError for ever."""
    side = Side(lambda _: answered(GOOD))
    with pytest.raises(Reject):
        asyncio.run(_ask(side, vimis.WSDL, "checkStatus", vimis.Status, {"msg_id": "1\x01"}))
    assert side.asked == []


@pytest.mark.fault("C7")
@pytest.mark.parametrize("birthday", ["02.01.1980", "1980-13-45", "Канарейкина"])
def test_no_log_line_quotes_a_value_that_cannot_be_read(
    birthday: str, caplog: pytest.LogCaptureFixture
) -> None:
    """zeep logged a traceback with a birth date in it."""
    caplog.set_level("DEBUG")
    with pytest.raises(Retry) as told:
        found(wrapped(f"<personsData><birthday>{birthday}</birthday></personsData>"))
    assert birthday not in caplog.text
    assert birthday not in str(told.value)


@pytest.mark.fault("C3")
@pytest.mark.parametrize("inner", ["<v:error><Code>200</Code></v:error>", "<Code>200</Code>"])
def test_without_a_wsdl_an_answer_is_a_response_still(inner: str) -> None:
    """Sibling: System-112 and the register of documents took any element with the right field."""
    good = soap.read_envelope(
        enveloped("<AddReactionResponse><Code>200</Code></AddReactionResponse>")
    )
    assert soapdoor.code_of(good) == "200"
    with pytest.raises(BadInput):
        soapdoor.code_of(soap.read_envelope(enveloped(inner)))


@pytest.mark.fault("C3")
def test_an_answer_of_the_fund_that_says_nothing_is_not_nobody() -> None:
    """Sibling: of the register of the insured an empty response was "not found"."""
    side = Side(lambda _: answered("<findPersonsByPersCriteriaResponse/>"))

    async def act() -> None:
        async with side.listening() as url:
            partner = Partner("test", msgspec.convert({"url": url}, PartnerSettings))
            with tempfile.NamedTemporaryFile() as token:
                token.write(b"token")
                token.flush()
                settings = FerzlSettings(territory="45000", token_file=Path(token.name))
                asked = schemas.InsuranceQuestion(family="Иванова", on_date=date(2026, 1, 1))
                with pytest.raises(BadReply):
                    await Ferzl("test", partner, settings).insured(asked)
            await partner.close()

    asyncio.run(act())


@pytest.mark.fault("D10")
def test_a_question_to_the_fund_that_xml_cannot_hold_is_refused_by_us() -> None:
    """Sibling: in a question by HL7 it was a mistake of ours, again and again."""
    asked = schemas.InsuranceQuestion(policy_number="12\x0134", on_date=date(2026, 1, 1))
    with pytest.raises(Reject):
        question(asked, "1", Hl7Settings())
