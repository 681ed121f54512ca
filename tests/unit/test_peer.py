"""The client's half of the conversation against a router that answers, forgets and refuses."""

from typing import Any

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from proto import frames
from proto.errors import FATAL, Code
from proto.frames import FrameError
from proto.message import Message
from proto.peer import Completed, Disconnected, Peer

WELCOME = frames.Welcome(1, "smp", "bus", 1, 1024, 4096, 1000)


def said_by(peer: Peer) -> list[tuple[bytes, Any]]:
    """Take what the peer wants to send, decoded."""
    said = []
    for verb, payload in peer.take_outbox():
        if verb == frames.PUBLISH:  # the router's reader keeps messages raw
            decoded: Any = frames._decoder(frames.Publish).decode(payload)
        else:
            decoded = frames.read([verb, payload], frames.ROUTER_READS)
        said.append((verb, decoded))
    return said


def hear(peer: Peer, verb: bytes, payload: object) -> list[Any]:
    return peer.receive([verb, frames.encode(payload)])


def welcomed() -> Peer:
    peer = Peer("smp", "test")
    peer.greet()
    hear(peer, frames.WELCOME, WELCOME)
    peer.take_outbox()
    return peer


def message(number: int) -> Message:
    return Message(f"m{number}", "call.status.v1", "smp", "", 1)


class Conversation(RuleBasedStateMachine):
    """Any order of publishing, answers and losses; the promises hold after each step."""

    def __init__(self) -> None:
        super().__init__()
        self.peer = Peer("smp", "test")
        self.number = 0
        self.published: dict[int, list[str]] = {}
        self.completed: list[int] = []
        self.at_router: list[int] = []  # batches said on this connection and not yet answered
        self.windows: dict[str, int] = {}
        self.settled: list[int] = []
        self.heard_settled: list[int] = []
        self.heard_before = 0  # of these, in sessions before this one
        self.connect()

    def listen(self) -> list[tuple[bytes, Any]]:
        said = said_by(self.peer)
        for verb, payload in said:
            if verb == frames.PUBLISH:
                self.at_router.append(payload.batch)
                ids = [one.id for one in payload.messages]
                assert ids == self.published[payload.batch], "a repeat must have the same ids"
            elif verb == frames.SETTLE:
                self.heard_settled += [one.delivery for one in payload.settlements]
        return said

    @rule()
    def connect(self) -> None:
        self.at_router = []
        self.peer.greet()
        said = self.listen()
        assert [verb for verb, _ in said] == [frames.HELLO], "nothing but HELLO before WELCOME"

    @precondition(lambda self: self.peer.welcome is None)
    @rule()
    def welcome(self) -> None:
        unanswered = [n for n in self.published if n not in self.completed]
        self.heard_before = len(self.heard_settled)
        hear(self.peer, frames.WELCOME, WELCOME)
        said = self.listen()
        assert self.at_router == unanswered, "what has no answer is said again, in order"
        credits = {p.destination: p.window for verb, p in said if verb == frames.CREDIT}
        assert credits == self.windows
        verbs = [verb for verb, _ in said]
        order = {frames.SETTLE: 0, frames.CREDIT: 1, frames.PUBLISH: 2}
        assert verbs == sorted(verbs, key=order.__getitem__)
        assert self.heard_settled == self.settled, "no settlement is forgotten or doubled"

    @rule(count=st.integers(1, 3))
    def publish(self, count: int) -> None:
        messages = [message(self.number + offset) for offset in range(count)]
        self.number += count
        batch = self.peer.publish(messages)
        self.published[batch.number] = [one.id for one in messages]
        said = self.listen()
        assert bool(said) == (self.peer.welcome is not None)

    @rule(window=st.integers(0, 9), destination=st.sampled_from(["smp", "eir"]))
    def credit(self, window: int, destination: str) -> None:
        self.windows[destination] = window
        self.peer.credit(destination, window)
        self.listen()

    @rule()
    def settle(self) -> None:
        delivery = len(self.settled) + 1
        self.settled.append(delivery)
        self.peer.settle([frames.Settlement(delivery)])
        self.listen()

    @precondition(lambda self: self.at_router)
    @rule(data=st.data())
    def accept(self, data: Any) -> None:
        count = data.draw(st.integers(1, len(self.at_router)))
        batches, self.at_router = self.at_router[:count], self.at_router[count:]
        self.complete(hear(self.peer, frames.ACCEPTED, frames.Accepted(batches)), batches)

    @precondition(lambda self: self.at_router)
    @rule(data=st.data())
    def refuse(self, data: Any) -> None:
        batch = self.at_router[0]
        length = len(self.published[batch])
        indexes = data.draw(st.lists(st.integers(0, length - 1), min_size=1, unique=True))
        refusals = [frames.Refusal(index, "queue_full", "full", 10) for index in indexes]
        events = hear(self.peer, frames.REFUSED, frames.RefusedBatch(batch, refusals))
        whole = len(indexes) == length
        if not whole:
            assert events == [], "the rest is not on disk yet"
            events = hear(self.peer, frames.ACCEPTED, frames.Accepted([batch]))
        self.at_router.pop(0)
        assert set(events[0].batch.refused) == set(indexes)
        self.complete(events, [batch])

    @precondition(lambda self: self.peer.welcome is not None)
    @rule()
    def be_forgotten(self) -> None:
        del self.heard_settled[self.heard_before :]  # the session was over before these came
        error = frames.Error(Code.HELLO_REQUIRED, "say HELLO first")
        assert isinstance(hear(self.peer, frames.ERROR, error)[0], Disconnected)
        self.connect()

    @rule(batch=st.integers(1, 5))
    def hear_an_answer_twice(self, batch: int) -> None:
        if batch in self.completed:
            assert hear(self.peer, frames.ACCEPTED, frames.Accepted([batch])) == []

    def complete(self, events: list[Any], batches: list[int]) -> None:
        assert [event.batch.number for event in events] == batches
        assert all(isinstance(event, Completed) for event in events)
        self.completed += batches

    @invariant()
    def nothing_is_forgotten_and_nothing_ends_twice(self) -> None:
        assert len(self.completed) == len(set(self.completed))
        left = [number for number in self.published if number not in self.completed]
        assert list(self.peer.unaccepted) == left


