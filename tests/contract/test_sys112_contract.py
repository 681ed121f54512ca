"""System-112's contract: the connector and the simulator, both ways, with faults."""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest
from stage import Bus, Scene, scene

from connectors.runtime.simulation import SimulatorSettings
from connectors.sys112 import Sys112Connector
from connectors.sys112.samples import Sample, day_of_cards
from connectors.sys112.simulator import create_app
from proto import catalogue
from proto.client import Reject, Retry
from proto.errors import Code
from proto.message import Message
from proto.wording import text

CARD = next(one for one in day_of_cards(11, 5) if one.kind == "new")
REST_S = 0.05


def play(bus: Bus, act: Callable[[Scene], Awaitable[None]], **settings: Any) -> None:
    async def whole() -> None:
        strict = settings.pop("strict", True)
        told = SimulatorSettings(repeat_s=0.05, strict=strict)
        async with scene(bus, Sys112Connector, create_app, told, **settings) as stage:
            await act(stage)

    asyncio.run(whole())


def status(code: str, id112: str = CARD.id112) -> Message:
    body = catalogue.entry("call.status.v1").example | {"code": code, "id112": id112}
    return Message.new("call.status.v1", "smp", body, subject=f"112-{id112}")


async def push(stage: Scene, samples: list[Sample]) -> list[Any]:
    """Drive the simulator and wait until it has an answer to everything."""
    before = len((await stage.ledger())["answers"])
    body = {"cards": [one.push() for one in samples]}
    answer = await stage.simulator.request("POST", "/drive", msgspec.json.encode(body))
    assert answer.status == 202
    found = await stage.wait(lambda ledger: len(ledger["answers"]) >= before + len(samples))
    return list(found["answers"][before:])


def test_a_day_of_cards_arrives_and_the_malformed_one_is_refused_by_name(bus: Bus) -> None:
    day = day_of_cards(3, 40)

    async def act(stage: Scene) -> None:
        answers = await push(stage, day)
        assert sorted({answer["Code"] for answer in answers}) == ["200", "400"]
        bad = [answer for answer in answers if answer["Code"] == "400"]
        assert [answer["CodeDescr"] for answer in bad] == ["Card.CommonData.TypeStr: is required"]

    play(bus, act)
    cards = {message.id for message in bus.accepted if message.type == "incident.card.v1"}
    updates = [one for one in day if one.operation == "update" and one.kind != "malformed"]
    assert len(cards) == len(updates) - len([one for one in day if one.kind == "double"])
    for message in bus.accepted:
        catalogue.entry(message.type).read(message.body)
        assert message.subject.startswith("112-99-")
    (rejected,) = bus.bodies("input.rejected.v1")
    assert rejected["path"] == "Card.CommonData.TypeStr"
    assert rejected["operation"] == "UpdateCard"
    cancelled = bus.bodies("incident.cancelled.v1")
    assert len(cancelled) == len([one for one in day if one.kind == "cancel"])


def test_a_repeat_of_112_has_the_same_id_and_a_correction_another(bus: Bus) -> None:
    corrected = msgspec.json.decode(msgspec.json.encode(CARD.body))
    corrected["Card"]["Changed"] = "2030-01-01T00:00:00+03:00"
    path = f"/112/cards/{CARD.id112}"

    async def act(stage: Scene) -> None:
        for body in (CARD.body, CARD.body, corrected):
            assert (await stage.send("PUT", path, body)).status == 200

    play(bus, act)
    ids = [message.id for message in bus.accepted]
    assert ids[0] == ids[1] != ids[2]


