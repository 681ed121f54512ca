"""A settlement that the wire does not take must not take others along, nor hang its delivery."""

import asyncio
import logging

import pytest

from connectors.runtime.bus.intake import Intake
from connectors.runtime.partner.breaker import Breaker, BreakerSettings
from proto import frames
from proto.client import BusClient, Consumer, Delivery, Retry
from proto.peer import Peer
from tests.integration.bus import RouterProcess

WAIT_S = 15.0
POLICY = (
    "[destinations.sink.backoff]\nfirst_ms = 50\nlongest_ms = 100\n"
    '[[routes]]\ntype = "test.*"\nto = ["sink"]\n'
)


async def publish(producer: BusClient, count: int) -> None:
    messages = [producer.message("test.message.v1", b"{}") for _ in range(count)]
    assert await producer.publish_many(messages) == [None] * count


async def take(consumer: Consumer, count: int) -> list[Delivery]:
    async with asyncio.timeout(WAIT_S):
        return [await anext(consumer) for _ in range(count)]


def settled(router: RouterProcess, count: int) -> None:
    """Wait until so many deliveries are over, and nothing is open."""
    answer = router.wait_until("status", lambda now: now["counters"]["settled"] == count)
    assert answer["open"] == 0


@pytest.mark.fault("C2")
def test_a_note_longer_than_the_wire_takes_is_cut_and_its_neighbours_are_settled() -> None:
    """Seen: one ack with 301 characters dropped the SETTLE of its whole turn, all six deliveries
    hung until the session ended; the note is cut, and all are settled."""

    async def work(router: RouterProcess) -> None:
        async with router.client("consumer") as bus, router.client("producer") as producer:
            consumer = bus.consume("sink")
            await publish(producer, 6)
            notes = ["x" * 301, "половина \ud800 знака", None, 7, "ok", "я" * 5000]
            for delivery, note in zip(await take(consumer, 6), notes, strict=True):
                delivery.ack(note)  # type: ignore[arg-type]
            await asyncio.to_thread(settled, router, 6)

    with RouterProcess(routes=POLICY) as router:
        asyncio.run(work(router))


@pytest.mark.fault("C2")
def test_a_pause_that_is_no_pause_is_refused_at_the_call_and_the_delivery_is_still_ours() -> None:
    """Seen: retry("x", -1) hung the deliveries of its turn; it is an error of whoever calls, told
    to him, and endless pauses are bounded."""

    async def work(router: RouterProcess) -> None:
        async with router.client("consumer") as bus, router.client("producer") as producer:
            consumer = bus.consume("sink")
            await publish(producer, 1)
            (delivery,) = await take(consumer, 1)
            for absurd in (-1.0, float("nan")):
                with pytest.raises(ValueError, match="a pause of"):
                    delivery.retry("x", absurd)
                with pytest.raises(ValueError, match="a pause of"):
                    Retry("x", absurd)
            delivery.ack()
            await asyncio.to_thread(settled, router, 1)

    assert frames.settlement(1, frames.RETRY, "x", float("inf")).after_ms == frames.AFTER_MS_MAX
    with RouterProcess(routes=POLICY) as router:
        asyncio.run(work(router))


class Foreign(BaseException):
    """What a library written in another language raises: no Exception."""