Conversation.TestCase.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)
TestConversation = Conversation.TestCase


@pytest.mark.parametrize("code", sorted(FATAL))
def test_a_fatal_error_ends_the_session_for_good(code: Code) -> None:
    peer = welcomed()
    hear(peer, frames.ERROR, frames.Error(code, "no"))
    assert peer.fatal is not None
    assert (peer.fatal.code, peer.welcome) == (code, None)


def test_an_error_that_is_not_fatal_changes_nothing() -> None:
    peer = welcomed()
    peer.publish([message(1)])
    hear(peer, frames.ERROR, frames.Error("something_new", "later"))
    assert peer.fatal is None
    assert peer.welcome is not None
    assert list(peer.unaccepted) == [1]


def test_a_ping_is_answered_with_its_number_and_a_pong_is_not() -> None:
    peer = welcomed()
    assert hear(peer, frames.PING, frames.Ping(7)) == []
    assert said_by(peer) == [(frames.PONG, frames.Ping(7))]
    assert hear(peer, frames.PONG, frames.Ping(7)) == []
    assert said_by(peer) == []


def test_more_settlements_than_one_frame_holds_go_in_several() -> None:
    peer = welcomed()
    many = [frames.Settlement(number) for number in range(frames.BATCH_LENGTH_MAX + 1)]
    peer.settle(many)
    said = [payload.settlements for _, payload in said_by(peer)]
    assert [len(part) for part in said] == [frames.BATCH_LENGTH_MAX, 1]
    assert [*said[0], *said[1]] == many


def test_a_peer_that_is_not_welcomed_leaves_without_a_word() -> None:
    peer = Peer("smp", "test")
    peer.greet()
    peer.take_outbox()
    peer.bye("closed")
    assert said_by(peer) == []


def test_a_frame_that_makes_no_sense_is_named() -> None:
    with pytest.raises(FrameError, match="expected 2 frames"):
        welcomed().receive([b"ACCEPTED"])


def delivery(number: int) -> frames.DeliveredMessage:
    return frames.DeliveredMessage(number, 1, message(number))


def test_what_was_on_its_way_to_a_consumer_that_closed_goes_back_at_once() -> None:
    """The router holds it for this session until it is settled, however long that is."""
    peer = welcomed()
    peer.credit("smp", 8)
    peer.withdraw("smp")
    peer.take_outbox()
    assert hear(peer, frames.DELIVER, frames.Deliver("smp", [delivery(1), delivery(2)])) == []
    ((verb, settle),) = said_by(peer)
    assert verb == frames.SETTLE
    assert [(one.delivery, one.outcome, one.after_ms) for one in settle.settlements] == [
        (1, frames.RETRY, 0),
        (2, frames.RETRY, 0),
    ]


def test_whoever_serves_questions_still_does_after_its_consumer_closed() -> None:
    peer = welcomed()
    peer.serve("smp")
    peer.credit("smp", 8)
    peer.withdraw("smp")
    peer.take_outbox()
    peer.greet()
    peer.take_outbox()
    hear(peer, frames.WELCOME, WELCOME)
    assert (frames.CREDIT, frames.Credit("smp", 0, True)) in said_by(peer)
    assert hear(peer, frames.DELIVER, frames.Deliver("smp", [delivery(1)])) == []
    assert [verb for verb, _ in said_by(peer)] == [frames.SETTLE]


def test_what_comes_to_a_living_consumer_is_handed_over() -> None:
    peer = welcomed()
    peer.credit("smp", 8)
    given = frames.Deliver("smp", [delivery(1)])
    assert hear(peer, frames.DELIVER, given) == [given]
