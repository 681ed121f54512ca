"""РЭМД: a card becomes a document, the register asks for its file and has the last word."""

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from connectors.partners.remd import RemdConnector, contract
from connectors.partners.remd.verdict import load_verdicts
from connectors.runtime.markup import soap, xml
from connectors.simulators.demo.signing import make_signer
from connectors.simulators.kit.simulation import SimulatorSettings
from connectors.simulators.remd import create_app
from proto import catalogue, frames
from proto.client import Reject, Retry
from proto.errors import Code
from proto.message import Message, now_ms
from tests.contract.stage import Bus, Scene, scene
from tests.ports import free_port
from tests.until import until

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
        settings = {"client": "client-1", "reply_to": "http://127.0.0.1/remd", "document": document}
        url = f"http://127.0.0.1:{(port := free_port())}"
        settings |= {"partner": {"url": f"{url}/emdr", **QUICK}}
        async with scene(bus, RemdConnector, create_app, told, port=port, **settings) as stage:
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


async def rest(stage: Scene) -> Any:
    return await stage.wait(lambda ledger: not ledger["living"])


def test_a_card_is_registered_and_told_of_under_its_own_subject(bus: Bus, tmp_path: Path) -> None:
    async def act(stage: Scene) -> None:
        assert await stage.handle(card()) is not None
        ledger = await rest(stage)
        assert [(one["kind"], one["version"]) for one in ledger["entries"]] == [("115", 1)]
        assert ledger["wrong"] == []
        assert stage.connector.figures() == {"documents": {"registered": 1}}

    play(bus, tmp_path, act)
    assert states(bus) == ["accepted", "registered"]
    told = [one for one in bus.accepted if one.type == "document.state.v1"]
    assert {one.subject for one in told} == {SUBJECT}
    numbers = (told[-1].correlation_id or "").split()
    body: Any = told[-1].json()
    assert numbers == ["99.26.11.000000001", body["document_id"], "kv-2026-4711"]
    (timer,) = [one for one in bus.accepted if one.type == "document.timer.v1"]
    assert timer.not_before is not None
    assert timer.not_before - now_ms() > 14 * 86_400_000
    assert timer.subject != SUBJECT


def test_callbacks_twice_and_before_the_answer_double_nothing(bus: Bus, tmp_path: Path) -> None:
    async def act(stage: Scene) -> None:
        await drive(stage, twice=True, early=True)
        await stage.handle(card())
        await stage.handle(card(), 2)
        await rest(stage)
        assert len((await stage.ledger())["entries"]) == 1

    play(bus, tmp_path, act)
    assert states(bus) == ["accepted", "registered"]


def test_a_correction_is_a_new_version_and_an_older_card_is_none(bus: Bus, tmp_path: Path) -> None:
    async def act(stage: Scene) -> None:
        await stage.handle(card(version=4), 1)
        await stage.handle(card(version=6), 2)
        assert await stage.handle(card(version=5), 3) == "document.older"
        ledger = await rest(stage)
        assert sorted(one["version"] for one in ledger["entries"]) == [1, 2]
        assert len({one["number"] for one in ledger["entries"]}) == 1

    play(bus, tmp_path, act)


def test_an_unknown_patient_is_registered_too(bus: Bus, tmp_path: Path) -> None:
    async def act(stage: Scene) -> None:
        await stage.handle(card(patients=[{"sex": "unknown"}], crew=[]))
        ledger = await rest(stage)
        assert [one["patient_known"] for one in ledger["entries"]] == [False]

    play(bus, tmp_path, act)


def test_what_may_pass_is_sent_again_later_by_a_timer(bus: Bus, tmp_path: Path) -> None:
    async def act(stage: Scene) -> None:
        await drive(stage, reject="INTERNAL_ERROR", times=1)
        await stage.handle(card())
        await rest(stage)
        again = bus.accepted[-1]
        assert (again.type, again.json()["purpose"]) == ("document.timer.v1", "again")  # type: ignore[index]
        assert again.not_before is not None
        assert again.not_before - now_ms() > 50_000
        await stage.handle(again, 2)
        ledger = await rest(stage)
        assert len(ledger["entries"]) == 1

    play(bus, tmp_path, act)
    assert states(bus) == ["accepted", "registered"]


@pytest.mark.parametrize("sync", [True, False])
def test_what_the_ambulance_must_correct_is_told_with_its_code(
    bus: Bus, tmp_path: Path, sync: bool
) -> None:
    async def act(stage: Scene) -> None:
        await drive(stage, reject="PERSON_NOT_FOUND", times=1, sync=sync)
        await stage.handle(card())
        await rest(stage)
        await stage.handle(card(version=5), 2)
        await rest(stage)

    play(bus, tmp_path, act)
    assert states(bus)[-1] == "registered"
    (code,) = [one["code"] for one in bus.bodies("document.state.v1") if one["state"] == "rejected"]
    assert code == "PERSON_NOT_FOUND"


def test_what_nobody_there_can_mend_is_a_dead_letter(bus: Bus, tmp_path: Path) -> None:
    async def act(stage: Scene) -> None:
        await drive(stage, reject="ACCESS_DENIED", times=1, sync=True)
        with pytest.raises(Reject, match="ACCESS_DENIED"):
            await stage.handle(card())
        await stage.handle(card(), 2)  # replayed after mending
        await rest(stage)

    play(bus, tmp_path, act)
    assert states(bus) == ["rejected", "registered"]


