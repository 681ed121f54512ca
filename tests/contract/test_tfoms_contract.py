"""The insurance fund's connector and its stand-in: answers in every dialect, questions without
sense, faults, and the call cards that are kept."""

import asyncio
import shutil
import tempfile
from collections.abc import Awaitable, Callable
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import pytest

from connectors.partners.tfoms import TfomsConnector, hl7
from connectors.partners.tfoms.connector import question_of
from connectors.partners.tfoms.token import AskedToken
from connectors.runtime.checks import make_enp
from connectors.runtime.partner.breaker import BreakerSettings
from connectors.runtime.partner.partner import Partner, PartnerSettings
from connectors.simulators.kit.people import people
from connectors.simulators.kit.simulation import SimulatorSettings
from connectors.simulators.tfoms.fund import INSURER, INSURER_OGRN, LAPSED, MOVED
from connectors.simulators.tfoms.simulator import create_app
from proto import catalogue, schemas
from proto.client import Reject, Retry
from proto.errors import RequestFailed
from proto.exits import StartError
from proto.message import Message
from tests.contract.stage import Bus, Scene, scene
from tests.ports import free_port
from tests.until import until

KNOWN = people(0)
FIRST, TWIN = KNOWN[0], KNOWN[-1]
PATIENT = {"breaker": {"failures_max": 99}}
QUICK = {"timeout_s": 0.3, "connect_timeout_s": 0.2}
DAY = "2026-11-23"
DIALECTS = ("canonical", "ferzl", "hl7")
CARD = catalogue.entry("call.card.v1").example


def play(
    bus: Bus, act: Callable[[Scene], Awaitable[None]], dialect: str = "canonical", **changes: Any
) -> None:
    async def whole() -> None:
        folder = Path(tempfile.mkdtemp(prefix="smpbus-"))
        port = free_port()
        url = f"http://127.0.0.1:{port}"
        settings = {"dialect": dialect, "store_file": folder / "cards.db", **changes}
        partner = {**PATIENT, **settings.pop("partner", {})}
        if dialect != "canonical":
            partner["url"] = f"{url}/{dialect}"
        if dialect == "ferzl":
            client = folder / "client"
            client.touch(0o600)
            client.write_text("smp:secret")
            token = {"url": f"{url}/token", "credentials_file": client, **PATIENT}
            settings.setdefault("ferzl", {"territory": "99000", "token": token})
        if dialect == "hl7":
            settings["hl7"] = {"insurers": {INSURER_OGRN: INSURER}}
        told = SimulatorSettings()
        try:
            async with scene(
                bus, TfomsConnector, create_app, told, port=port, partner=partner, **settings
            ) as stage:
                await act(stage)
        finally:
            shutil.rmtree(folder)

    asyncio.run(whole())


async def drive(stage: Scene, **behaviour: Any) -> None:
    answer = await stage.simulator.request("POST", "/drive", msgspec.json.encode(behaviour))
    assert answer.status == 202


async def ask(stage: Scene, **question: Any) -> Any:
    body = {"on_date": DAY, **question}
    message = Message.new("insurance.lookup.v1", "smp", body)
    connector = stage.connector
    assert isinstance(connector, TfomsConnector)
    return await connector.answer(message)


async def refused(stage: Scene, **question: Any) -> RequestFailed:
    with pytest.raises(RequestFailed) as error:
        await ask(stage, **question)
    for value in question.values():
        assert str(value) not in str(error.value)
    return error.value


@pytest.mark.parametrize("dialect", DIALECTS)
def test_found_ambiguous_and_nobody_are_answers(bus: Bus, dialect: str) -> None:
    async def act(stage: Scene) -> None:
        found = await ask(stage, enp=FIRST["enp"], birth_date=FIRST["birth_date"])
        assert (found["outcome"], found["persons"][0]["enp"]) == ("found", FIRST["enp"])
        person = found["persons"][0]
        assert (person["policy_kind"], person["insurer"], person["policy_number"]) == (
            3, INSURER, FIRST["enp"],
        )  # fmt: skip
        names = {key: FIRST[key] for key in ("family", "given", "birth_date")}
        both = await ask(stage, **names)
        assert both["outcome"] == "ambiguous"
        assert {one["enp"] for one in both["persons"]} == {FIRST["enp"], TWIN["enp"]}
        nobody = await ask(stage, family="НИКТО", given="ИВАН", birth_date="1990-01-01")
        assert nobody == {"outcome": "not_found", "persons": []}

    play(bus, act, dialect)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_the_policy_is_that_of_the_date(bus: Bus, dialect: str) -> None:
    async def act(stage: Scene) -> None:
        lapsed = KNOWN[LAPSED]["enp"]
        assert (await ask(stage, enp=lapsed))["outcome"] == "not_found"
        message = Message.new(
            "insurance.lookup.v1", "smp", {"enp": lapsed, "on_date": "2024-12-31"}
        )
        assert isinstance(stage.connector, TfomsConnector)
        assert (await stage.connector.answer(message))["outcome"] == "found"
        (moved,) = (await ask(stage, enp=KNOWN[MOVED]["enp"]))["persons"]
        assert moved.get("insurer") != INSURER

    play(bus, act, dialect)


