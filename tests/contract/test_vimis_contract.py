"""ВИМИС: only the cards it wants, each document once, its verdict by callback or by asking."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from connectors.partners.vimis import VimisConnector
from connectors.partners.vimis.contract import load_terms
from connectors.simulators.demo.signing import make_signer
from connectors.simulators.kit.simulation import SimulatorSettings
from connectors.simulators.vimis import create_app
from proto import catalogue, clinical
from proto.client import Retry
from proto.message import Message
from tests.contract.stage import Bus, Scene, scene
from tests.ports import free_port

CARD = catalogue.entry("call.card.v1").example
SUBJECT = "112-112-99-000001"
QUICK = {"timeout_s": 0.5, "connect_timeout_s": 0.2, "breaker": {"failures_max": 99}}


def play(bus: Bus, folder: Path, act: Callable[[Scene], Awaitable[None]]) -> None:
    async def whole() -> None:
        told = SimulatorSettings(pace_s=0.05, repeat_s=0.05)
        document = {
            "organisation": {"oid": "1.2.643.5.1.13.13.12.2.99.9999", "name": "Станция СМП"},
            "archive_file": folder / "documents.db",
            "signer": make_signer(folder / "keys"),
        }
        port = free_port()
        partner = {"url": f"http://127.0.0.1:{port}/receiver", **QUICK}
        settings = {"partner": partner, "document": document}
        async with scene(bus, VimisConnector, create_app, told, port=port, **settings) as stage:
            await act(stage)

    asyncio.run(whole())


def card(**changes: Any) -> Message:
    return Message.new("call.card.v1", "smp", CARD | changes, subject=SUBJECT)


async def drive(stage: Scene, **behaviour: Any) -> None:
    answer = await stage.simulator.request("POST", "/drive", msgspec.json.encode(behaviour))
    assert answer.status == 202


def states(bus: Bus) -> list[str]:
    told = {one.id: one for one in bus.accepted if one.type == "document.state.v1"}
    return [msgspec.json.decode(one.body)["state"] for one in told.values()]


def timers(bus: Bus, purpose: str) -> list[Message]:
    found = [one for one in bus.accepted if one.type == "document.timer.v1"]
    return [one for one in found if msgspec.json.decode(one.body)["purpose"] == purpose]


async def rest(stage: Scene) -> Any:
    return await stage.wait(lambda ledger: not ledger["living"])


def test_a_heart_attack_is_sent_once_and_taken(bus: Bus, tmp_path: Path) -> None:
    async def act(stage: Scene) -> None:
        await drive(stage, twice=True)
        await stage.handle(card())
        await stage.handle(card(), 1, 2)
        ledger = await rest(stage)
        assert [one["doc_type"] for one in ledger["entries"]] == [18]
        assert ledger["wrong"] == []
        assert ledger["repeats"] == 0
        assert stage.connector.figures() == {"documents": {"registered": 1}}

    play(bus, tmp_path, act)
    assert states(bus) == ["accepted", "registered"]
    last = bus.bodies("document.state.v1")[-1]
    assert (last["register"], last["number"]) == ("vimis", "V-1")


def test_what_is_no_matter_of_the_heart_goes_nowhere(bus: Bus, tmp_path: Path) -> None:
    async def act(stage: Scene) -> None:
        note = await stage.handle(card(diagnoses=[{"code": "J06.9"}]))
        assert note == "document.not_wanted"
        assert (await stage.ledger())["entries"] == []

    play(bus, tmp_path, act)
    assert bus.accepted == []


@pytest.mark.parametrize(
    ("code", "wanted"),
    [("I20.0", True), ("I20.1", False), ("I21", True), ("I21.9", True), ("I63.9", True),
     ("G45.9", True), ("I65", False), ("J06.9", False)],
)  # fmt: skip
def test_diagnoses_that_are_wanted(code: str, wanted: bool) -> None:
    given = msgspec.convert(CARD | {"diagnoses": [{"code": code}]}, clinical.CallCard, strict=False)
    assert load_terms().wants(given) is wanted


def test_a_refusal_is_told_with_its_status(bus: Bus, tmp_path: Path) -> None:
    async def act(stage: Scene) -> None:
        await drive(stage, status=5)
        await stage.handle(card())
        await rest(stage)

    play(bus, tmp_path, act)
    assert states(bus) == ["accepted", "rejected"]
    assert bus.bodies("document.state.v1")[-1]["code"] == "5"


def test_a_silent_one_is_asked_until_it_says_something(bus: Bus, tmp_path: Path) -> None:
    async def act(stage: Scene) -> None:
        await drive(stage, silent=True, status=0)
        await stage.handle(card())
        (check,) = timers(bus, "check")
        with pytest.raises(Retry) as later:
            await stage.handle(check, 2)
        assert later.value.after_s == 3600
        await drive(stage, silent=True, status=1)
        await stage.handle(card(card_id="kv-2"), 3)
        await stage.handle(timers(bus, "check")[-1], 4)
        (deadline, _) = timers(bus, "deadline")
        await stage.handle(deadline, 5)

    play(bus, tmp_path, act)
    assert sorted(states(bus)) == ["accepted", "accepted", "gave_up", "registered"]


@pytest.mark.parametrize(
    "fault",
    [{"down": True}, {"delay_s": 1.0}, {"spoil": "half"}, {"spoil": "html"},
     {"spoil": "encoding"}, {"spoil": "redirect"}, {"fail": 1.0}],
    ids=str,
)  # fmt: skip
def test_in_trouble_it_is_asked_again_and_has_one_document(
    bus: Bus, tmp_path: Path, fault: dict[str, Any]
) -> None:
    async def act(stage: Scene) -> None:
        await stage.faults(**fault)
        with pytest.raises(Retry):
            await stage.handle(card())
        await stage.faults(down=False, delay_s=0, spoil="", fail=0)
        await stage.handle(card(), 1, 2)
        assert len((await rest(stage))["entries"]) == 1

    play(bus, tmp_path, act)
    # The verdict may come before the repeat whose answer says "accepted".
    assert states(bus) in (["accepted", "registered"], ["registered"])
