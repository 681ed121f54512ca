"""The ambulance system's contract: the connector and the simulator, both ways, with faults."""

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import msgspec
import pytest

from connectors.partners.smp import SmpConnector
from connectors.simulators.kit.simulation import SimulatorSettings
from connectors.simulators.smp.simulator import LIFE, ON_PLACE, create_app
from proto import catalogue
from proto.client import Reject, Retry
from proto.message import Message
from tests.contract.stage import Bus, Scene, scene

CARD = catalogue.entry("incident.card.v1").example
ENDED = catalogue.entry("incident.cancelled.v1").example
STATUS = catalogue.entry("call.status.v1").example


def play(bus: Bus, act: Callable[[Scene], Awaitable[None]], **settings: Any) -> None:
    settings.setdefault("question_timeout_s", 0.1)  # nobody answers the ambulance's questions here

    async def whole() -> None:
        told = SimulatorSettings(repeat_s=0.05, pace_s=settings.pop("pace_s", 0.01))
        async with scene(bus, SmpConnector, create_app, told, **settings) as stage:
            await act(stage)

    asyncio.run(whole())


def card(**changes: Any) -> Message:
    return Message.new("incident.card.v1", "sys112", CARD | changes)


async def calls(stage: Scene) -> list[Any]:
    """Wait until every call has been lived to its end."""
    ledger = await stage.wait(lambda ledger: not ledger["living"])
    return list(ledger["calls"])


def codes(bus: Bus, id112: str = CARD["id112"]) -> list[str]:
    events = bus.bodies("call.status.v1")
    return [event["code"] for event in events if event["id112"] == id112]


