"""Who somebody is, asked at the search service for persons by SOAP."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

from connectors.partners.rmis import RmisConnector
from connectors.simulators.kit.people import people
from connectors.simulators.kit.simulation import SimulatorSettings
from connectors.simulators.rmis import search as server
from connectors.simulators.rmis.simulator import create_app
from proto.errors import Code, RequestFailed
from proto.message import Message
from tests.contract.stage import Bus, Scene, scene
from tests.ports import free_port

KNOWN = people(0)


def play(
    bus: Bus, folder: Path, act: Callable[[Scene], Awaitable[None]], timeout_s: float = 10.0
) -> None:
    async def whole() -> None:
        port = free_port()
        service = {"url": f"http://127.0.0.1:{port}{server.PATH}", "timeout_s": timeout_s}
        settings: dict[str, Any] = {"state_file": folder / "numbers.db", "search": service}
        settings |= {"question_timeout_s": 10.0}
        simulator = SimulatorSettings()
        async with scene(bus, RmisConnector, create_app, simulator, port=port, **settings) as stage:
            await act(stage)

    asyncio.run(whole())


async def ask(stage: Scene, **body: Any) -> Any:
    connector = stage.connector
    assert isinstance(connector, RmisConnector)
    return await connector.answer(Message.new("patient.lookup.v1", "smp", body))


def test_found_ambiguous_and_nobody_are_answers(bus: Bus, tmp_path: Path) -> None:
    first, second = KNOWN[0], KNOWN[1]
    names = {key: first[key] for key in ("family", "given", "birth_date")}
    home = {"age_years": 60, "street": second["street"], "house": second["house"]}

    async def act(stage: Scene) -> None:
        for question in (
            {"enp": second["enp"]},
            {"policy_series": "99", "policy_number": second["enp"]},
            {key: second[key] for key in ("family", "given", "birth_date")},
            {key: second[key] for key in ("family", "given")} | home,
        ):
            answer = await ask(stage, **question)
            (found,) = answer["patients"]
            assert (answer["outcome"], found["id"]) == ("found", second["id"])
            assert (found["birth_date"], found["sex"]) == (second["birth_date"], "male")
            assert (found["enp"], found["lives_at"]) == (second["enp"], "Вымышленная, 2")
        both = await ask(stage, **names)
        assert (both["outcome"], len(both["patients"])) == ("ambiguous", 2)
        nobody = {"family": "НИКТО", "given": "ИВАН", "birth_date": "1990-01-01"}
        assert (await ask(stage, **nobody))["outcome"] == "not_found"
        assert not (await stage.ledger())["asked"]  # the dialect's own question was not asked

    play(bus, tmp_path, act)


def test_a_system_that_does_not_answer_is_not_nobody(bus: Bus, tmp_path: Path) -> None:
    trouble = {"family": server.TROUBLE, "given": "ИВАН", "birth_date": "1990-01-01"}

    async def act(stage: Scene) -> None:
        with pytest.raises(RequestFailed) as failed:
            await ask(stage, **trouble)
        assert failed.value.code == Code.FAILED
        assert server.TROUBLE not in str(failed.value)

    play(bus, tmp_path, act)


@pytest.mark.parametrize(
    "fault", [{"down": True}, {"delay_s": 1.0}, {"spoil": "half"}, {"spoil": "html"}], ids=str
)
def test_a_service_in_trouble_fails_the_question_and_not_the_next(
    bus: Bus, tmp_path: Path, fault: dict[str, Any]
) -> None:
    async def act(stage: Scene) -> None:
        await stage.faults(**fault)
        with pytest.raises(RequestFailed):
            await ask(stage, enp=KNOWN[1]["enp"])
        await stage.faults(down=False, delay_s=0.0, spoil="")
        assert (await ask(stage, enp=KNOWN[1]["enp"]))["outcome"] == "found"

    play(bus, tmp_path, act, timeout_s=0.5 if "delay_s" in fault else 10.0)
