"""What is longer than a frame: divided where it can be, refused at once where it cannot."""

import asyncio
import json
import subprocess
from typing import Any

import pytest

from proto import frames
from proto.client import BusClient
from proto.errors import Code, Refused, RequestFailed
from proto.message import Message
from proto.peer import Completed, Disconnected, Event, Peer
from tests.integration.bus import SMPBUS, RouterProcess

WAIT_S = 20.0
BODY, FRAME = 60_000, 100_000
LIMITS = f"body_bytes_max = {BODY}\nframe_bytes_max = {FRAME}"
SENDS = '[peers.producer]\npublish = ["test.*"]\nask = ["sink"]\n'
PERMISSIONS = SENDS + '[peers.consumer]\nconsume = ["sink"]\nserve = ["sink"]\n'


def small_frames() -> RouterProcess:
    return RouterProcess(bus=LIMITS, permissions=PERMISSIONS)


@pytest.mark.fault("A15")
def test_many_messages_go_in_as_many_frames_as_they_need_and_in_order() -> None:
    """Seen: publish_many above the frame limit reconnected for ever and never returned; it is
    divided by bytes, what can never fit is refused alone, and the session stays."""

    async def work(router: RouterProcess) -> None:
        async with router.client("consumer") as bus, router.client("producer") as producer:
            many = [
                producer.message("test.message.v1", b"x" * 30_000, subject="112-1", id=f"m{n}")
                for n in range(20)
            ]
            many[7] = producer.message("test.message.v1", b"x" * FRAME, subject="112-1", id="big")
            many[9] = producer.message("test.message.v1", b"x", subject="\ud800", id="no text")
            async with asyncio.timeout(WAIT_S):
                results = await producer.publish_many(many)
                refused = {many[n].id: one.code for n, one in enumerate(results) if one is not None}
                assert refused == {"big": "body_too_large", "no text": "bad_message"}
                consumer = bus.consume("sink")
                taken = []
                for _ in range(18):
                    delivery = await anext(consumer)
                    taken.append(delivery.message.id)
                    delivery.ack()
            assert taken == [one.id for one in many if one.id.startswith("m")]
            assert (bus.reconnects, producer.reconnects) == (0, 0)

    with small_frames() as router:
        asyncio.run(work(router))


@pytest.mark.fault("A15")
def test_what_is_published_beside_a_message_that_never_fits_is_accepted() -> None:
    """A sibling: what shared a frame with it waited with it, in every way of publishing."""

    async def work(router: RouterProcess) -> None:
        async with router.client("producer") as producer, asyncio.timeout(WAIT_S):

            def message(size: int) -> Message:
                return producer.message("test.message.v1", b"x" * size)

            sizes = (10, FRAME, 20)
            results = await asyncio.gather(
                *(producer.publish(message(size)) for size in sizes), return_exceptions=True
            )
            assert [isinstance(one, Refused) for one in results] == [False, True, False]
            stream = producer.stream()
            await stream.publish(message(FRAME))
            with pytest.raises(Refused, match="body_too_large"):
                await stream.drain()
            assert producer.reconnects == 0
        await asyncio.to_thread(blocking, router)

    def blocking(router: RouterProcess) -> None:
        with router.blocking("producer") as producer:
            large = producer.message("test.message.v1", b"x" * FRAME)
            with pytest.raises(Refused, match="body_too_large"):
                producer.publish(large)
            fits = [producer.message("test.message.v1", b"x" * 50_000) for _ in range(5)]
            assert producer.publish_many([large, *fits])[1:] == [None] * 5

    with small_frames() as router:
        asyncio.run(work(router))


@pytest.mark.fault("A15")
def test_what_was_published_before_the_first_welcome_is_judged_by_it() -> None:
    """A sibling: the limit is known from WELCOME only, and may be another after a reconnect."""
    peer = Peer("producer", "test")
    peer.greet()
    batch = peer.publish([Message(f"m{n}", "test.a.v1", "producer", "", 1) for n in range(3)])
    batch.messages[1:2] = [Message("m", "test.a.v1", "producer", "", 1, body=b"x" * 2000)]  # type: ignore[index]
    welcome = frames.Welcome(1, "producer", "bus", 1, 500, 4096, 1000, 1000)
    peer.receive([frames.WELCOME, frames.encode(welcome)])
    said = [payload for verb, payload in peer.take_outbox() if verb == frames.PUBLISH]
    assert all(len(payload) <= 1000 for payload in said)
    accepted = [frames._decoder(frames.Publish).decode(payload).batch for payload in said]
    events = peer.receive([frames.ACCEPTED, frames.encode(frames.Accepted(accepted))])
    (completed,) = [*peer.take_ready(), *events]
    assert isinstance(completed, Completed)
    assert completed.batch is batch
    assert {index: one.code for index, one in batch.refused.items()} == {1: "body_too_large"}
    assert not peer.unaccepted


