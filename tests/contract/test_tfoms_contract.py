"""The insurance fund's connector and its stand-in: answers, questions without sense, faults."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest
from stage import Bus, Scene, scene

from connectors.runtime.checks import make_enp
from connectors.runtime.simulation import SimulatorSettings
from connectors.tfoms import TfomsConnector
from connectors.tfoms.connector import question_of
from connectors.tfoms.simulator import create_app, people
from proto import catalogue, schemas
from proto.errors import RequestFailed
from proto.message import Message

KNOWN = people(0)
FIRST, TWIN = KNOWN[0], KNOWN[-1]
QUICK = {"timeout_s": 0.3, "connect_timeout_s": 0.2, "breaker": {"failures_max": 99}}
DAY = "2026-11-23"


def play(bus: Bus, act: Callable[[Scene], Awaitable[None]]) -> None:
    async def whole() -> None:
        settings = SimulatorSettings()
        async with scene(bus, TfomsConnector, create_app, settings, partner=QUICK) as stage:
            await act(stage)

    asyncio.run(whole())


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


def test_found_ambiguous_and_nobody_are_answers(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        found = await ask(stage, enp=FIRST["enp"], birth_date=FIRST["birth_date"])
        assert (found["outcome"], found["persons"][0]["enp"]) == ("found", FIRST["enp"])
        names = {key: FIRST[key] for key in ("family", "given", "birth_date")}
        both = await ask(stage, **names)
        assert both["outcome"] == "ambiguous"
        assert {one["enp"] for one in both["persons"]} == {FIRST["enp"], TWIN["enp"]}
        nobody = await ask(stage, family="НИКТО", given="ИВАН", birth_date="1990-01-01")
        assert nobody == {"outcome": "not_found", "persons": []}

    play(bus, act)


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


@pytest.mark.parametrize(
    "fault",
    [{"down": True}, {"fail": 1.0}, {"delay_s": 5.0}, {"spoil": "half"}, {"spoil": "cut"},
     {"spoil": "html"}, {"spoil": "encoding"}, {"spoil": "redirect"}],
    ids=str,
)  # fmt: skip
def test_a_fund_that_fails_is_an_error_by_name_and_no_answer(
    bus: Bus, fault: dict[str, Any]
) -> None:
    async def act(stage: Scene) -> None:
        await stage.faults(**fault)
        error = await refused(stage, enp=FIRST["enp"])
        assert error.code == "failed"
        await stage.faults(down=False, fail=0.0, delay_s=0.0, spoil="")
        assert (await ask(stage, enp=FIRST["enp"]))["outcome"] == "found"

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
