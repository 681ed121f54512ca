"""Times that a partner may write down and nobody can represent."""

from datetime import datetime
from typing import Any

import msgspec
import pytest
from lxml import etree

from connectors.partners.sys112 import contract, soapdoor
from connectors.runtime.door.body import BadInput, convert
from connectors.runtime.markup import soap, xml
from connectors.runtime.oddities import is_representable
from proto import catalogue
from tests.contract.stage import Bus, Scene
from tests.faults.doorstep import CARD, CARD_PATH, play

pytestmark = pytest.mark.fault("D12")
BEYOND = (
    "9999-12-31T23:59:59.999999-23:59",
    "9999-12-31T23:59:59Z",
    "0001-01-01T00:00:00+23:59",
    "0001-01-01T00:00:00Z",
)
WITHIN = ("2026-02-29T00:00:00Z", "2026-13-01T00:00:00Z", "1970-01-01T00:00:00")


def card(path: str, value: str) -> Any:
    body = msgspec.json.decode(msgspec.json.encode(CARD.body))
    place = body
    *steps, last = path.split(".")
    for step in steps:
        place = place[step]
    place[last] = value
    return body


@pytest.mark.parametrize(
    "path", ["Card.Changed", "Card.Created", "Card.CommonData.TimeIsoStr", "Ier.IerIsoTime"]
)
def test_a_time_at_the_end_of_time_is_refused_by_name(path: str) -> None:
    """`Changed` 9999-12-31T23:59:59.999999-23:59 gave a bare 500: no zone to the east has it."""

    async def act(stage: Scene, _: Bus) -> None:
        for value in BEYOND:
            answer = await stage.send("PUT", CARD_PATH, card(path, value))
            assert answer.status == 400, value
            told = msgspec.json.decode(answer.body)["CodeDescr"]
            assert told == f"{path}: is a time that cannot be represented"
        for value in WITHIN:
            answer = await stage.send("PUT", CARD_PATH, card(path, value))
            assert answer.status == 400
            assert path in msgspec.json.decode(answer.body)["CodeDescr"]

    play("sys112", act)


def test_and_by_soap() -> None:
    """The same card in the protocol's own form."""

    async def act(stage: Scene, _: Bus) -> None:
        root = etree.Element(f"{{{soapdoor.NAMESPACE}}}UpdateCardRequest")
        xml.write(root, card("Card.Changed", BEYOND[1]), soapdoor.NAMESPACE)
        answer = await stage.send("POST", soapdoor.PATH, soap.envelope(root))
        reply = xml.read(soap.read_envelope(answer.body).body, soapdoor.CardReply)
        assert reply.Code == "500"  # as the protocol has it
        assert reply.CodeDescr == "Card.Changed: is a time that cannot be represented"

    play("sys112", act)


@pytest.mark.parametrize(
    ("path", "type", "field"),
    [
        ("/bus/status", "call.status.v1", "occurred_at"),
        ("/bus/cards", "incident.card_update.v1", "changed_at"),
        ("/bus/tickets", "call.ticket.v1", "received_at"),
        ("/bus/call-cards", "call.card.v1", "finished_at"),
    ],
)
def test_whatever_the_ambulance_posts(path: str, type: str, field: str) -> None:
    """The siblings: a connector behind the bus would have failed at each attempt."""

    async def act(stage: Scene, _: Bus) -> None:
        for value in BEYOND:
            body = catalogue.entry(type).example | {field: value}
            answer = await stage.send("POST", path, body)
            assert answer.status == 400, answer.body
            told = msgspec.json.decode(answer.body)["sentence"]
            assert told == f"{field}: is a time that cannot be represented"

    play("smp", act)


def test_what_lasts_for_ever_may_be_said_of_a_message() -> None:
    """A message that never expires is no mistake."""
    status = catalogue.entry("call.status.v1").example
    sent = {"type": "call.status.v1", "payload": status, "expires": BEYOND[0]}

    async def act(stage: Scene, _: Bus) -> None:
        answer = await stage.send("POST", "/queue/send", {"messages": [sent]})
        assert msgspec.json.decode(answer.body)["results"][0]["code"] == 200

    play("smp", act)


def test_one_function_judges() -> None:
    """In every zone there is a time for it, or it is refused."""
    assert all(not is_representable(datetime.fromisoformat(one)) for one in BEYOND)
    for near in ("0001-01-02T12:00:00+00:00", "9999-12-30T12:00:00+00:00"):
        assert is_representable(datetime.fromisoformat(near))
    raw = {"SysCode": "112", **card("Card.Changed", BEYOND[0])}
    with pytest.raises(BadInput, match=r"Card\.Changed"):
        convert(raw, contract.UpdateCard)