@pytest.mark.fault("A15")
def test_a_publish_that_the_router_cannot_read_ends_by_one_refusal() -> None:
    """A sibling: ERROR to a PUBLISH names no batch, and whoever published waited for ever; message
    by message the one is found, and the others are accepted."""
    peer = Peer("producer", "test")
    welcome = frames.Welcome(1, "producer", "bus", 1, 500, 4096, 1000)
    peer.greet()
    peer.receive([frames.WELCOME, frames.encode(welcome)])
    batches = [
        peer.publish([Message(f"{part}{n}", "test.a.v1", "producer", "", 1) for n in range(3)])
        for part in "abc"
    ]
    answers = {"b1": frames.Error(Code.BAD_FRAME, "no", "PUBLISH")}
    done: list[Event] = []
    for _ in range(40):  # a router that dislikes one message, and says so of the frame
        for verb, payload in peer.take_outbox():
            if verb == frames.HELLO:
                done += peer.receive([frames.WELCOME, frames.encode(welcome)])
            if verb != frames.PUBLISH:
                continue
            said = frames._decoder(frames.Publish).decode(payload)
            bad = any(one.id in answers for one in said.messages)
            reply: Any = answers["b1"] if bad else frames.Accepted([said.batch])
            events = peer.receive([frames.ERROR if bad else frames.ACCEPTED, frames.encode(reply)])
            done += events
            if any(isinstance(event, Disconnected) for event in events):
                peer.greet()
                break
    assert [batch.done for batch in batches] == [True] * 3
    refused = [sorted(batch.refused) for batch in batches]
    assert refused == [[], [1], []]
    assert batches[1].refused[1].code == "bad_message"
    assert not peer.unaccepted


@pytest.mark.fault("A15")
def test_settlements_are_divided_by_bytes() -> None:
    """A sibling: a turn that settles thousands with long notes made one frame of megabytes."""

    async def work(router: RouterProcess) -> None:
        async with router.client("consumer") as bus, router.client("producer") as producer:
            consumer = bus.consume("sink", credit=600)
            messages = [producer.message("test.message.v1", b"{}") for _ in range(500)]
            async with asyncio.timeout(WAIT_S):
                assert await producer.publish_many(messages) == [None] * 500
                taken = [await anext(consumer) for _ in range(500)]
            for delivery in taken:
                delivery.ack("я" * 300)
            await asyncio.to_thread(
                router.wait_until, "status", lambda now: now["counters"]["settled"] == 500
            )
            assert bus.reconnects == 0

    with small_frames() as router:
        asyncio.run(work(router))


@pytest.mark.fault("A15")
def test_a_question_or_an_answer_that_never_fits_ends_at_once() -> None:
    """Siblings: a large REQUEST or REPLY dropped the connection, and the asker heard that nobody
    serves; both are told what is too long. So is an answer whose code or sentence is too long."""

    async def answer(message: Message) -> object:
        if message.body == b"{}":
            return "x" * FRAME
        raise RequestFailed("c" * 99, "s" * 999)

    async def ask(asker: BusClient, body: bytes) -> RequestFailed:
        question = asker.message("test.question.v1", body)
        with pytest.raises(RequestFailed) as caught:
            await asker.request("sink", question, timeout_s=WAIT_S)
        return caught.value

    async def work(router: RouterProcess) -> None:
        async with router.client("consumer") as bus, router.client("producer") as asker:
            bus.serve("sink", answer)
            await asyncio.to_thread(
                router.wait_until,
                "sessions",
                lambda now: any("sink" in one["credit"] for one in now["sessions"]),
            )
            async with asyncio.timeout(WAIT_S / 2):
                assert (await ask(asker, b"x" * FRAME)).code == "body_too_large"
                assert (await ask(asker, b"{}")).code == "body_too_large"
                long = await ask(asker, b"[]")
                assert (long.code, long.sentence) == ("c" * 64, "s" * 300)
            assert (bus.reconnects, asker.reconnects) == (0, 0)

    with small_frames() as router:
        asyncio.run(work(router))


@pytest.mark.fault("A15")
def test_smpbus_send_says_which_message_is_too_large() -> None:
    """Seen: `smpbus send` of too much waited, and then advised to repeat it; a large file goes, and
    a message that is too large is refused by its id."""
    with RouterProcess(bus=LIMITS, permissions=PERMISSIONS) as router:
        file = router.folder / "letters.json"
        draft = {"type": "test.message.v1", "subject": "112-1"}
        drafts = [{**draft, "id": f"m{n}", "body": {"text": "x" * 30_000}} for n in range(10)]
        drafts.append({**draft, "id": "big", "body": {"text": "x" * FRAME}})
        file.write_text(json.dumps(drafts))
        command = [SMPBUS, "send", str(file), "--config", str(router.config), "--name", "producer"]
        ended = subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)
        assert ended.returncode == 1, ended.stderr
        assert ended.stdout.split() == [f"m{n}" for n in range(10)]
        assert "big" in ended.stderr
        assert "body_too_large" in ended.stderr
        assert len(ended.stderr.splitlines()) == 1