@pytest.mark.fault("A17")
@pytest.mark.parametrize("by_intake", [True, False])
def test_whatever_a_handler_does_its_delivery_is_settled(by_intake: bool) -> None:
    """A handler that raises what is no Exception, leaves by exit(), spoils its own Retry, settles
    by itself or recurses without end ended the process or hung its delivery: each is a retry."""
    seen: list[int] = []

    async def handler(delivery: Delivery) -> str | None:
        if delivery.attempt > 1:
            return "at last"
        seen.append(delivery.id)
        match len(seen):
            case 1:
                raise SystemExit(3)
            case 2:
                raise Foreign
            case 3:
                retry = Retry("later")
                retry.after_s = -5
                raise retry
            case 4:
                delivery.ack("by itself")
            case 5:
                return await handler(delivery) if len(seen) > 10**6 else endless(0)
            case 6:
                raise MemoryError
        return None

    async def work(router: RouterProcess) -> None:
        async with router.client("consumer") as bus, router.client("producer") as producer:
            if by_intake:
                breaker = Breaker(BreakerSettings())
                running = asyncio.create_task(Intake(bus, "sink", 8, handler, breaker).run())
            else:
                running = asyncio.create_task(bus.handle("sink", handler, credit=8))
            await publish(producer, 6)
            await asyncio.to_thread(settled, router, 6)
            assert not running.done()
            running.cancel()
            await asyncio.gather(running, return_exceptions=True)

    with RouterProcess(routes=POLICY) as router:
        asyncio.run(work(router))


def endless(depth: int) -> str:
    return endless(depth + 1) + "."


@pytest.mark.fault("C2")
def test_a_settle_that_the_router_did_not_take_costs_one_session_and_no_delivery(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A dropped SETTLE, of whatever cause, left its deliveries hanging: they come back with the
    session, in one line, and are settled without their notes."""

    async def work(router: RouterProcess) -> None:
        async with router.client("consumer") as bus, router.client("producer") as producer:
            consumer = bus.consume("sink")
            await publish(producer, 3)
            for delivery in await take(consumer, 3):  # what no router can make sense of
                unreadable = frames.Settlement("?", frames.ACK, None, "x" * 999)  # type: ignore[arg-type]
                consumer.settle(delivery, unreadable)
            for delivery in await take(consumer, 3):
                consumer.settle(
                    delivery, frames.Settlement(delivery.id, frames.ACK, None, "x" * 999)
                )
            await asyncio.to_thread(settled, router, 3)
            assert bus.reconnects == 1

    caplog.set_level(logging.INFO, "smpbus.client")
    with RouterProcess(routes=POLICY) as router:
        asyncio.run(work(router))
    assert len([one for one in caplog.records if "SETTLE" in one.getMessage()]) == 1


@pytest.mark.fault("C2")
def test_a_message_from_the_journal_that_is_longer_than_today_is_still_delivered() -> None:
    """A sibling: one message that the client could not read hung the whole DELIVER; today's limits
    are for what is sent today, and what is no message at all is rejected alone."""
    good = ["m1", "test.message.v1", "producer", "", 1]
    long = ["m" * 500, "test.message.v1", "producer", "s" * 900, 1]
    raw = frames._decoder(frames.DeliverRaw)
    payload = frames.encode(["sink", [[1, 1, good], [2, 1, long], [3, 1, ["no message"]]]])
    assert len(raw.decode(payload).deliveries) == 3
    deliver, unreadable = frames.read_deliveries(payload)
    assert [one.message.id for one in deliver.deliveries] == ["m1", "m" * 500]
    assert [one.delivery for one in unreadable] == [3]


@pytest.mark.fault("C2")
def test_what_was_settled_while_the_connection_went_is_settled_on_the_next_one() -> None:
    """A sibling: a SETTLE that the socket did not take any more was gone with the socket, and its
    deliveries were brought to the partner once more."""
    peer = Peer("consumer", "test")
    welcome = frames.encode(frames.Welcome(1, "consumer", "bus", 1, 1024, 4096, 1000))
    peer.greet()
    peer.receive([frames.WELCOME, welcome])
    peer.credit("sink", 8)
    peer.take_outbox()
    peer.settle([frames.settlement(7, frames.ACK, "done")])
    peer.unsent(peer.take_outbox())
    peer.lost()
    peer.greet()
    peer.receive([frames.WELCOME, welcome])
    verbs = [verb for verb, _ in peer.take_outbox()]
    assert verbs == [frames.HELLO, frames.SETTLE, frames.CREDIT]
