"""What a small request may become: judged by count and size before anything is made of it."""

import asyncio
from pathlib import Path
from typing import Any

import msgspec
import pytest

from connectors.partners.smp.contract import MADE_BYTES_MAX, SEVERAL_MAX
from connectors.runtime.bus.ingress import OPEN_BYTES_MAX, Ingress, NotAccepted
from proto import catalogue
from proto.client import BusClient
from proto.message import Message
from tests.contract.stage import Bus, Scene
from tests.faults.doorstep import a_bus, play

STATUS = catalogue.entry("call.status.v1").example
MIB = 1024 * 1024


def status(cards: int, padding: int = 0, number: int = 1, **told: Any) -> dict[str, Any]:
    ids = [f"card-{number}-{index}" for index in range(cards)]
    return STATUS | {"id112": ids, "event_id": f"e{number}", "note": "a" * padding} | told


def statuses(bus: Bus) -> list[Message]:
    return [one for one in bus.accepted if one.type == "call.status.v1"]


@pytest.mark.fault("S17")
def test_a_status_of_many_cards_is_judged_before_it_is_made() -> None:
    """A post of half a megabyte that named thousands of cards was copied for each of them, 8 GiB in
    all; the list has an end, and so has count by size."""

    async def act(stage: Scene, bus: Bus) -> None:
        for body, answered in (
            (status(SEVERAL_MAX + 1), 400),
            (status(0, external=["med-1"] * (SEVERAL_MAX + 1)), 400),
            (status(SEVERAL_MAX, MADE_BYTES_MAX // SEVERAL_MAX), 413),
            (status(1, MADE_BYTES_MAX // 10, external=[f"med-{n}" for n in range(10)]), 413),
        ):
            answer = await stage.send("POST", "/bus/status", body)
            assert answer.status == answered, answer.body
        assert statuses(bus) == []
        for body in (status(SEVERAL_MAX), status(1, 400_000, number=2)):
            assert (await stage.send("POST", "/bus/status", body)).status == 200
        assert len(statuses(bus)) == SEVERAL_MAX + 1
        twice = STATUS | {"id112": ["one", "one"], "event_id": "e3"}
        assert (await stage.send("POST", "/bus/status", twice)).status == 200
        assert len(statuses(bus)) == SEVERAL_MAX + 2

    play("smp", act)


@pytest.mark.fault("S17")
def test_many_messages_of_one_request_are_made_as_far_as_the_bound() -> None:
    """A hundred statuses of a hundred cards each, sent at once, were all made before the first was
    published; what is too much is to be sent again, and then it is taken."""

    async def act(stage: Scene, bus: Bus) -> None:
        type, size = "call.status.v1", 4_000
        sent = [
            {"type": type, "payload": status(SEVERAL_MAX, size, number), "id": f"s{number}"}
            for number in range(40)
        ]
        rounds = 0
        while sent:
            answer = await stage.send("POST", "/queue/send", {"messages": sent})
            results = msgspec.json.decode(answer.body)["results"]
            codes = [one["code"] for one in results]
            assert codes == sorted(codes)  # 200 first, then 503: none overtakes another
            taken = codes.count(200)
            assert taken
            assert sum(len(one.body) for one in statuses(bus)) <= 2.5 * MADE_BYTES_MAX * (
                rounds + 1
            )
            sent, rounds = sent[taken:], rounds + 1
        assert rounds > 1
        assert len(statuses(bus)) == 40 * SEVERAL_MAX

    play("smp", act)


@pytest.mark.fault("S17")
def test_posted_changes_have_an_end(tmp_path: Path) -> None:
    """A post of changes could be of any number; of more than the bus takes at once it was told to
    repeat for ever."""
    change = {"id": "1", "type": "visit.state.v1", "body": {}}

    async def act(stage: Scene, bus: Bus) -> None:
        changes = {"changes": [change] * 2001}
        answer = await stage.send("POST", "/rmis/changes", changes)
        assert answer.status == 400
        assert b"changes" in answer.body
        assert [one.type for one in bus.accepted] == ["input.rejected.v1"]

    play("rmis", act, state_file=tmp_path / "rmis.db")


@pytest.mark.fault("S17")
def test_what_waits_for_the_router_is_bounded_in_bytes() -> None:
    """Two thousand messages could wait for a router that is slow, whatever they weigh."""

    async def whole(bus: Bus) -> None:
        bus.silent = True
        serving = asyncio.create_task(bus.serve())
        async with BusClient(bus.address, name="smp") as client:
            await client.wait_welcomed()
            ingress = Ingress(client, 0.001, 3)
            codes = []
            for number in range(OPEN_BYTES_MAX // MIB + 2):
                message = Message.new("call.status.v1", "smp", bytes(MIB), id=f"m{number}")
                with pytest.raises(NotAccepted) as caught:
                    await ingress.publish([message])
                codes.append(caught.value.code)
            assert ingress.waiting == OPEN_BYTES_MAX // MIB
            assert codes[-2:] == ["busy", "busy"]
            ingress.close()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)

    with a_bus() as bus:
        asyncio.run(whole(bus))
