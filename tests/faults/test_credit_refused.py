"""A queue that the router does not give for a moment: asked for until it is given."""

import asyncio
import logging
from collections.abc import Awaitable

import pytest

from proto import frames
from proto.client import BusClient, Delivery
from proto.errors import RequestFailed
from proto.message import Message
from tests.integration.bus import RouterProcess
from tests.until import until

WITHOUT = (
    '[peers.producer]\npublish = ["test.*"]\nask = ["sink"]\n[peers.consumer]\nserve = ["sink"]\n'
)
WITH = WITHOUT + 'consume = ["sink"]\n'
WAIT_S = 15.0


def put(router: RouterProcess, permissions: str, routes: str = "") -> None:
    """Put other rights (and routes) in force."""
    (router.folder / "permissions.toml").write_text(permissions)
    if routes:
        (router.folder / "routes.toml").write_text(routes)
    router.ask("reload")


async def next_of(consumer: Awaitable[Delivery]) -> Delivery:
    async with asyncio.timeout(WAIT_S):
        return await consumer


def lines(caplog: pytest.LogCaptureFixture, word: str) -> list[str]:
    return [record.getMessage() for record in caplog.records if word in record.getMessage()]


@pytest.mark.fault("A2")
def test_a_right_lost_by_a_typo_and_mended_brings_the_consumer_back(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Seen: the right came back 2 s later, and the consumer never did, without a word; it has to
    come back by itself, with one line for each of the two."""

    async def work(router: RouterProcess) -> None:
        async with router.client("consumer") as bus, router.client("producer") as producer:
            deliveries = bus.consume("sink")
            put(router, WITHOUT)
            await until(lambda: bus.refused == {"sink": "not_permitted"})
            refused: list[frames.Error] = []
            bus.on_error = refused.append
            await until(lambda: refused, "it to be asked for again, and refused again")
            put(router, WITH)
            await until(lambda: not bus.refused)
            await producer.publish(producer.message("test.message.v1", b"{}"))
            (await next_of(deliveries.__anext__())).ack()

    caplog.set_level(logging.INFO, "smpbus.client")
    with RouterProcess() as router:
        asyncio.run(work(router))
    told = lines(caplog, "«sink»") or lines(caplog, "sink")
    assert [record.levelname for record in caplog.records] == ["ERROR", "INFO"], told
    assert "not_permitted" in told[0]


@pytest.mark.fault("A2")
def test_a_connector_may_start_before_its_destination_exists() -> None:
    """A sibling: the queue was not there yet when its consumer came; no restart is needed."""

    async def work(router: RouterProcess) -> None:
        async with router.client("consumer") as bus, router.client("producer") as producer:
            deliveries = bus.consume("late")
            await until(lambda: bus.refused == {"late": "unknown_destination"})
            routes = '[[routes]]\ntype = "test.*"\nto = ["late"]\n'
            routes = f"[destinations.sink]\n[destinations.late]\n{routes}"
            put(router, WITH.replace('"sink"]', '"sink", "late"]'), routes)
            await until(lambda: not bus.refused)
            await producer.publish(producer.message("test.message.v1", b"{}"))
            (await next_of(deliveries.__anext__())).ack()

    with RouterProcess() as router:
        asyncio.run(work(router))


@pytest.mark.fault("A2")
def test_questions_are_answered_again_too() -> None:
    """A sibling: whoever only serves questions lost its place the same way, and askers heard
    "nobody serves this destination"."""

    async def work(router: RouterProcess) -> None:
        async with router.client("consumer") as bus, router.client("producer") as asker:

            async def answer(_: Message) -> object:
                return {"known": True}

            bus.serve("sink", answer)
            put(router, WITHOUT)
            await until(lambda: bool(bus.refused))
            put(router, WITH)
            await until(lambda: answered(asker))

    with RouterProcess() as router:
        asyncio.run(work(router))


async def answered(asker: BusClient) -> bool:
    try:
        reply = await asker.request("sink", asker.message("test.question.v1", b"{}"))
    except RequestFailed:
        return False
    return reply.body == b'{"known":true}'


@pytest.mark.fault("A2")
def test_a_consumer_that_answers_no_questions_says_so_at_once() -> None:
    """A sibling: a question to a queue whose consumer serves none waited out its whole time."""

    async def work(router: RouterProcess) -> None:
        async with router.client("consumer") as bus, router.client("producer") as asker:
            bus.consume("sink")
            await until(lambda: router.ask("queues")["queues"][0]["consumers"] == 1)
            with pytest.raises(RequestFailed) as caught:
                await asker.request("sink", asker.message("test.q.v1", b"{}"), timeout_s=60)
            assert caught.value.code == "no_consumer"

    with RouterProcess() as router:
        asyncio.run(work(router))


@pytest.mark.fault("A2")
def test_the_blocking_client_asks_again_as_well() -> None:
    """A sibling: a script that consumes saw an end of the queue where it had no right for now."""
    with RouterProcess() as router:
        with router.blocking("producer") as producer:
            producer.publish(producer.message("test.message.v1", b"{}"))
        put(router, WITHOUT)
        with router.blocking("consumer") as bus:
            assert list(bus.consume("sink", timeout_s=1.5)) == []
            taken = bus.consume("sink", timeout_s=WAIT_S)
            put(router, WITH)
            bus.ack(next(taken))
