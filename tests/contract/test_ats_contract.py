"""The exchange's connector and a stand-in for Asterisk, over real TCP."""

import asyncio
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from proto import catalogue
from proto.client import Consumer, Delivery, Reject, Retry
from proto.message import Message
from tests.contract.stage import Bus, Scene
from tests.contract.switchboard import PACE_S, connector_of, distinct, drive, exchange
from tests.until import until


def check_calls(bus: Bus, ended: list[str], answered: list[str]) -> None:
    """Every call began once and ended once; each body is as the catalogue says."""
    counts = Counter((one["call_id"], one["event"]) for one in distinct(bus, "telephony.call.v1"))
    assert {id for id, kind in counts if kind == "started"} == set(ended)
    assert {id for id, kind in counts if kind == "ended"} == set(ended)
    assert {id for id, kind in counts if kind == "answered"} <= set(answered)
    assert all(
        n == 1 for (_, kind), n in counts.items() if kind in ("started", "ended", "answered")
    )
    for message in bus.accepted:
        catalogue.entry(message.type).read(message.body)


def calls_ended(bus: Bus) -> int:
    return sum(one["event"] == "ended" for one in distinct(bus, "telephony.call.v1"))


@pytest.mark.fault("S19")
def test_it_logs_in_by_a_challenge(bus: Bus, tmp_path: Path) -> None:
    """As it does where the exchange is on another machine and speaks no TLS."""

    async def work() -> None:
        async with exchange(bus, tmp_path, login="md5") as scene:
            await scene.wait(lambda ledger: ledger["logins"])

    asyncio.run(work())


def test_calls_operators_and_groups_come_out(bus: Bus, tmp_path: Path) -> None:
    async def work() -> None:
        async with exchange(bus, tmp_path) as scene:
            await scene.wait(lambda ledger: ledger["logins"])
            await drive(scene, calls=20, garbage=3)
            await until(lambda: calls_ended(bus) == 20)
            ledger = await scene.ledger()
            check_calls(bus, ledger["ended"], ledger["answered"])
            kinds = Counter(one["event"] for one in distinct(bus, "telephony.call.v1"))
            assert kinds["answered"] == len(ledger["answered"])
            await until(lambda: sum(g["offered"] for g in bus.bodies("telephony.group.v1")) == 20)
            groups = bus.bodies("telephony.group.v1")
            assert sum(one["answered"] for one in groups) == len(ledger["answered"])
            assert groups[-1]["logged_in"] == 3
            states = {one["state"] for one in bus.bodies("telephony.operator.v1")}
            assert states >= {"free", "ringing", "talking"}

    asyncio.run(work())


def test_a_line_that_breaks_in_the_middle_leaves_no_call_hanging(bus: Bus, tmp_path: Path) -> None:
    def again(number: int) -> Callable[[Any], bool]:
        return lambda ledger: ledger["logins"] >= number + 2

    async def work() -> None:
        async with exchange(bus, tmp_path) as scene:
            await scene.wait(lambda ledger: ledger["logins"])
            for number in range(3):
                await drive(scene, calls=10)
                await asyncio.sleep(PACE_S)
                await drive(scene, **{"break": True})
                await scene.wait(again(number))
            ledger = await scene.wait(lambda ledger: not ledger["living"])
            await until(lambda: not connector_of(scene)._hearing.calls.calls)
            begun = {one["call_id"] for one in distinct(bus, "telephony.call.v1")
                     if one["event"] == "started"}  # fmt: skip
            await until(lambda: calls_ended(bus) == len(begun))
            assert begun <= set(ledger["ended"])
            check_calls(bus, sorted(begun), ledger["answered"])

    asyncio.run(work())


def test_what_ended_while_the_connector_was_away_is_told(bus: Bus, tmp_path: Path) -> None:
    async def work() -> None:
        async with exchange(bus, tmp_path) as scene:
            await scene.wait(lambda ledger: ledger["logins"])
            await drive(scene, calls=3)
            await until(lambda: len(bus.bodies("telephony.call.v1")) >= 3)
        before = calls_ended(bus)

        async with exchange(bus, tmp_path):
            await until(lambda: calls_ended(bus) == 3)
        assert before < 3

    asyncio.run(work())


def test_a_wrong_secret_is_said_and_tried_again_later(
    bus: Bus, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        async with exchange(bus, tmp_path, secret="wrong"):
            await until(lambda: "АТС не приняла" in caplog.text)

    asyncio.run(work())
    assert "wrong" not in caplog.text


def dial(operator: str, id: str = "d1") -> Message:
    body = {"operator": operator, "number": "+70000000001", "id112": "112-99-1"}
    return Message.new("telephony.dial.v1", "smp", body, subject="112-112-99-1", id=id)


async def handle(scene: Scene, message: Message, attempt: int = 1) -> str | None:
    consumer = Consumer(scene.connector.bus._session, "ats", 1, {})
    return await scene.connector.handle(Delivery(consumer, 1, attempt, message))


def test_dialling_ends_in_one_result(bus: Bus, tmp_path: Path) -> None:
    async def work() -> None:
        async with exchange(bus, tmp_path) as scene:
            with pytest.raises(Retry):
                await handle(scene, dial("op-01"))
            await scene.wait(lambda ledger: ledger["logins"])
            await until(lambda: connector_of(scene)._line.session)
            assert await handle(scene, dial("op-01"), attempt=2) == "connected"
            assert await handle(scene, dial("nobody", "d2")) == "failed"
            assert await handle(scene, dial("op-01"), attempt=3) == "unknown"
            with pytest.raises(Reject):
                await handle(scene, dial("op-01\r\nAction: Logoff"))
            ledger = await scene.ledger()
            assert [one["channel"] for one in ledger["dialled"]] == ["PJSIP/op-01", "PJSIP/nobody"]
            await until(lambda: len(distinct(bus, "telephony.dialled.v1")) == 2)
            results = distinct(bus, "telephony.dialled.v1")
            assert [one["result"] for one in results] == ["connected", "failed"]

    asyncio.run(work())


@pytest.mark.parametrize("body", [{"contact": "Канарейкина"}, {"id112": None}, b"", b'"\xff'])
def test_a_body_that_is_none_is_refused_and_not_quoted(bus: Bus, tmp_path: Path, body: Any) -> None:
    card = catalogue.entry("incident.card.v1").example
    given = card | body if isinstance(body, dict) else body

    async def work() -> None:
        async with exchange(bus, tmp_path) as scene:
            message = Message.new("incident.card.v1", "sys112", given, subject="112-x")
            with pytest.raises(Reject) as refused:
                await handle(scene, message)
            assert str(refused.value) == "connector.bad_body"

    asyncio.run(work())


def test_a_card_is_joined_to_the_call_it_came_of(bus: Bus, tmp_path: Path) -> None:
    async def work() -> None:
        async with exchange(bus, tmp_path) as scene:
            await scene.wait(lambda ledger: ledger["logins"])
            await drive(scene, calls=1)
            await until(lambda: bus.bodies("telephony.call.v1"))
            call = bus.bodies("telephony.call.v1")[0]
            card = catalogue.entry("incident.card.v1").example
            contact = card["contact"] | {"caller": {"phone": call["number_from"]}}
            body = card | {"contact": contact}
            message = Message.new("incident.card.v1", "sys112", body, subject="112-x")
            assert await handle(scene, message) == call["call_id"]
            await until(lambda: bus.bodies("telephony.joined.v1"))
            (joined,) = bus.bodies("telephony.joined.v1")
            assert (joined["call_id"], joined["id112"]) == (call["call_id"], card["id112"])

    asyncio.run(work())
