"""ЦССИ-112: cards in parts, many in one request, a bad one apart, each once in effect."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from connectors.partners.cssi112 import CssiConnector
from connectors.partners.cssi112.batch import Batch
from connectors.simulators.cssi112 import create_app
from connectors.simulators.kit.simulation import SimulatorSettings
from proto import catalogue
from proto.client import Reject, Retry
from proto.message import Message
from tests.contract.stage import Bus, Scene, scene
from tests.ports import free_port
from tests.until import until

CARD = catalogue.entry("incident.card.v1").example
STATUS = catalogue.entry("call.status.v1").example
ENDED = catalogue.entry("incident.cancelled.v1").example
QUICK = {"timeout_s": 0.5, "connect_timeout_s": 0.2, "breaker": {"failures_max": 99}}
OK = "cssi112.receipt status=OK code=0"


def play(bus: Bus, act: Callable[[Scene], Awaitable[None]], **settings: Any) -> None:
    async def whole() -> None:
        port = free_port()
        partner = {"url": f"http://127.0.0.1:{port}/cssi", **QUICK}
        told = SimulatorSettings()
        settings["partner"] = partner
        async with scene(bus, CssiConnector, create_app, told, port=port, **settings) as stage:
            await act(stage)

    asyncio.run(whole())


def card(number: int = 1, **changes: Any) -> Message:
    id112 = f"112-99-{number:06}"
    body = CARD | {"id112": id112} | changes
    return Message.new("incident.card.v1", "sys112", body, subject=f"112-{id112}")


def status(code: str, **changes: Any) -> Message:
    return Message.new("call.status.v1", "smp", STATUS | {"code": code} | changes)


async def drive(stage: Scene, **behaviour: Any) -> None:
    answer = await stage.simulator.request("POST", "/drive", msgspec.json.encode(behaviour))
    assert answer.status == 202


def test_a_card_goes_whole_and_a_repeat_changes_nothing(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        one = card()
        assert await stage.handle(one) == OK
        assert await stage.handle(one, attempt=2) == OK
        ledger = await stage.ledger()
        (entry,) = ledger["entries"]
        assert entry["card"] == "112-99-000001"
        assert {"Address", "Card03", "CallContent"} <= set(entry["has"])
        assert ledger["repeats"] == 1

    play(bus, act)


def test_each_status_sets_its_time_and_some_are_not_asked_for(bus: Bus) -> None:
    told = {
        "received": ["ReceptionItem"],
        "assigned": ["dtDepart"],
        "accepted": ["dtConfirmDepart"],
        "arrived": ["dtArrival"],
        "finished": ["dtComplete"],
        "cancelled": ["dtCancel"],
    }

    async def act(stage: Scene) -> None:
        for code in told:
            assert await stage.handle(status(code)) == OK
        ledger = await stage.ledger()
        assert [entry["has"] for entry in ledger["entries"]] == list(told.values())
        untold = [status("departed"), status("returned"), status("arrived", id112=None)]
        for one in untold:
            assert "ЦССИ-112" in (await stage.handle(one) or "")
        assert len((await stage.ledger())["entries"]) == len(told)

    play(bus, act)


def test_the_end_of_a_card_is_a_state(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        ended = Message.new("incident.cancelled.v1", "sys112", ENDED)
        assert await stage.handle(ended) == OK
        assert [one["has"] for one in (await stage.ledger())["entries"]] == [[]]

    play(bus, act)


def test_what_waits_goes_together_and_only_the_bad_card_is_refused(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        await drive(stage, refuse=["112-99-000005"])
        await stage.faults(delay_s=0.1)
        told = await asyncio.gather(
            *(stage.handle(card(number)) for number in range(1, 21)), return_exceptions=True
        )
        refused = [answer for answer in told if isinstance(answer, Reject)]
        assert [str(one) for one in refused] == ["cssi112.receipt status=ERROR code=102"]
        assert isinstance(told[4], Reject)
        assert len([answer for answer in told if answer == OK]) == 19
        ledger = await stage.ledger()
        assert len({entry["card"] for entry in ledger["entries"]}) == 19
        assert max(ledger["requests"]) == 10  # the setting
        assert ledger["repeats"] == 0

    play(bus, act, cards_max=10)


@pytest.mark.parametrize(
    "fault",
    [{"down": True}, {"delay_s": 1.0}, {"spoil": "half"}, {"spoil": "html"}, {"spoil": "cut"},
     {"spoil": "encoding"}, {"spoil": "redirect"}, {"fail": 1.0}],
    ids=str,
)  # fmt: skip
def test_in_trouble_all_that_went_together_comes_again(bus: Bus, fault: dict[str, Any]) -> None:
    async def act(stage: Scene) -> None:
        await stage.faults(**fault)
        cards = [card(number) for number in range(1, 6)]
        told = await asyncio.gather(*map(stage.handle, cards), return_exceptions=True)
        assert all(isinstance(one, Retry) and (one.after_s or 0) >= 3.0 for one in told)
        await stage.faults(down=False, delay_s=0, spoil="", fail=0)
        for one in cards:
            assert await stage.handle(one, attempt=2) == OK
        assert len((await stage.ledger())["entries"]) == 5

    play(bus, act)


@pytest.mark.parametrize(
    ("type", "body"), [("call.status.v1", b"{"), ("call.ticket.v1", b"{}")], ids=str
)
def test_what_is_not_for_the_centre_is_rejected(bus: Bus, type: str, body: bytes) -> None:
    async def act(stage: Scene) -> None:
        with pytest.raises(Reject):
            await stage.handle(Message.new(type, "smp", body))
        assert (await stage.ledger())["entries"] == []

    play(bus, act)


def test_whoever_waits_is_told_when_the_sender_is_stopped() -> None:
    async def run() -> list[Any]:
        sent: list[list[int]] = []

        async def send(numbers: list[int]) -> str:
            sent.append(numbers)
            await asyncio.Event().wait()
            raise AssertionError("not reached")

        batch: Batch[int] = Batch(send, 10)
        tasks = [asyncio.create_task(batch.bring(number)) for number in range(3)]
        await until(lambda: sent == [[0]])
        tasks[0].cancel()  # it sends for itself alone; the others are still to be taken
        await until(lambda: sent == [[0], [1, 2]])
        tasks[1].cancel()  # it sends for itself and the third
        return await asyncio.gather(*tasks, return_exceptions=True)

    told = asyncio.run(run())
    assert [type(one) for one in told] == [
        asyncio.CancelledError, asyncio.CancelledError, Retry,
    ]  # fmt: skip
