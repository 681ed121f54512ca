"""System-112 by SOAP: the same five operations, the same messages, the protocol's own codes."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from lxml import etree

from connectors.partners.sys112 import Sys112Connector, contract, soapdoor
from connectors.runtime.markup import soap, xml
from connectors.simulators.kit.simulation import SimulatorSettings
from connectors.simulators.sys112.samples import Sample, day_of_cards
from connectors.simulators.sys112.simulator import create_app
from proto import catalogue
from proto.client import Reject, Retry
from proto.errors import Code
from proto.message import Message
from tests.contract.stage import Bus, Scene, scene
from tests.ports import free_port

QUICK = {"timeout_s": 0.5, "connect_timeout_s": 0.2, "breaker": {"failures_max": 99}}
DAY = day_of_cards(3, 40)
CARD = next(one for one in DAY if one.kind == "new")


def play(bus: Bus, act: Callable[[Scene], Awaitable[None]], *, strict: bool = False) -> None:
    async def whole() -> None:
        told = SimulatorSettings(repeat_s=0.05, strict=strict)
        port = free_port()
        partner = {"url": f"http://127.0.0.1:{port}{soapdoor.PATH}", **QUICK}
        settings: dict[str, Any] = {"protocol": "soap", "partner": partner, "repeat_after_s": 3.0}
        async with scene(bus, Sys112Connector, create_app, told, port=port, **settings) as stage:
            await act(stage)

    asyncio.run(whole())


async def push(stage: Scene, samples: list[Sample], *, by_soap: bool = True) -> list[Any]:
    before = len((await stage.ledger())["answers"])
    body = {"cards": [one.push() | {"soap": by_soap} for one in samples]}
    answer = await stage.simulator.request("POST", "/drive", msgspec.json.encode(body))
    assert answer.status == 202
    found = await stage.wait(lambda ledger: len(ledger["answers"]) >= before + len(samples))
    return list(found["answers"][before:])


async def ask(stage: Scene, name: str, body: Any) -> soapdoor.PlainReply:
    root = etree.Element(f"{{{soapdoor.NAMESPACE}}}{name}Request")
    xml.write(root, body, soapdoor.NAMESPACE)
    answer = await stage.send("POST", soapdoor.PATH, soap.envelope(root))
    found = soap.read_envelope(answer.body).body
    assert found.tag == f"{{{soapdoor.NAMESPACE}}}{name}Response"
    return xml.read(found, soapdoor.PlainReply)


def status(code: str) -> Message:
    body = catalogue.entry("call.status.v1").example | {"code": code}
    return Message.new("call.status.v1", "smp", body, subject="112-x")


def test_a_day_by_soap_makes_the_same_messages_as_by_json(bus: Bus) -> None:
    whole = [one for one in DAY if one.kind != "malformed"]

    async def act(stage: Scene) -> None:
        answers = await push(stage, whole)
        assert {answer["Code"] for answer in answers} == {"200"}
        by_soap = {one.id: one for one in bus.accepted}
        bus.accepted.clear()
        await push(stage, whole, by_soap=False)
        by_json = {one.id: one for one in bus.accepted}
        cards = [id for id, one in by_json.items() if one.type == "incident.card.v1"]
        assert cards
        for id in cards:  # the same id: what came both ways is one message
            assert by_soap[id].json() == by_json[id].json()
            assert by_soap[id].subject == by_json[id].subject
        kinds = [sorted(one.type for one in way.values()) for way in (by_soap, by_json)]
        assert kinds[0] == kinds[1]

    play(bus, act)


def test_what_breaks_the_contract_is_500_with_the_field_and_told_to_the_bus(bus: Bus) -> None:
    (bad,) = [one for one in DAY if one.kind == "malformed"]

    async def act(stage: Scene) -> None:
        (answer,) = await push(stage, [bad])
        assert (answer["Code"], answer["CodeDescr"]) == (
            "500", "Card.CommonData.TypeStr: is required",
        )  # fmt: skip
        nameless = CARD.body | {"Card": CARD.body["Card"] | {"Id112": ""}}
        reply = await ask(stage, "UpdateCard", nameless)
        assert (reply.Code, reply.CodeDescr) == ("500", "Card.Id112: is required")

    play(bus, act)
    rules = [(one["path"], one["rule"]) for one in bus.bodies("input.rejected.v1")]
    assert rules == [("Card.CommonData.TypeStr", "is required"), ("Card.Id112", "is required")]


def test_unknown_elements_are_carried_on(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        card = CARD.body["Card"] | {"Weather": {"Snow": "yes"}}
        assert (await ask(stage, "UpdateCard", CARD.body | {"Card": card})).Code == "200"

    play(bus, act)
    (told,) = bus.bodies("incident.card.v1")
    assert told["extensions"]["Card.Weather"] == {"Snow": "yes"}


def test_a_bus_that_is_away_is_503_and_the_card_comes_again(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        bus.refuse = Code.STORE_FULL
        waiting = asyncio.create_task(push(stage, [CARD]))
        await stage.wait(lambda ledger: ledger["pushes_repeated"] >= 2)
        bus.refuse = None
        assert [one["Code"] for one in await waiting] == ["200"]

    play(bus, act)
    assert len(bus.bodies("incident.card.v1")) == 1


@pytest.mark.parametrize(
    ("code", "operation"),
    [("assigned", "AddReaction"), ("arrived", "AddReaction"), ("finished", "FinishReaction")],
)
def test_a_status_is_one_reaction_however_often_it_comes(
    bus: Bus, code: str, operation: str
) -> None:
    async def act(stage: Scene) -> None:
        given = status(code)
        assert await stage.handle(given) == "HTTP 200, Code 200"
        assert await stage.handle(given, attempt=2) == "HTTP 200, Code 200"
        ledger = await stage.ledger()
        assert [one["operation"] for one in ledger["entries"]] == [operation]
        assert ledger["repeats"] == 1

    play(bus, act)


def test_a_card_goes_back_by_soap(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        update = catalogue.entry("incident.card_update.v1").example
        assert await stage.handle(Message.new("incident.card_update.v1", "smp", update))
        assert (await stage.ledger())["entries"][0]["operation"] == "UpdateCard"

    play(bus, act)


def test_a_card_that_112_does_not_know_is_a_dead_letter(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        with pytest.raises(Reject, match="Code 404"):
            await stage.handle(status("assigned"))

    play(bus, act, strict=True)


@pytest.mark.parametrize(
    "fault",
    [{"down": True}, {"delay_s": 1.0}, {"spoil": "half"}, {"spoil": "html"}, {"spoil": "cut"},
     {"spoil": "encoding"}, {"spoil": "redirect"}, {"fail": 1.0}],
    ids=str,
)  # fmt: skip
def test_in_trouble_it_is_told_again_not_sooner_than_three_seconds(
    bus: Bus, fault: dict[str, Any]
) -> None:
    async def act(stage: Scene) -> None:
        await stage.faults(**fault)
        with pytest.raises(Retry) as later:
            await stage.handle(status("assigned"))
        assert later.value.after_s is not None
        assert later.value.after_s >= 3.0
        await stage.faults(down=False, delay_s=0, spoil="", fail=0)
        await stage.handle(status("assigned"), attempt=2)
        assert len((await stage.ledger())["entries"]) == 1

    play(bus, act)


def test_every_shape_of_the_contract_survives_soap() -> None:
    update = msgspec.convert(CARD.body, contract.UpdateCard)
    root = soapdoor.request("UpdateCard", update)
    found = xml.read(xml.parse(xml.render(root)), contract.UpdateCard)
    assert found == update