def test_asked_too_often_the_card_waits_a_minute(bus: Bus, tmp_path: Path) -> None:
    async def act(stage: Scene) -> None:
        await drive(stage, reject="RATE_LIMIT", times=1, sync=True)
        with pytest.raises(Retry) as later:
            await stage.handle(card())
        assert later.value.after_s == 60

    play(bus, tmp_path, act)


def test_after_the_deadline_the_waiting_ends_unless_there_was_an_answer(
    bus: Bus, tmp_path: Path
) -> None:
    async def act(stage: Scene) -> None:
        await stage.handle(card())
        timer = bus.accepted[0]
        assert timer.type == "document.timer.v1"
        await rest(stage)
        await stage.handle(timer, 2)
        assert states(bus)[-1] == "registered"
        await stage.faults(spoil="html")
        with pytest.raises(Retry):
            await stage.handle(card(card_id="kv-2"), 3)
        lonely = stage.connector
        assert isinstance(lonely, RemdConnector)
        document = lonely.life.archive.of_card("kv-2", CARD["version"])
        assert document is not None
        await lonely.life.wait_for_answer(document)
        await stage.handle(bus.accepted[-1], 4)

    play(bus, tmp_path, act)
    assert states(bus)[-1] == "gave_up"


@pytest.mark.parametrize(
    "fault",
    [{"down": True}, {"delay_s": 1.0}, {"spoil": "half"}, {"spoil": "html"},
     {"spoil": "encoding"}, {"spoil": "redirect"}, {"fail": 1.0}],
    ids=str,
)  # fmt: skip
def test_a_register_in_trouble_is_asked_again_and_has_one_document(
    bus: Bus, tmp_path: Path, fault: dict[str, Any]
) -> None:
    async def act(stage: Scene) -> None:
        await stage.faults(**fault)
        with pytest.raises(Retry):
            await stage.handle(card())
        await stage.faults(down=False, delay_s=0, spoil="", fail=0)
        await stage.handle(card(), 1, 2)
        ledger = await rest(stage)
        assert len(ledger["entries"]) == 1

    play(bus, tmp_path, act)
    assert states(bus).count("registered") == 1


def test_a_bus_that_is_away_is_a_fault_and_the_register_repeats(bus: Bus, tmp_path: Path) -> None:
    async def act(stage: Scene) -> None:
        await stage.handle(card())
        bus.refuse, published = Code.STORE_FULL, bus.heard[frames.PUBLISH]
        await until(lambda: bus.heard[frames.PUBLISH] > published, "a refusal")
        bus.refuse = None
        await rest(stage)

    play(bus, tmp_path, act)
    assert states(bus)[-1] == "registered"


def test_the_file_is_served_as_it_was_signed_and_strangers_get_a_fault(
    bus: Bus, tmp_path: Path
) -> None:
    async def ask(stage: Scene, uid: str) -> xml.Element:
        shape = contract.GetDocumentFile(local_uid=uid)
        body = soap.envelope(contract.element("getDocumentFileRequest", shape), soap=soap.SOAP12)
        answer = await stage.send("POST", "/remd", body)
        return soap.read_envelope(answer.body).body

    async def act(stage: Scene) -> None:
        await drive(stage, reject="INTERNAL_ERROR", times=1)  # it is at work on it still
        await stage.handle(card())
        connector = stage.connector
        assert isinstance(connector, RemdConnector)
        document = connector.life.archive.of_card(CARD["card_id"], CARD["version"])
        assert document is not None
        file = xml.read(await ask(stage, document.uid), contract.DocumentFile)
        assert file.content == document.file
        assert hashlib.sha256(file.content).hexdigest() == file.checksum
        assert file.signature == [document.signature]
        assert xml.local(await ask(stage, "nobody")) == "Fault"

    play(bus, tmp_path, act)


@pytest.mark.parametrize(
    "changes",
    [
        {"reason": {"code": "99", "system": "1.2.643.5.1.13.13.11.1524"}},
        {"reason": {"code": "1", "system": "our own list"}},
        {"complaints": "bell \x07"},
    ],
    ids=["code", "system", "character"],
)
def test_a_card_of_which_no_document_can_be_made_is_a_dead_letter_with_the_field(
    bus: Bus, tmp_path: Path, changes: dict[str, Any]
) -> None:
    async def act(stage: Scene) -> None:
        with pytest.raises(Reject) as refused:
            await stage.handle(card(**changes))
        assert "bell" not in str(refused.value)
        assert any(word in str(refused.value) for word in ("1524", "reason", "complaints"))

    play(bus, tmp_path, act)


def test_verdicts_the_worst_code_decides() -> None:
    verdicts = load_verdicts()
    assert verdicts.of(["RATE_LIMIT"]) == "again"
    assert verdicts.of(["RATE_LIMIT", "NO_SNILS"]) == "correct"
    assert verdicts.of(["NO_SNILS", "NO_RMIS"]) == "stop"
    assert verdicts.of(["NOT_UNIQUE_PROVIDED_ID"]) == "done"
    assert verdicts.of(["SOMETHING_NEW"]) == "stop"
    assert verdicts.of([]) == "stop"