def test_the_bus_is_silent_then_112_is_asked_to_repeat_and_nothing_is_lost(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        bus.silent = True
        answer = await stage.send("PUT", f"/112/cards/{CARD.id112}", CARD.body)
        assert answer.status == 503
        assert int(answer.headers["retry-after"]) >= 1
        reply = msgspec.json.decode(answer.body)
        assert reply["Code"] == "503"
        assert reply["CodeDescr"].endswith("repeat.")
        assert bus.accepted == []
        bus.silent = False
        stage.reconnect()
        assert (await push(stage, [CARD]))[0]["Code"] == "200"

    play(bus, act, accept_timeout_s=0.2)
    assert {message.subject for message in bus.accepted} == {f"112-{CARD.id112}"}
    assert len({message.id for message in bus.accepted}) == 1


@pytest.mark.parametrize(
    ("code", "status", "retry_after"),
    [(Code.QUEUE_FULL, 503, "7"), (Code.STORE_FULL, 503, "7"), (Code.NO_ROUTE, 500, None)],
)
def test_what_the_bus_refuses_is_told_to_112(
    bus: Bus, code: Code, status: int, retry_after: str | None
) -> None:
    async def act(stage: Scene) -> None:
        bus.refuse = code
        answer = await stage.send("PUT", f"/112/cards/{CARD.id112}", CARD.body)
        assert answer.status == status
        assert answer.headers.get("retry-after") == retry_after

    play(bus, act)


def test_a_body_too_long_is_413_and_an_odd_path_404(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        path = f"/112/cards/{CARD.id112}"
        assert (await stage.send("PUT", path, b"x" * 5000)).status == 413
        assert (await stage.send("PUT", "/112/other", b"{}")).status == 404
        assert (await stage.send("GET", path, b"")).status == 405
        assert (await stage.send("PUT", f"{path}?x=1", b"{")).status == 400

    play(bus, act, body_bytes_max=4096)


def test_statuses_become_reactions_once_each_and_the_note_says_so(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        await push(stage, [CARD])
        for number, code in enumerate(("assigned", "departed", "arrived", "finished"), 1):
            for attempt in (1, 2):
                note = await stage.handle(status(code), number, attempt)
                assert note == "HTTP 200, Code 200"
        note = await stage.handle(status("returned"), 9)
        assert note == text("connector.note_untold", system="112")
        ledger = await stage.ledger()
        assert [(entry["operation"], entry.get("action")) for entry in ledger["entries"]] == [
            ("AddReaction", "Notification"),
            ("AddReaction", "Departure"),
            ("AddReaction", "Arrival"),
            ("FinishReaction", None),
        ]
        assert ledger["repeats"] == 4
        assert ledger["entries"][0]["key"] == "testbus-1"

    play(bus, act)


def test_a_card_goes_back(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        example = catalogue.entry("incident.card_update.v1").example
        message = Message.new("incident.card_update.v1", "smp", example, subject="112-x")
        assert await stage.handle(message) == "HTTP 200, Code 200"
        assert (await stage.ledger())["entries"][0]["operation"] == "UpdateCard"

    play(bus, act, strict=False)


def test_a_card_that_112_does_not_know_is_rejected(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        with pytest.raises(Reject, match="HTTP 404, Code 404"):
            await stage.handle(status("departed", "unknown"))

    play(bus, act)


@pytest.mark.parametrize(("type", "body"), [("call.status.v1", b"{}"), ("odd.type.v1", b"{}")])
def test_what_is_no_status_is_rejected(bus: Bus, type: str, body: bytes) -> None:
    async def act(stage: Scene) -> None:
        with pytest.raises(Reject):
            await stage.handle(Message.new(type, "smp", body))

    play(bus, act)


def test_a_partner_that_is_down_means_retry_later_each_time_and_opens_the_breaker(
    bus: Bus,
) -> None:
    async def act(stage: Scene) -> None:
        await push(stage, [CARD])
        await stage.faults(down=True)
        waits = []
        for attempt in (1, 2, 3, 9):
            with pytest.raises(Retry, match="HTTP 503") as caught:
                await stage.handle(status("departed"), 1, attempt)
            waits.append(caught.value.after_s)
        assert waits == [3.0, 6.0, 12.0, 300.0]
        assert not stage.connector.partner.breaker.closed
        await stage.faults(down=False)
        await asyncio.sleep(REST_S)
        assert await stage.handle(status("departed"), 1, 10) == "HTTP 200, Code 200"
        assert stage.connector.partner.breaker.closed
        assert len((await stage.ledger())["entries"]) == 1

    play(bus, act, partner={"breaker": {"failures_max": 4, "open_s": REST_S}})


def test_a_lost_answer_is_repeated_and_applied_once(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        await push(stage, [CARD])
        await stage.faults(fail=0.6)
        attempts = 0
        for number in range(1, 11):
            while True:
                attempts += 1
                with contextlib.suppress(Retry):
                    assert await stage.handle(status("departed"), number) == "HTTP 200, Code 200"
                    break
        assert attempts > 10
        ledger = await stage.ledger()
        assert len(ledger["entries"]) == 10
        assert ledger["repeats"] > 0

    play(bus, act)


def test_a_partner_too_slow_or_not_there_means_retry(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        await push(stage, [CARD])
        await stage.faults(delay_s=5)
        with pytest.raises(Retry, match="нет ответа: timeout"):
            await stage.handle(status("departed"))

    play(bus, act, partner={"timeout_s": 0.2})

    async def absent(stage: Scene) -> None:
        with pytest.raises(Retry, match="нет ответа: connect"):
            await stage.handle(status("departed"))

    play(bus, absent, partner={"url": "http://127.0.0.1:9"})