def test_a_card_becomes_a_call_that_is_lived_in_order(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        note = await stage.handle(card())
        assert note is not None
        assert note.startswith("HTTP 201, created ")
        (call,) = await calls(stage)
        assert call["status"] == "returned"

    play(bus, act, clinical=True)
    wanted = [code for code in LIFE if code not in ON_PLACE]
    assert [code for code in codes(bus) if code not in ON_PLACE] == wanted
    assert {message.subject for message in bus.accepted} == {f"112-{CARD['id112']}"}
    assert bus.accepted[0].type == "call.ticket.v1"
    for message in bus.accepted:
        catalogue.entry(message.type).read(message.body)


def test_tickets_go_nowhere_where_they_are_switched_off(bus: Bus) -> None:
    ticket = catalogue.entry("call.ticket.v1").example

    async def act(stage: Scene) -> None:
        answer = await stage.send("POST", "/bus/tickets", ticket)
        assert answer.status == 200
        assert b"switched off" in answer.body

    play(bus, act, clinical=False)
    assert bus.accepted == []


def test_the_same_key_again_and_an_older_card_change_nothing(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        await stage.handle(card(), 1)
        await stage.handle(card(), 1, 2)
        newer = card(changed_at="2026-11-23T09:00:00+03:00", description="новее")
        older = card(changed_at="2026-11-23T08:50:00+03:00", description="старее")
        assert "updated" in str(await stage.handle(newer, 2))
        assert "older" in str(await stage.handle(older, 3))
        (call,) = await calls(stage)
        assert call["description"] == "новее"
        assert (await stage.ledger())["repeats"] == 1

    play(bus, act)
    assert len(codes(bus)) == len(set(codes(bus)))


@pytest.mark.parametrize("order", [(1, 2, 3), (3, 2, 1), (2, 3, 1), (3, 1, 2)])
def test_the_newest_card_holds_in_whatever_order_they_come(
    bus: Bus, order: tuple[int, ...]
) -> None:
    async def act(stage: Scene) -> None:
        for number in order:
            at = f"2026-11-23T09:0{number}:00+03:00"
            await stage.handle(card(changed_at=at, description=f"правка {number}"), number)
        (call,) = (await stage.ledger())["calls"]
        assert call["description"] == "правка 3"

    play(bus, act)


def test_of_cards_changed_at_the_same_moment_the_one_that_came_last_holds(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        utc = "2026-11-23T05:14:40+00:00"  # the same moment, said in another zone
        for number, at in enumerate((CARD["changed_at"], utc), 1):
            await stage.handle(card(changed_at=at, description=f"правка {number}"), number)
        (call,) = (await stage.ledger())["calls"]
        assert call["description"] == "правка 2"

    play(bus, act)


def test_cards_that_took_long_are_counted(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        for number, late_ms in enumerate((0, 0, 0, 2500), 1):
            one = card(id112=f"112-{number}")
            brought = msgspec.structs.replace(one, time=one.time - late_ms)
            await stage.handle(brought, number)
        figures = stage.connector.figures()["card_to_dispatcher"]
        assert (figures["count"], figures["over"], figures["limit_s"]) == (4, 1, 1.0)
        assert figures["p99_s"] == figures["max_s"] >= 2.5
        assert figures["p50_s"] < 2.5

    play(bus, act)


def test_a_repeat_call_is_tied_and_both_cards_hear_each_status(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        await stage.handle(card(), 1)
        note = await stage.handle(card(id112="112-R", repeat_of=CARD["id112"]), 2)
        assert "tied" in str(note)
        assert len(await calls(stage)) == 1

    play(bus, act, pace_s=0.05)
    assert codes(bus, "112-R") == codes(bus)[-len(codes(bus, "112-R")) :]
    assert "finished" in codes(bus, "112-R")
    assert len({message.id for message in bus.accepted}) == len(bus.accepted)


def test_a_cancelled_card_ends_the_call(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        await stage.handle(card(), 1)
        ended = Message.new("incident.cancelled.v1", "sys112", ENDED)
        assert "cancelled" in str(await stage.handle(ended, 2))
        await calls(stage)

    play(bus, act, pace_s=0.1)
    assert codes(bus)[-1] == "cancelled"
    assert "finished" not in codes(bus)


def test_unknown_fields_of_a_card_reach_the_ambulance_and_those_of_a_status_the_bus(
    bus: Bus,
) -> None:
    async def act(stage: Scene) -> None:
        event = STATUS | {"weather": {"snow": True}, "id112": ["112-a", "112-b"]}
        assert (await stage.send("POST", "/bus/status", event)).status == 200
        assert (await stage.send("POST", "/bus/status", event)).status == 200

    play(bus, act)
    assert [body["weather"] for body in bus.bodies("call.status.v1")] == [{"snow": True}] * 4
    assert [message.subject for message in bus.accepted[:2]] == ["112-112-a", "112-112-b"]
    assert len({message.id for message in bus.accepted}) == 2


def test_a_status_without_a_card_belongs_to_its_call(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        event = {key: value for key, value in STATUS.items() if key != "id112"}
        assert (await stage.send("POST", "/bus/status", event)).status == 200
        update = catalogue.entry("incident.card_update.v1").example
        assert (await stage.send("POST", "/bus/cards", update)).status == 200

    play(bus, act)
    assert [message.subject for message in bus.accepted] == [
        "call-2026-4711",
        "112-112-99-000001",
    ]


@pytest.mark.parametrize("path", ["/bus/status", "/bus/tickets", "/bus/cards"])
def test_what_breaks_the_contract_is_400_with_the_field(bus: Bus, path: str) -> None:
    async def act(stage: Scene) -> None:
        answer = await stage.send("POST", path, {"event_id": "e1"})
        assert answer.status == 400
        assert b"is required" in answer.body

    play(bus, act)
    (rejected,) = bus.bodies("input.rejected.v1")
    assert rejected["rule"] == "is required"


def test_the_bus_is_silent_then_the_ambulance_repeats_until_all_is_there(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        bus.silent = True
        await stage.handle(card())
        await stage.wait(lambda ledger: ledger["posts_repeated"] >= 2)
        bus.silent = False
        stage.reconnect()
        await calls(stage)

    play(bus, act, accept_timeout_s=0.2)
    seen = list(dict.fromkeys(codes(bus)))
    assert [code for code in seen if code not in ON_PLACE] == [
        code for code in LIFE if code not in ON_PLACE
    ]


def test_what_the_ambulance_cannot_read_is_rejected_and_its_outage_is_a_retry(bus: Bus) -> None:
    async def act(stage: Scene) -> None:
        with pytest.raises(Reject, match="HTTP 400"):
            await stage.handle(Message.new("incident.card.v1", "sys112", {"id112": "x"}))
        with pytest.raises(Reject, match=r"connector\.no_type"):
            await stage.handle(Message.new("odd.type.v1", "sys112", {}))
        await stage.faults(down=True)
        with pytest.raises(Retry, match="HTTP 503") as caught:
            await stage.handle(card())
        assert caught.value.after_s == 1.0

    play(bus, act)


def test_nobody_from_elsewhere_may_call(bus: Bus) -> None:
    from connectors.runtime.door.serving import HttpServer, allow_only, bind
    from connectors.runtime.partner.http import HttpClient
    from proto.exits import StartError

    async def act(stage: Scene) -> None:
        app = stage.connector.app()
        assert app is not None
        server = HttpServer(allow_only(app, ["10.0.0.0/8"]), channel := bind("127.0.0.1:0", "x"))
        await server.start()
        async with HttpClient(f"http://127.0.0.1:{channel.getsockname()[1]}") as http:
            answer = await http.request("POST", "/bus/status", msgspec.json.encode(STATUS))
        await server.stop()
        assert answer.status == 403
        with pytest.raises(StartError, match="allow"):
            allow_only(app, ["everywhere"])

    play(bus, act)
    assert bus.accepted == []