def test_a_token_is_asked_for_once_and_renewed_when_it_is_good_no_more(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        await asyncio.gather(*(ask(stage, enp=one["enp"]) for one in KNOWN[20:40]))
        assert (await stage.ledger())["tokens"] == 1
        await drive(stage, expire=True)
        assert (await ask(stage, enp=FIRST["enp"]))["outcome"] == "found"
        assert (await stage.ledger())["tokens"] == 2

    play(bus, act, "ferzl")


def test_a_token_in_a_file_is_read_when_somebody_has_renewed_it(bus: Bus, tmp_path: Path) -> None:
    file = tmp_path / "token"
    file.touch(0o600)
    file.write_text("good no more")

    async def act(stage: Scene) -> None:
        assert "HTTP 401" in (await refused(stage, enp=FIRST["enp"])).sentence
        basic = {"authorization": "Basic c21wOnNlY3JldA=="}
        given = await stage.simulator.request("POST", "/token", b"", basic)
        file.write_text(msgspec.json.decode(given.body)["access_token"] + "\n")
        assert (await ask(stage, enp=FIRST["enp"]))["outcome"] == "found"

    play(bus, act, "ferzl", ferzl={"territory": "99000", "token_file": file})


def test_an_error_of_the_register_itself_may_pass_and_others_do_not(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        assert isinstance(stage.connector, TfomsConnector)
        asked = schemas.InsuranceQuestion(on_date=msgspec.convert(DAY, date), enp=FIRST["enp"])
        await drive(stage, internal=1)
        assert "INTERNAL_SERVICE_ERROR" in (await refused(stage, enp=FIRST["enp"])).sentence
        assert (await ask(stage, enp=FIRST["enp"]))["outcome"] == "found"
        await drive(stage, refuse="BAD_CRITERIA <b>Иванов")
        with pytest.raises(Reject, match=r"BAD_CRITERIAb$"):
            await stage.connector.dialect.insured(asked)

    play(bus, act, "ferzl")


@pytest.mark.parametrize(("code", "ends"), [("206", "retry"), ("207", "retry"), ("103", "reject")])
def test_an_error_of_table_0357_is_told_by_its_number(bus: Bus, code: str, ends: str) -> None:
    async def act(stage: Scene) -> None:
        await drive(stage, hl7_error=code)
        assert f": {code}" in (await refused(stage, enp=FIRST["enp"])).sentence
        await drive(stage, hl7_error="204")
        assert (await ask(stage, enp=FIRST["enp"]))["outcome"] == "not_found"

    play(bus, act, "hl7")
    assert (code in hl7.PASSING) == (ends == "retry")


def test_an_endpoint_of_tokens_that_is_away_is_left_alone_for_a_while() -> None:
    async def whole() -> None:
        breaker = BreakerSettings(failures_max=2, open_s=60)
        url = f"http://127.0.0.1:{free_port()}"
        partner = Partner("tfoms", PartnerSettings(url=url, breaker=breaker))
        token = AskedToken(partner)
        for _ in range(5):
            with pytest.raises(Retry):
                await token.get()
        assert partner.breaker.failures == 2
        await token.close()

    asyncio.run(whole())


def test_a_dialect_without_its_settings_does_not_start(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        raise AssertionError("it started")

    for table in (None, {"territory": "99000"}):
        with pytest.raises(StartError, match=r"connectors\.tfoms\.ferzl\.token"):
            play(bus, act, "ferzl", ferzl=table)


def test_the_same_question_is_asked_once_however_it_is_spelt(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        names = {"given": FIRST["given"], "birth_date": FIRST["birth_date"]}
        spellings = (FIRST["family"], FIRST["family"].lower(), f" {FIRST['family'].title()} ")
        await asyncio.gather(*(ask(stage, family=one, **names) for one in spellings * 20))
        assert (await stage.ledger())["asked"] == 1

    play(bus, act)


def test_a_question_without_sense_is_refused_by_field_before_anybody_is_asked(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        wrong = FIRST["enp"][:-1] + str((int(FIRST["enp"][-1]) + 1) % 10)
        assert (await refused(stage, enp=wrong)).sentence == "enp: has a wrong check digit"
        other = await refused(stage, enp=FIRST["enp"], birth_date="2001-01-01")
        assert other.sentence == "enp: is of another date of birth"
        assert (await refused(stage, snils="11223344596")).sentence.startswith("snils: ")
        assert "name enp" in (await refused(stage, family="ПРИМЕРОВ")).sentence
        assert (await refused(stage, enp="12")).code == "bad_message"
        assert (await stage.ledger())["asked"] == 0

    play(bus, act)


@pytest.mark.parametrize("dialect", DIALECTS)
@pytest.mark.parametrize(
    "fault",
    [{"down": True}, {"fail": 1.0}, {"delay_s": 1.0}, {"spoil": "half"}, {"spoil": "cut"},
     {"spoil": "html"}, {"spoil": "encoding"}, {"spoil": "redirect"}],
    ids=str,
)  # fmt: skip
def test_a_fund_that_fails_is_an_error_by_name_and_no_answer(
    bus: Bus, fault: dict[str, Any], dialect: str
) -> None:
    async def act(stage: Scene) -> None:
        await stage.faults(**fault)
        error = await refused(stage, enp=FIRST["enp"])
        assert error.code == "failed"
        await stage.faults(down=False, fail=0.0, delay_s=0.0, spoil="")
        assert (await ask(stage, enp=FIRST["enp"]))["outcome"] == "found"

    play(bus, act, dialect, partner=QUICK)


# -- call cards -------------------------------------------------------------------------------


def card(number: int = 1, version: int = 1, **changes: Any) -> Message:
    patient = {key: FIRST[key] for key in ("family", "given", "birth_date", "sex", "enp")}
    body = {"card_id": f"kv-{number}", "version": version, "patients": [patient], **changes}
    return Message.new("call.card.v1", "smp", CARD | body, subject=f"112-{number}")


def kept(stage: Scene) -> Any:
    return stage.connector.figures()["cards"]["kept"]


def test_a_card_is_kept_with_its_policy_and_the_newest_version_holds(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        assert await stage.handle(card()) == "tfoms.kept"
        assert await stage.handle(card()) == "tfoms.same"
        assert await stage.handle(card(version=3, patients=[])) == (
            "tfoms.unpaid why=tfoms.why_nobody"
        )
        assert await stage.handle(card(version=2)) == "tfoms.older"
        assert kept(stage) == {"nobody": 1}
        assert (await stage.ledger())["asked"] == 1
        with pytest.raises(Reject):
            await stage.handle(Message.new("call.card.v1", "smp", {"id": 1}))
        with pytest.raises(Reject):
            await stage.handle(Message.new("call.status.v1", "smp", {}))

    play(bus, act)


@pytest.mark.parametrize("dialect", DIALECTS)
def test_a_card_does_not_wait_for_a_fund_that_is_away_and_is_asked_about_later(
    bus: Bus, dialect: str
) -> None:
    async def act(stage: Scene) -> None:
        await ask(stage, enp=KNOWN[30]["enp"])
        await stage.faults(down=True)
        for number in range(12):
            assert "tfoms.why_silent" in str(await stage.handle(card(number)))
        assert not stage.connector.partner.breaker.closed
        asked = stage.connector.partner.breaker.failures
        assert asked < 12  # the rest was kept without waiting
        await stage.connector.poll()
        assert kept(stage) == {"silent": 12}
        await stage.faults(down=False)

        async def all_are_payable() -> bool:
            await stage.connector.poll()
            return bool(kept(stage) == {"payable": 12})

        await until(all_are_payable, "the fund's answers")

    breaker = {"failures_max": 3, "open_s": 0.05, "open_max_s": 0.1}
    play(bus, act, dialect, again_s=0.01, partner={"breaker": breaker})


def test_somebody_whom_the_fund_does_not_know_is_asked_about_again(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        stranger = {"family": "НИКТО", "given": "ИВАН", "birth_date": "1990-01-01"}
        several = {key: FIRST[key] for key in ("family", "given", "birth_date")}
        await stage.handle(card(1, patients=[stranger]))
        await stage.handle(card(2, patients=[several]))
        assert kept(stage) == {"not_found": 1, "ambiguous": 1}
        assert isinstance(stage.connector, TfomsConnector)
        assert stage.connector.store.take_due(9) == []  # not before its time

    play(bus, act)


def test_every_field_of_a_question_tells_it_from_others() -> None:
    plain = catalogue.entry("insurance.lookup.v1").read(
        b'{"on_date": "2026-11-23", "enp": "6654510822123455", "birth_date": "1984-05-27"}'
    )
    assert isinstance(plain, schemas.InsuranceQuestion)
    document = schemas.IdentityDocument(type=14, number="1")
    changes: dict[str, Any] = {
        "enp": make_enp("99", plain.birth_date, "male", 7) if plain.birth_date else "",
        "snils": "11223344595", "policy_number": "1", "document": document, "family": "А",
        "given": "А", "middle": "А", "birth_date": None,
    }  # fmt: skip
    spelt = {question_of(plain)}
    for name, value in changes.items():
        fields = {key: getattr(plain, key) for key in plain.__struct_fields__}
        spelt.add(question_of(schemas.InsuranceQuestion(**{**fields, name: value})))
    assert len(spelt) == 1 + len(changes)
