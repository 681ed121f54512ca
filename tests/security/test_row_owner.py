"""A number from outside is looked up with its owner: knowing it is no right."""

import asyncio
from datetime import UTC, datetime
from typing import Any

import pytest

from connectors.partners.smp.contract import CommitRequest
from connectors.partners.smp.queue import Queue
from connectors.runtime.door.owned import Owned
from proto import catalogue
from proto.message import Message
from tests.contract.stage import Bus, Scene
from tests.faults.doorstep import play
from tests.until import until


def delivery(number: int) -> Any:
    """Return what the queue needs of a delivery."""

    class Delivery:
        key = f"3f2a9c01b7de-{number}"
        attempt = 1
        message = Message.new(
            "call.status.v1", "sys112", catalogue.entry("call.status.v1").example, subject="112-1"
        )

    return Delivery()


@pytest.mark.fault("S5")
def test_what_was_never_given_out_cannot_be_committed() -> None:
    """The refs of a queue count on: whoever had one could commit the next, and a card that nobody
    had read was settled as delivered."""

    async def act(stage: Scene, bus: Bus) -> None:
        status = Message.new(
            "call.status.v1", "sys112", catalogue.entry("call.status.v1").example, subject="112-1"
        )
        holding = asyncio.create_task(stage.handle(status, 7))
        connector: Any = stage.connector
        await until(lambda: connector.queue._shelf.waiting, "it to be held")
        for outcome in ("done", "reject", "retry"):
            told = {"refs": ["testbus-7"], "outcome": outcome, "reason": "x"}
            answer = await stage.send("POST", "/queue/commit", told)
            assert b'"committed":false' in answer.body
        assert not holding.done()
        given = await stage.send("POST", "/queue/receive", {"max": 1})
        assert b'"ref":"testbus-7"' in given.body
        answer = await stage.send(
            "POST", "/queue/commit", {"refs": ["testbus-7"], "outcome": "done"}
        )
        assert b'"committed":true' in answer.body
        await holding

    play("smp", act, mode="queue")


@pytest.mark.fault("S5")
def test_what_was_given_to_one_is_not_committed_by_another() -> None:
    """The same between two who may both receive: each commits what it was given itself."""

    async def whole() -> None:
        queue = Queue("СМП", visibility_s=60, quiet_s=60)
        holding = [asyncio.create_task(queue.hold(delivery(number))) for number in (1, 2)]
        await asyncio.sleep(0)
        (one,) = queue.receive(1, "north")
        (two,) = queue.receive(1, "south")
        both = CommitRequest(refs=[one.ref, two.ref], outcome="done")
        assert [done.committed for done in queue.commit(both, "north")] == [True, False]
        assert [done.committed for done in queue.commit(both, "south")] == [False, True]
        assert [done.committed for done in queue.commit(both, "north")] == [True, False]  # a repeat
        assert one.commit_by > datetime.now(UTC)
        await asyncio.gather(*holding)

    asyncio.run(whole())


@pytest.mark.fault("S5")
def test_names_that_run_into_numbers_are_two_owners() -> None:
    """ "a" with "b-1" and "a-b" with "1" were one row where names and numbers were glued together;
    what is remembered of them is bounded."""
    owned = Owned(kept=2)
    owned.give("a", "b-1")
    assert owned.has("a", "b-1")
    assert not owned.has("a-b", "1")
    assert not owned.has("", "b-1")
    owned.give("a", "2")
    owned.give("a", "b-1")
    owned.give("a", "3")
    assert [owned.has("a", id) for id in ("b-1", "2", "3")] == [True, False, True]
