"""The router's state machine, one behaviour a test; the clock and the disk are in our hands."""

from random import Random
from typing import Any, ClassVar

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proto import frames
from proto.message import Message, Priority
from proto.note import coded
from router.core.core import DELIVER_LENGTH_MAX, Core, Now
from router.core.delivery import State
from router.core.output import OpenDelivery
from router.core.queue import EMERGENCIES_MAX, PASSED_OVER_MAX
from router.core.routing import Routes
from router.settings import Backoff, BusSettings, Destination, Permission, Route, Settings

EMERGENCY, URGENT, ROUTINE, BULK = Priority
BACKOFF = Backoff(attempts_max=3, first_ms=100, longest_ms=1000)
SETTINGS = Settings(
    bus=BusSettings(body_bytes_max=100, sessions_max=20),
    destinations={
        "sink": Destination(backoff=BACKOFF, open_max=200_000),
        "small": Destination(open_max=2),
        "other": Destination(),
    },
    routes=[
        Route(type="test.*", to=["sink"]),
        Route(type="small.*", to=["small"]),
        Route(type="both.*", to=["sink", "other"]),
    ],
    permissions={
        "producer": Permission(
            publish=["test.*", "small.*", "both.*", "lost.*"], ask=["sink", "other"]
        ),
        "consumer": Permission(consume=["sink", "small", "other"], serve=["sink", "other"]),
    },
)

PATIENT = msgspec.structs.replace(
    SETTINGS, destinations={**SETTINGS.destinations, "sink": Destination()}
)


class Bench:
    """A core with a producer `p`; consumers are welcomed as needed."""

    def __init__(self, config: Settings = SETTINGS) -> None:
        self.now = Now(1_800_000_000_000, 1_000)
        self.core = Core(config, "bus", 1, Random(1))
        self.sequence = 0
        self.said: list[tuple[bytes, Any]] = []
        self.greet(b"p", "producer")

    def greet(self, peer: bytes, name: str) -> list[Any]:
        return self.hear(peer, frames.HELLO, frames.Hello([1], name))

    def hear(self, peer: bytes, verb: bytes, payload: object) -> list[Any]:
        """Say something to the core; return what it says to this peer."""
        self.core.receive(peer, b"", [verb, frames.encode(payload)], self.now)
        return self.answers(peer)

    def answers(self, peer: bytes) -> list[Any]:
        """Take what the core wants to say to a peer."""
        sends, self.core.out.sends = self.core.out.sends, []
        self.said += [(to, frames.read(parts, frames.PEER_READS)) for to, parts in sends]
        answers = [payload for to, payload in self.said if to == peer]
        self.said = [one for one in self.said if one[0] != peer]
        return answers

    def consumer(self, window: int, destination: str = "sink", peer: bytes = b"c") -> None:
        if peer not in self.core.sessions:
            self.greet(peer, "consumer")
            self.answers(peer)
        self.core.receive(
            peer, b"", [frames.CREDIT, frames.encode(frames.Credit(destination, window))], self.now
        )

    def publish(self, *messages: Message) -> list[Any]:
        self.sequence += 1
        return self.hear(b"p", frames.PUBLISH, frames.Publish(self.sequence, list(messages)))

    def sync(self, duplicates: dict[int, int] | None = None) -> list[Any]:
        """Let the disk finish the gathered batch; return what the producer hears."""
        batch = self.core.take_batch()
        self.core.persisted(batch, duplicates or {}, self.now)
        return self.answers(b"p")

    def accept(self, *messages: Message) -> None:
        """Publish and sync, whatever the number."""
        for start in range(0, len(messages), 4000):
            self.publish(*messages[start : start + 4000])
        self.sync()

    def taken(self, peer: bytes = b"c") -> list[tuple[str, int, int]]:
        """Return what a consumer was delivered since last asked: (id, delivery, attempt)."""
        return [
            (item.message.id, item.delivery, item.attempt)
            for answer in self.answers(peer)
            if isinstance(answer, frames.Deliver)
            for item in answer.deliveries
        ]

    def ids(self, peer: bytes = b"c") -> list[str]:
        return [id for id, _, _ in self.taken(peer)]

    def settle(
        self, delivery: int, outcome: int = 0, after: int | None = None, peer: bytes = b"c"
    ) -> None:
        settle = frames.Settle([frames.Settlement(delivery, outcome, after, "why")])
        self.core.receive(peer, b"", [frames.SETTLE, frames.encode(settle)], self.now)

    def wait(self, ms: int) -> None:
        self.now = Now(self.now.wall_ms + ms, self.now.mono_ms + ms)
        self.core.tick(self.now)

    def fate(self, delivery: int) -> str | None:
        """Return how a delivery ended, by the batch that is gathering."""
        for row in self.core.out.batch.outcomes:
            if row[0] == delivery:
                return f"{State(row[3]).name.lower()}: {row[7]}"
        return None


def message(id: str, priority: int = ROUTINE, subject: str = "", **rest: Any) -> Message:
    type = rest.pop("type", "test.message.v1")
    return Message(id, type, "producer", subject, 1, priority, **rest)


def refusal(answers: list[Any]) -> frames.Refusal:
    (answer,) = answers
    assert isinstance(answer, frames.RefusedBatch)
    return answer.refusals[0]


@pytest.fixture
def bench() -> Bench:
    return Bench()


class TestAcceptance:
    def test_accepted_and_delivered_only_when_it_is_on_disk(self, bench: Bench) -> None:
        bench.consumer(10)
        assert bench.publish(message("a")) == []
        assert bench.taken() == []
        assert bench.sync() == [frames.Accepted([1])]
        assert bench.ids() == ["a"]

    def test_a_repeat_is_accepted_and_not_delivered_again(self, bench: Bench) -> None:
        bench.consumer(10)
        bench.accept(message("a"))
        bench.publish(message("a"))
        assert bench.sync(duplicates={2: 1}) == [frames.Accepted([2])]
        assert bench.ids() == ["a"]
        assert bench.core.counters["duplicates"] == 1
        assert bench.core.queues["sink"].open == 1

    def test_one_message_goes_to_all_its_destinations(self, bench: Bench) -> None:
        bench.consumer(10)
        bench.consumer(10, "other", b"d")
        bench.accept(message("a", type="both.message.v1"))
        assert (bench.ids(), bench.ids(b"d")) == (["a"], ["a"])

    @pytest.mark.parametrize(
        ("wrong", "code"),
        [
            (message("a", body=b"x" * 101), "body_too_large"),
            (message("a", type="lost.message.v1"), "no_route"),
            (message("a", type="secret.message.v1"), "not_permitted"),
            (message("a", type="Test"), "bad_message"),
            (message("a", expires=1), "expired"),
            (Message("a", "test.message.v1", "consumer", "", 1), "source_mismatch"),
        ],
    )
    def test_what_is_refused_for_good(self, bench: Bench, wrong: Message, code: str) -> None:
        refused = refusal(bench.publish(wrong))
        assert (refused.code, refused.retry_after_ms) == (code, None)
        assert not bench.core.out.batch

    @pytest.mark.parametrize(
        ("wrong", "where"),
        [
            (["Иванов" * 30, "test.message.v1", "producer", "", 1], "$[0]"),
            (["id", "test.message.v1", "producer", 5, 1], "$[3]"),
            (["id", "test.message.v1", "producer", "", "Иванов"], "$[4]"),
            (["id", "test.message.v1", "producer", "", 1, 9], "$[5]"),
            (["Иванов"], "at least length 5"),
            ({"id": "Иванов"}, "array"),
        ],
    )
    def test_a_message_out_of_shape_is_told_where_and_not_quoted(
        self, bench: Bench, wrong: object, where: str
    ) -> None:
        bench.core.receive(
            b"p", b"", [frames.PUBLISH, msgspec.msgpack.encode([1, [wrong]])], bench.now
        )
        refused = refusal([a for a in bench.answers(b"p") if isinstance(a, frames.RefusedBatch)])
        assert refused.code == "bad_message"
        assert where in refused.sentence
        assert "Иванов" not in refused.sentence

    def test_text_that_is_no_text_is_refused(self, bench: Bench) -> None:
        bench.answers(b"p")
        raw = frames.encode(message("id-1")).replace(b"id-1", b"\xff\xfe-1")
        payload = b"\x92\x01\x91" + raw
        bench.core.receive(b"p", b"", [frames.PUBLISH, payload], bench.now)
        refused = refusal(bench.answers(b"p"))
        assert (refused.code, refused.sentence) == ("bad_message", "text is not UTF-8")

    def test_a_refused_message_does_not_take_its_batch_along(self, bench: Bench) -> None:
        bench.consumer(10)
        refused = refusal(bench.publish(message("a"), message("b", expires=1), message("c")))
        assert (refused.index, refused.code) == (1, "expired")
        assert bench.sync() == [frames.Accepted([1])]
        assert bench.ids() == ["a", "c"]

    def test_a_full_queue_refuses_for_now_and_takes_again(self, bench: Bench) -> None:
        small = [message(str(n), type="small.message.v1") for n in range(4)]
        refused = refusal(bench.publish(*small[:3]))
        assert (refused.index, refused.code) == (2, "queue_full")
        assert refused.retry_after_ms is not None
        bench.sync()
        bench.consumer(10, "small")
        bench.settle(bench.taken()[0][1])
        assert bench.publish(small[3]) == []

    def test_what_follows_a_message_refused_for_now_is_refused_with_it(self, bench: Bench) -> None:
        """Or it would overtake it: here only the second goes where there is room."""
        bench.consumer(10)
        bench.accept(*(message(f"s{n}", type="small.message.v1", subject="x") for n in range(2)))
        refused = bench.publish(
            message("first", type="small.message.v1", subject="call"),
            message("other call", subject="another"),
            message("second", subject="call"),
            message("no order", subject=""),
            message("late", subject="call", expires=1),
        )[0]
        assert isinstance(refused, frames.RefusedBatch)
        assert [(one.index, one.code) for one in refused.refusals] == [
            (0, "queue_full"), (2, "queue_full"), (4, "expired"),
        ]  # fmt: skip
        assert refused.refusals[1].retry_after_ms is not None
        bench.sync()
        assert bench.ids() == ["other call", "no order"]

    def test_messages_without_a_subject_do_not_hold_one_another_up(self, bench: Bench) -> None:
        bench.accept(*(message(f"s{n}", type="small.message.v1") for n in range(2)))
        full = message("first", type="small.message.v1", subject="")
        refused = refusal(bench.publish(full, message("second", subject="")))
        assert (refused.index, refused.code) == (0, "queue_full")

    def test_what_is_refused_for_good_holds_nothing_up(self, bench: Bench) -> None:
        bad = message("bad", subject="call", expires=1)
        refused = refusal(bench.publish(bad, message("next", subject="call")))
        assert (refused.index, refused.code) == (0, "expired")

    def test_a_full_disk_refuses_for_now_and_takes_again(self, bench: Bench) -> None:
        bench.core.store_full = True
        refused = refusal(bench.publish(message("a")))
        assert refused.code == "store_full"
        assert refused.retry_after_ms is not None
        bench.core.store_full = False
        assert bench.publish(message("a")) == []

    def test_a_full_disk_still_settles(self, bench: Bench) -> None:
        bench.accept(message("a"))
        bench.core.store_full = True
        bench.consumer(1)
        ((_, delivery, _),) = bench.taken()
        bench.settle(delivery)
        assert bench.fate(delivery) == "settled: why"


class TestRelaying:
    """What another bus accepted first, passed on by a peer that may speak for it."""

    RIGHTS: ClassVar = {
        **SETTINGS.permissions,
        "producer": Permission(publish=["test.*"], relay=["3f2a9c01b7de", "aa*"]),
    }

    @pytest.fixture
    def bench(self) -> Bench:
        return Bench(msgspec.structs.replace(SETTINGS, permissions=self.RIGHTS))

    @pytest.mark.parametrize("source", ["3f2a9c01b7de.smp", "aa17.sys-112", "producer"])
    def test_a_message_of_a_bus_it_may_speak_for_is_taken(self, bench: Bench, source: str) -> None:
        bench.consumer(10)
        bench.accept(Message("a", "test.message.v1", source, "", 1))
        (delivered,) = bench.answers(b"c")
        assert delivered.deliveries[0].message.source == source

    @pytest.mark.parametrize(
        "source",
        [
            "bus.smp",  # this bus itself
            "b0b.smp",  # a bus that it may not speak for
            "3f2a9c01b7de",
            "3f2a9c01b7de.",
            "3f2a9c01b7de.Smp",
            "3f2a9c01b7de.smp\n",
            "3f2a9c01b7de.aa17.smp",
            "aa-1.smp",
            ".smp",
            "smp",
        ],
    )
    def test_anything_else_is_in_anothers_name(self, bench: Bench, source: str) -> None:
        wrong = Message("a", "test.message.v1", source, "", 1)
        assert refusal(bench.publish(wrong)).code == "source_mismatch"

    def test_who_may_speak_for_all_may_not_for_this_bus(self, bench: Bench) -> None:
        rights = {"producer": Permission(publish=["test.*"], relay=["*"])}
        bench.core.configure(msgspec.structs.replace(SETTINGS, permissions=rights), bench.now)
        ours = Message("a", "test.message.v1", "bus.smp", "", 1)
        assert refusal(bench.publish(ours)).code == "source_mismatch"
        bench.accept(msgspec.structs.replace(ours, source="b0b.smp"))

    def test_routes_and_rights_are_those_of_the_session(self, bench: Bench) -> None:
        secret = Message("a", "secret.message.v1", "3f2a9c01b7de.consumer", "", 1)
        assert refusal(bench.publish(secret)).code == "not_permitted"

    def test_equal_ids_of_two_senders_are_two_messages(self, bench: Bench) -> None:
        sources = ("3f2a9c01b7de.smp", "3f2a9c01b7de.ats", "aa17.smp", "producer")
        bench.publish(*(Message("a", "test.message.v1", source, "", 1) for source in sources))
        rows = bench.core.take_batch().messages
        assert [(row[1], row[2]) for row in rows] == [(source, "a") for source in sources]

    def test_it_ends_with_a_reload(self, bench: Bench) -> None:
        bench.core.configure(SETTINGS, bench.now)
        wrong = Message("a", "test.message.v1", "3f2a9c01b7de.smp", "", 1)
        assert refusal(bench.publish(wrong)).code == "source_mismatch"


class TestPriority:
    def test_the_more_urgent_goes_first(self, bench: Bench) -> None:
        order = [BULK, ROUTINE, EMERGENCY, URGENT, EMERGENCY]
        bench.accept(*(message(f"{n}", priority) for n, priority in enumerate(order)))
        bench.consumer(10)
        assert bench.ids() == ["2", "4", "3", "1", "0"]

    def test_an_emergency_is_next_though_100_000_wait(self, bench: Bench) -> None:
        bench.accept(*(message(f"b{n}", BULK, f"call-{n % 999}") for n in range(100_000)))
        bench.consumer(1)
        ((_, delivery, _),) = bench.taken()
        bench.accept(message("e", EMERGENCY, "call-new"))
        bench.settle(delivery)
        assert bench.ids() == ["e"]

    def test_nothing_starves(self, bench: Bench) -> None:
        bench.accept(message("bulk", BULK))
        bench.accept(*(message(f"{n}", URGENT) for n in range(3 * PASSED_OVER_MAX)))
        bench.consumer(1)
        seen: list[str] = []
        while "bulk" not in seen:
            taken = bench.taken()
            assert taken, "bulk was never delivered"
            for id, delivery, _ in taken:
                seen.append(id)
                bench.settle(delivery)
        assert len(seen) == PASSED_OVER_MAX + 1

    def test_nor_in_one_large_hand(self, bench: Bench) -> None:
        bench.accept(message("bulk", BULK))
        bench.accept(*(message(f"{n}", URGENT) for n in range(3 * PASSED_OVER_MAX)))
        bench.consumer(4 * PASSED_OVER_MAX)
        assert bench.ids().index("bulk") == PASSED_OVER_MAX

    def test_nor_by_emergencies(self, bench: Bench) -> None:
        bench.accept(message("bulk", BULK))
        bench.accept(*(message(f"{n}", EMERGENCY) for n in range(EMERGENCIES_MAX + 50)))
        bench.consumer(2 * EMERGENCIES_MAX)
        assert bench.ids().index("bulk") == EMERGENCIES_MAX

    def test_a_lone_emergency_is_next_however_long_bulk_was_passed_over(self, bench: Bench) -> None:
        bench.accept(message("bulk", BULK))
        bench.accept(*(message(f"{n}", URGENT) for n in range(PASSED_OVER_MAX)))
        bench.consumer(1)
        for _ in range(PASSED_OVER_MAX - 1):
            bench.settle(bench.taken()[0][1])
        ((_, delivery, _),) = bench.taken()
        bench.accept(message("e", EMERGENCY))
        bench.settle(delivery)
        assert bench.ids() == ["e"]

    def test_waiting_for_credit_is_not_being_passed_over(self, bench: Bench) -> None:
        bench.consumer(1)
        bench.accept(message("first", URGENT))
        ((_, delivery, _),) = bench.taken()
        bench.accept(message("bulk", BULK))
        for n in range(2 * PASSED_OVER_MAX):
            bench.accept(message(f"{n}", URGENT))
        bench.settle(delivery)
        assert bench.ids() == ["0"]

    def test_an_emergency_takes_its_whole_subject_forward(self, bench: Bench) -> None:
        bench.accept(message("other", ROUTINE), message("first", BULK, "call"))
        bench.accept(message("urgent", EMERGENCY, "call"))
        bench.consumer(1)
        ((first, delivery, _),) = bench.taken()
        assert first == "first", "order of the subject holds, at the urgency of the last"
        bench.settle(delivery)
        assert bench.ids() == ["urgent"]

    @pytest.mark.parametrize("patient", [ROUTINE, BULK])
    def test_a_full_consumer_has_room_for_an_emergency(
        self, bench: Bench, patient: Priority
    ) -> None:
        bench.consumer(16)
        bench.accept(*(message(f"{n}", patient) for n in range(30)))
        assert len(bench.ids()) == 14
        bench.accept(message("e1", EMERGENCY), message("e2", URGENT), message("e3", URGENT))
        assert bench.ids() == ["e1", "e2"], "two are an eighth of the window"


class TestCredit:
    @settings(max_examples=40, deadline=None)
    @given(st.lists(st.tuples(st.sampled_from("cd"), st.integers(0, 20)), max_size=8))
    def test_is_never_exceeded(self, windows: list[tuple[str, int]]) -> None:
        bench = Bench()
        held: dict[bytes, int] = {b"c": 0, b"d": 0}
        for number, (letter, window) in enumerate(windows):
            peer = letter.encode()
            bench.consumer(window, peer=peer)
            for one in held:
                held[one] += len(bench.taken(one))
            bench.accept(*(message(f"{number}-{n}", n % 4) for n in range(6)))
            before = held[peer]
            for one in held:
                held[one] += len(bench.taken(one))
            assert held[peer] <= max(window, before)

    def test_nothing_goes_without_it(self, bench: Bench) -> None:
        bench.consumer(2)
        bench.consumer(0)
        bench.accept(message("a"))
        assert bench.taken() == []
        bench.consumer(1)
        assert bench.ids() == ["a"]

    def test_two_consumers_share_the_work(self, bench: Bench) -> None:
        bench.consumer(10)
        bench.consumer(10, peer=b"d")
        bench.accept(*(message(f"{n}") for n in range(10)))
        assert (len(bench.ids()), len(bench.ids(b"d"))) == (5, 5)

    def test_much_of_it_is_filled_in_frames_of_bounded_length(self, bench: Bench) -> None:
        bench.accept(*(message(f"{n}", URGENT) for n in range(2 * DELIVER_LENGTH_MAX + 1)))
        bench.consumer(10_000)
        lengths = [len(a.deliveries) for a in bench.answers(b"c")]
        assert lengths == [DELIVER_LENGTH_MAX, DELIVER_LENGTH_MAX, 1]

    def test_on_an_unknown_or_forbidden_destination_is_refused(self, bench: Bench) -> None:
        bench.greet(b"c", "consumer")
        (unknown,) = bench.hear(b"c", frames.CREDIT, frames.Credit("nowhere", 1))
        (forbidden,) = bench.hear(b"p", frames.CREDIT, frames.Credit("sink", 1))
        assert (unknown.code, forbidden.code) == ("unknown_destination", "not_permitted")


class TestOrder:
    def test_a_failing_subject_waits_alone(self, bench: Bench) -> None:
        bench.consumer(10)
        bench.accept(message("a1", subject="a"), message("a2", subject="a"), message("b1"))
        (_, delivery, _), (other, _, _) = bench.taken()
        assert other == "b1"
        bench.settle(delivery, frames.RETRY, 500)
        bench.accept(message("b2", subject="b"))
        assert bench.ids() == ["b2"]
        bench.wait(500)
        assert [(id, attempt) for id, _, attempt in bench.taken()] == [("a1", 2)]
        bench.settle(delivery)
        assert bench.ids() == ["a2"]

    def test_one_that_expires_in_the_line_is_stepped_over(self, bench: Bench) -> None:
        bench.consumer(1)
        late = bench.now.wall_ms + 100
        bench.accept(message("1", subject="s"), message("2", subject="s", expires=late))
        bench.accept(message("3", subject="s"))
        ((_, delivery, _),) = bench.taken()
        bench.wait(100)
        bench.settle(delivery)
        assert bench.ids() == ["3"]

    def test_without_a_subject_nothing_waits(self, bench: Bench) -> None:
        bench.consumer(10)
        bench.accept(message("1"), message("2"))
        assert bench.ids() == ["1", "2"]

    def test_what_a_lost_consumer_held_comes_again_in_order(self, bench: Bench) -> None:
        bench.consumer(4)
        bench.accept(*(message(f"{n}", subject=f"s{n}") for n in range(3)))
        held = bench.taken()
        bench.core.gone(b"c", bench.now, "vanished")
        bench.accept(message("3"))
        bench.consumer(8, peer=b"d")
        again = bench.taken(b"d")
        assert [id for id, _, _ in again] == ["0", "1", "2", "3"]
        assert [delivery for _, delivery, _ in again[:3]] == [delivery for _, delivery, _ in held]
        assert [attempt for _, _, attempt in again] == [2, 2, 2, 1]

    @settings(max_examples=60, deadline=None)
    @given(st.data())
    def test_holds_for_every_subject_whatever_happens(self, data: st.DataObject) -> None:
        bench = Bench(PATIENT)
        published: dict[str, list[str]] = {"a": [], "b": []}
        held: dict[int, str] = {}
        for step in range(data.draw(st.integers(5, 40))):
            action = data.draw(st.sampled_from(["publish", "settle", "lose", "wait"]))
            if action == "publish":
                subject = data.draw(st.sampled_from("ab"))
                published[subject].append(f"{subject}{step}")
                bench.accept(message(f"{subject}{step}", data.draw(st.integers(0, 3)), subject))
            elif action == "settle" and held:
                delivery = data.draw(st.sampled_from(sorted(held)))
                id = held.pop(delivery)
                retry = data.draw(st.booleans())
                bench.settle(delivery, frames.RETRY if retry else frames.ACK, 10)
                if not retry:
                    published[id[0]].remove(id)
            elif action == "lose":
                bench.core.gone(b"c", bench.now, "lost")
                held.clear()
            else:
                bench.wait(20)
            bench.consumer(3)
            held.update({delivery: id for id, delivery, _ in bench.taken()})
            for subject, open_ones in published.items():
                out = [id for id in held.values() if id[0] == subject]
                assert out == open_ones[: len(out)], "a later one overtook"
                assert len(out) <= 1, "two of one subject are out"


class TestSettling:
    def test_retries_grow_and_end_in_a_dead_letter(self, bench: Bench) -> None:
        bench.consumer(1)
        bench.accept(message("a"))
        ((_, delivery, _),) = bench.taken()
        pauses = []
        for _ in range(BACKOFF.attempts_max - 1):
            bench.settle(delivery, frames.RETRY)
            due = bench.core.next_timer_ms()
            assert due is not None
            pauses.append(due - bench.now.mono_ms)
            bench.wait(pauses[-1] - 1)
            assert bench.taken() == []
            bench.wait(1)
            assert len(bench.taken()) == 1
        bench.settle(delivery, frames.RETRY)
        assert bench.fate(delivery) == f"dead: {coded('bus.attempts_over', count=3)}: why"
        assert 80 <= pauses[0] <= 120
        assert 160 <= pauses[1] <= 240

    def test_the_pause_has_a_longest(self) -> None:
        backoff = Backoff(first_ms=100, factor=10, longest_ms=1000)
        destinations = {**SETTINGS.destinations, "sink": Destination(backoff=backoff)}
        bench = Bench(msgspec.structs.replace(SETTINGS, destinations=destinations))
        bench.consumer(1)
        bench.accept(message("a"))
        ((_, delivery, _),) = bench.taken()
        for _ in range(5):
            bench.settle(delivery, frames.RETRY)
            due = bench.core.next_timer_ms()
            assert due is not None
            assert due - bench.now.mono_ms <= 1200, "the longest and its spread"
            bench.wait(1200)

    def test_one_that_is_too_old_is_not_tried_again(self) -> None:
        backoff = Backoff(age_max_ms=5_000)
        destinations = {**SETTINGS.destinations, "sink": Destination(backoff=backoff)}
        bench = Bench(msgspec.structs.replace(SETTINGS, destinations=destinations))
        bench.consumer(1)
        bench.accept(message("a"))
        ((_, delivery, _),) = bench.taken()
        bench.wait(5_000)
        bench.settle(delivery, frames.RETRY)
        assert bench.fate(delivery) == f"dead: {coded('bus.age_over', seconds=5)}: why"

    def test_one_that_takes_its_consumer_along_each_time_is_dead(self, bench: Bench) -> None:
        bench.accept(message("a"), message("b"))
        for attempt in range(1, BACKOFF.attempts_max + 1):
            bench.consumer(1)
            ((id, delivery, number),) = bench.taken()
            assert (id, number) == ("a", attempt)
            bench.core.gone(b"c", bench.now, "crashed")
        assert bench.fate(delivery) == f"dead: {coded('bus.vanished')}"
        bench.consumer(1)
        assert bench.ids() == ["b"]

    def test_a_rejected_message_is_dead_at_once_and_its_subject_goes_on(self, bench: Bench) -> None:
        bench.consumer(1)
        bench.accept(message("a", subject="s"), message("b", subject="s"))
        ((_, delivery, _),) = bench.taken()
        bench.settle(delivery, frames.REJECT)
        assert bench.fate(delivery) == "dead: why"
        assert bench.ids() == ["b"]

    def test_a_second_settlement_changes_nothing(self, bench: Bench) -> None:
        bench.consumer(1)
        bench.accept(message("a"))
        ((_, delivery, _),) = bench.taken()
        bench.settle(delivery)
        bench.settle(delivery, frames.REJECT)
        assert bench.fate(delivery) == "settled: why"
        assert bench.core.counters["dead"] == 0

    def test_anothers_delivery_is_not_touched(self, bench: Bench) -> None:
        bench.consumer(1)
        bench.accept(message("a"))
        ((_, delivery, _),) = bench.taken()
        bench.consumer(1, peer=b"d")
        bench.settle(delivery, peer=b"d")
        (answer,) = bench.answers(b"d")
        assert answer.code == "not_yours"
        assert bench.fate(delivery) is None

    def test_a_late_ack_saves_the_repeat(self, bench: Bench) -> None:
        bench.consumer(1)
        bench.accept(message("a"))
        ((_, delivery, _),) = bench.taken()
        bench.core.gone(b"c", bench.now, "silent")
        bench.greet(b"d", "consumer")
        bench.settle(delivery, peer=b"d")
        assert bench.fate(delivery) == "settled: why"
        bench.consumer(1, peer=b"d")
        assert bench.taken(b"d") == []

    @pytest.mark.parametrize("outcome", [frames.RETRY, frames.REJECT])
    def test_only_an_ack_may_come_late(self, bench: Bench, outcome: int) -> None:
        bench.consumer(1)
        bench.accept(message("a"))
        ((_, delivery, _),) = bench.taken()
        bench.core.gone(b"c", bench.now, "silent")
        bench.greet(b"d", "consumer")
        bench.settle(delivery, outcome, peer=b"d")
        assert bench.fate(delivery) is None
        bench.consumer(1, peer=b"d")
        assert [attempt for _, _, attempt in bench.taken(b"d")] == [2]

    def test_nor_from_one_who_may_not_consume(self, bench: Bench) -> None:
        bench.consumer(1)
        bench.accept(message("a"))
        ((_, delivery, _),) = bench.taken()
        bench.core.gone(b"c", bench.now, "silent")
        bench.settle(delivery, peer=b"p")
        assert bench.fate(delivery) is None

    def test_a_late_ack_ends_the_wait_for_a_retry(self, bench: Bench) -> None:
        bench.consumer(1)
        bench.accept(message("a"))
        ((_, delivery, _),) = bench.taken()
        bench.settle(delivery, frames.RETRY, 500)
        assert bench.core.queues["sink"].retrying == 1
        bench.settle(delivery)
        assert bench.fate(delivery) == "settled: why"
        assert bench.core.queues["sink"].retrying == 0
        bench.wait(500)
        assert bench.taken() == []


class TestTime:
    def test_not_before(self, bench: Bench) -> None:
        bench.consumer(5)
        bench.accept(message("later", not_before=bench.now.wall_ms + 1000), message("now"))
        assert bench.ids() == ["now"]
        bench.wait(999)
        assert bench.taken() == []
        bench.wait(1)
        assert bench.ids() == ["later"]

    def test_what_expires_while_it_waits_is_never_delivered(self, bench: Bench) -> None:
        late = bench.now.wall_ms + 100
        bench.accept(message("a", subject="s", expires=late), message("b", subject="s"))
        bench.wait(100)
        bench.consumer(5)
        assert bench.ids() == ["b"]
        assert bench.core.counters["expired"] == 1

    def test_in_a_consumers_hands_the_settlement_decides(self, bench: Bench) -> None:
        bench.consumer(1)
        bench.accept(message("a", expires=bench.now.wall_ms + 100))
        ((_, delivery, _),) = bench.taken()
        bench.wait(200)
        bench.settle(delivery)
        assert bench.fate(delivery) == "settled: why"

    def test_that_is_over_spares_the_retry(self, bench: Bench) -> None:
        bench.consumer(1)
        bench.accept(message("a", expires=bench.now.wall_ms + 100))
        ((_, delivery, _),) = bench.taken()
        bench.wait(200)
        bench.settle(delivery, frames.RETRY)
        assert bench.fate(delivery) == "expired: why"


class TestQuestions:
    def ask(self, bench: Bench, destination: str = "sink", timeout: int = 1000) -> list[Any]:
        question = frames.Request(7, destination, timeout, message("q"))
        return bench.hear(b"p", frames.REQUEST, question)

    def lose(self, bench: Bench) -> tuple[bytes, list[bytes]]:
        """Ask, and keep the router's question from whom it is for."""
        question = frames.encode(frames.Request(7, "sink", 900, message("q")))
        bench.core.receive(b"p", b"", [frames.REQUEST, question], bench.now)
        sends, bench.core.out.sends = bench.core.out.sends, []
        (lost,) = [one for one in sends if one[1][0] == frames.REQUEST]
        return lost

    def test_are_answered_once(self, bench: Bench) -> None:
        bench.consumer(0)
        assert self.ask(bench) == []
        (asked,) = bench.answers(b"c")
        reply = frames.Reply(asked.request, body=b"{}")
        bench.hear(b"c", frames.REPLY, reply)
        assert bench.answers(b"p") == [frames.Reply(7, body=b"{}")]
        bench.hear(b"c", frames.REPLY, reply)
        bench.wait(2000)
        assert bench.answers(b"p") == []
        assert bench.core.counters["late_replies"] == 1
        assert not bench.core.out.batch, "a question never touches the disk"

    def test_time_out(self, bench: Bench) -> None:
        bench.consumer(0)
        self.ask(bench, timeout=500)
        (asked,) = bench.answers(b"c")
        bench.wait(500)
        assert [answer.code for answer in bench.answers(b"p")] == ["timeout"]
        bench.hear(b"c", frames.REPLY, frames.Reply(asked.request, body=b"late"))
        assert bench.answers(b"p") == [], "it was answered already"
        assert bench.core.counters["late_replies"] == 1

    def test_without_a_server_fail_at_once(self, bench: Bench) -> None:
        assert [answer.code for answer in self.ask(bench)] == ["no_consumer"]

    def test_fail_when_the_server_goes(self, bench: Bench) -> None:
        bench.consumer(0)
        self.ask(bench)
        bench.core.gone(b"c", bench.now, "lost")
        assert [answer.code for answer in bench.answers(b"p")] == ["no_consumer"]

    def test_that_could_not_be_handed_over_go_to_another(self, bench: Bench) -> None:
        """Nobody heard it, so that nothing can happen twice: a dead process is no answer."""
        bench.consumer(0)
        bench.consumer(0, peer=b"d")
        peer, parts = self.lose(bench)
        bench.wait(300)
        bench.core.unsent(peer, [parts], bench.now)
        (other,) = {b"c", b"d"} - {peer}
        assert peer not in bench.core.sessions
        (asked,) = [one for one in bench.answers(other) if isinstance(one, frames.Request)]
        assert asked.timeout_ms == 600, "what is left of its time"
        bench.hear(other, frames.REPLY, frames.Reply(asked.request, body=b"{}"))
        assert bench.answers(b"p") == [frames.Reply(7, body=b"{}")]
        assert bench.core._questions.asked_by(b"p") == 0

    def test_that_could_not_be_handed_over_to_the_last_one_fail(self, bench: Bench) -> None:
        bench.consumer(0)
        peer, parts = self.lose(bench)
        bench.core.unsent(peer, [parts], bench.now)
        assert [answer.code for answer in bench.answers(b"p")] == ["no_consumer"]
        bench.wait(2000)
        assert bench.answers(b"p") == []
        assert bench.core._questions.asked_by(b"p") == 0

    def test_of_an_asker_who_is_gone_are_not_asked_again(self, bench: Bench) -> None:
        bench.consumer(0)
        bench.consumer(0, peer=b"d")
        peer, parts = self.lose(bench)
        bench.core.gone(b"p", bench.now, "lost")
        bench.core.unsent(peer, [parts], bench.now)
        (other,) = {b"c", b"d"} - {peer}
        assert not [one for one in bench.answers(other) if isinstance(one, frames.Request)]

    def test_are_for_those_who_may_ask(self, bench: Bench) -> None:
        bench.consumer(0, "small")
        assert [answer.code for answer in self.ask(bench, "small")] == ["not_permitted"]

    def test_are_asked_in_the_askers_own_name(self, bench: Bench) -> None:
        bench.consumer(0)
        forged = Message("q", "test.message.v1", "consumer", "", 1)
        answers = bench.hear(b"p", frames.REQUEST, frames.Request(7, "sink", 1000, forged))
        assert [answer.code for answer in answers if isinstance(answer, frames.Reply)] == [
            "source_mismatch"
        ]
        assert bench.answers(b"c") == []

    def test_only_the_one_asked_may_answer(self, bench: Bench) -> None:
        bench.consumer(0)
        self.ask(bench)
        (asked,) = bench.answers(b"c")
        bench.greet(b"d", "consumer")
        bench.hear(b"d", frames.REPLY, frames.Reply(asked.request, body=b"forged"))
        assert bench.answers(b"p") == []


class TestSessions:
    @pytest.mark.parametrize(
        ("hello", "code"),
        [
            (frames.Hello([2, 3], "consumer"), "bad_version"),
            (frames.Hello([1], "stranger"), "unknown_name"),
        ],
    )
    def test_begin_with_a_version_and_a_name_we_know(
        self, bench: Bench, hello: frames.Hello, code: str
    ) -> None:
        (answer,) = bench.hear(b"c", frames.HELLO, hello)
        assert answer.code == code
        assert b"c" not in bench.core.sessions

    def test_begin_with_hello(self, bench: Bench) -> None:
        (answer,) = bench.hear(b"c", frames.PUBLISH, frames.Publish(1, [message("a")]))
        assert (answer.code, answer.verb) == ("hello_required", "PUBLISH")
        assert not bench.core.out.batch

    def test_take_their_name_from_the_key(self, bench: Bench) -> None:
        bench.core.know({b"key": "consumer"}, bench.now)
        for name, key, code in (("producer", b"key", "name_mismatch"), ("x", b"?", "revoked")):
            hello = [frames.HELLO, frames.encode(frames.Hello([1], name))]
            bench.core.receive(b"k", key, hello, bench.now)
            assert [answer.code for answer in bench.answers(b"k")] == [code]
        assert b"k" not in bench.core.sessions

    @pytest.mark.parametrize("other", [b"two", b""])
    def test_are_not_taken_over_by_a_frame_with_another_key(
        self, bench: Bench, other: bytes
    ) -> None:
        """A routing id proves nothing: libzmq gives it to whoever asks for it next."""
        bench.core.know({b"one": "consumer", b"two": "producer"}, bench.now)
        hello = [frames.HELLO, frames.encode(frames.Hello([1], "consumer"))]
        bench.core.receive(b"k", b"one", hello, bench.now)
        assert isinstance(bench.answers(b"k")[0], frames.Welcome)
        credit = [frames.CREDIT, frames.encode(frames.Credit("sink", 1))]
        bench.core.receive(b"k", other, credit, bench.now)
        assert [answer.code for answer in bench.answers(b"k")] == ["revoked"]
        assert b"k" not in bench.core.sessions

    def test_live_while_they_speak_even_nonsense(self, bench: Bench) -> None:
        bench.greet(b"c", "consumer")
        for number in range(8):
            bench.now = Now(bench.now.wall_ms, bench.now.mono_ms + 6_000)
            bench.hear(b"c", frames.PING, frames.Ping(number))
            bench.core.receive(b"p", b"", [b"NONSENSE", b""], bench.now)
            bench.core.beat(bench.now)
        assert set(bench.core.sessions) == {b"p", b"c"}

    def test_answer_a_ping_with_its_number(self, bench: Bench) -> None:
        bench.answers(b"p")
        assert bench.hear(b"p", frames.PING, frames.Ping(77)) == [frames.Ping(77)]
        assert bench.hear(b"p", frames.PONG, frames.Ping(78)) == []

    def test_that_say_bye_give_back_what_they_held_at_once(self, bench: Bench) -> None:
        bench.consumer(1)
        bench.consumer(1, peer=b"d")
        bench.accept(message("a"))
        (first, second) = (b"c", b"d") if bench.core.sessions[b"c"].held() else (b"d", b"c")
        assert bench.ids(first) == ["a"]
        bench.hear(first, frames.BYE, frames.Bye("restart"))
        assert [(id, attempt) for id, _, attempt in bench.taken(second)] == [("a", 2)]

    def test_are_told_when_the_router_stops(self, bench: Bench) -> None:
        bench.greet(b"c", "consumer")
        bench.answers(b"p")
        bench.core.farewell()
        assert [type(answer) for answer in bench.answers(b"c")] == [frames.Bye]
        assert [type(answer) for answer in bench.answers(b"p")] == [frames.Bye]

    def test_of_one_name_are_limited_so_that_others_find_room(self, bench: Bench) -> None:
        for number in range(5):
            bench.greet(f"c{number}".encode(), "consumer")
        (answer,) = bench.greet(b"one too many", "consumer")
        assert answer.code == "too_many_sessions"
        assert isinstance(bench.greet(b"q", "producer")[0], frames.Welcome)

    def test_are_limited_altogether(self) -> None:
        names = {f"peer{number}": Permission() for number in range(21)}
        bench = Bench(
            msgspec.structs.replace(SETTINGS, permissions={**SETTINGS.permissions, **names})
        )
        answers = [bench.greet(name.encode(), name)[0] for name in names]
        assert [isinstance(answer, frames.Welcome) for answer in answers] == [True] * 19 + [
            False
        ] * 2

    def test_greeting_again_begins_anew(self, bench: Bench) -> None:
        bench.consumer(5)
        bench.accept(message("a"))
        assert len(bench.taken()) == 1
        bench.greet(b"c", "consumer")
        assert bench.core.queues["sink"].in_flight == 0
        bench.consumer(5)
        assert [attempt for _, _, attempt in bench.taken()] == [2]

    def test_that_are_silent_are_pinged_and_then_ended(self, bench: Bench) -> None:
        bench.consumer(5)
        bench.accept(message("a"))
        bench.taken()
        bench.now = Now(bench.now.wall_ms, bench.now.mono_ms + 1000)
        bench.core.beat(bench.now)
        assert bench.answers(b"c") == [frames.Ping(0)]
        bench.now = Now(bench.now.wall_ms, bench.now.mono_ms + 9000)
        bench.core.beat(bench.now)
        assert bench.core.sessions == {}
        assert bench.core.queues["sink"].in_flight == 0

    def test_end_when_their_key_is_revoked(self) -> None:
        bench = Bench()
        bench.core.know({b"key": "consumer"}, bench.now)
        hello = [frames.HELLO, frames.encode(frames.Hello([1], "consumer"))]
        bench.core.receive(b"k", b"key", hello, bench.now)
        assert isinstance(bench.answers(b"k")[0], frames.Welcome)
        bench.core.know({}, bench.now)
        assert [answer.code for answer in bench.answers(b"k")] == ["revoked"]
        assert b"k" not in bench.core.sessions

    def test_a_reload_changes_rights_at_once(self, bench: Bench) -> None:
        bench.accept(message("before"))
        rights = {**SETTINGS.permissions, "producer": Permission()}
        bench.core.configure(msgspec.structs.replace(SETTINGS, permissions=rights), bench.now)
        assert refusal(bench.publish(message("a"))).code == "not_permitted"

    def test_a_reload_changes_routes_at_once(self, bench: Bench) -> None:
        bench.consumer(5)
        bench.consumer(5, "other", b"d")
        bench.accept(message("a"))
        routes = [Route(type="test.*", to=["other"])]
        bench.core.configure(msgspec.structs.replace(SETTINGS, routes=routes), bench.now)
        bench.accept(message("b"))
        assert (bench.ids(), bench.ids(b"d")) == (["a"], ["b"])


class TestRoutes:
    def test_the_least_limit_of_the_routes_that_take_a_message_holds(self, bench: Bench) -> None:
        routes = [
            Route(type="test.*", to=["sink"], body_bytes_max=50),
            Route(type="test.*", to=["other"], body_bytes_max=20, priorities=[3]),
            Route(type="*", to=["sink"]),
        ]
        bench.core.configure(msgspec.structs.replace(SETTINGS, routes=routes), bench.now)
        assert bench.publish(message("a", body=b"x" * 50)) == []
        assert refusal(bench.publish(message("b", body=b"x" * 51))).code == "body_too_large"
        said = refusal(bench.publish(message("c", BULK, body=b"x" * 21)))
        assert (said.code, said.sentence) == ("body_too_large", "the body is over 20 bytes")

    @pytest.mark.parametrize(
        ("source", "type", "priority", "to"),
        [
            ("smp", "call.status.v1", ROUTINE, ("sys112", "archive")),
            ("tfoms", "call.status.v1", ROUTINE, ("archive",)),
            ("smp", "call.ticket.v1", ROUTINE, ()),
            ("smp", "call.ticket.v1", EMERGENCY, ("sys112",)),
            ("smp", "caller.v1", ROUTINE, ()),
        ],
    )
    def test_every_one_that_matches_adds_its_destinations_once(
        self, source: str, type: str, priority: int, to: tuple[str, ...]
    ) -> None:
        routes = Routes(
            [
                Route(type="call.status.v1", source="smp", to=["sys112"]),
                Route(type="call.*", priorities=[0, 1], to=["sys112"]),
                Route(type="call.status.*", to=["archive", "archive"]),
            ]
        )
        assert routes.find(source, type, priority) == to


def test_a_restart_takes_up_what_was_open_in_order_with_its_attempts() -> None:
    bench = Bench()
    rows = [
        OpenDelivery(n, n, "sink", bench.now.wall_ms, frames.encode(message(f"{n}", subject="s")))
        for n in (1, 2)
    ]
    retried = OpenDelivery(
        3, 3, "sink", bench.now.wall_ms, frames.encode(message("3")), 2, bench.now.wall_ms + 500
    )
    bench.core.restore([], [*rows, retried], 4, 4, bench.now)
    bench.consumer(10)
    assert bench.taken() == [("1", 1, 1)]
    bench.wait(500)
    assert bench.taken() == [("3", 3, 3)]
    bench.settle(3)
    assert [row[2] for row in bench.core.out.batch.outcomes] == ["sink"]
    bench.accept(message("4"))
    assert bench.taken() == [("4", 4, 1)]


def test_a_destination_that_left_the_configuration_keeps_its_deliveries() -> None:
    bench = Bench()
    row = OpenDelivery(1, 1, "gone", bench.now.wall_ms, frames.encode(message("a")))
    bench.core.restore([], [row], 2, 2, bench.now)
    assert bench.core.queues["gone"].open == 1


# -- what a hostile or busy peer once could do ---------------------------------------------------


def test_deep_nesting_is_a_bad_frame(bench: Bench) -> None:
    bench.answers(b"p")
    deep = b"\x91" * 20_000 + b"\xc0"
    for parts in ([frames.PING, b"\x92\x00" + deep], [frames.PUBLISH, b"\x92\x01\x91" + deep]):
        bench.core.receive(b"p", b"", parts, bench.now)
        assert [a.code for a in bench.answers(b"p")] == ["bad_frame"]


def test_a_reload_takes_the_right_to_consume_at_once(bench: Bench) -> None:
    bench.consumer(1)
    bench.accept(message("held"), message("next"))
    ((_, _delivery, _),) = bench.taken()
    rights = {**SETTINGS.permissions, "consumer": Permission(consume=["other"])}
    bench.core.configure(msgspec.structs.replace(SETTINGS, permissions=rights), bench.now)
    assert [a.code for a in bench.answers(b"c")] == ["not_permitted"]
    bench.accept(message("secret"))
    assert bench.taken() == []
    assert bench.core.queues["sink"].in_flight == 0


def test_what_a_silent_session_held_does_not_go_to_another_silent_one(bench: Bench) -> None:
    bench.consumer(1)
    bench.accept(message("a"))
    bench.taken()
    bench.consumer(9, peer=b"d")
    later = bench.now.mono_ms + SETTINGS.bus.session_timeout_ms
    bench.now = Now(bench.now.wall_ms, later)
    bench.core.beat(bench.now)
    assert bench.taken(b"d") == []
    bench.consumer(1, peer=b"e")
    assert [(id, attempt) for id, _, attempt in bench.taken(b"e")] == [("a", 2)]


def test_a_reload_ends_the_session_of_a_name_that_left(bench: Bench) -> None:
    bench.consumer(1)
    rights = {"producer": SETTINGS.permissions["producer"]}
    bench.core.configure(msgspec.structs.replace(SETTINGS, permissions=rights), bench.now)
    assert [a.code for a in bench.answers(b"c")] == ["unknown_name"]
    assert b"c" not in bench.core.sessions


def test_a_passed_over_lane_goes_once_not_a_whole_window(bench: Bench) -> None:
    bench.accept(*(message(f"u{n}", URGENT) for n in range(300)))
    bench.accept(*(message(f"b{n}", BULK) for n in range(100)))
    bench.consumer(16)
    seen = []
    for _ in range(12):
        taken = bench.taken()
        seen += [id for id, _, _ in taken]
        settle = frames.Settle([frames.Settlement(d) for _, d, _ in taken])
        bench.core.receive(b"c", b"", [frames.SETTLE, frames.encode(settle)], bench.now)
    assert "bb" not in "".join(id[0] for id in seen)


def test_the_reserve_starves_nobody(bench: Bench) -> None:
    bench.accept(message("bulk", BULK), *(message(f"{n}", URGENT) for n in range(1000)))
    bench.consumer(16)
    held, seen = [], []
    while "bulk" not in seen:
        taken = bench.taken()
        seen += [id for id, _, _ in taken]
        held += [delivery for _, delivery, _ in taken]
        bench.settle(held.pop(0))
    assert len(seen) <= PASSED_OVER_MAX + 16


def test_what_expired_in_lost_hands_does_not_come_again(bench: Bench) -> None:
    bench.consumer(1)
    bench.accept(message("a", expires=bench.now.wall_ms + 100))
    ((_, delivery, _),) = bench.taken()
    bench.wait(1000)
    bench.core.gone(b"c", bench.now, "lost")
    assert str(bench.fate(delivery)).startswith("expired")


def test_a_busy_subject_starves_nobody(bench: Bench) -> None:
    bench.consumer(1)
    bench.accept(message("a0", subject="a"), message("b0", subject="b"), message("a1", subject="a"))
    seen = []
    for n in range(2, 10):
        ((id, delivery, _),) = bench.taken()
        seen.append(id)
        bench.accept(message(f"a{n}", subject="a"))
        bench.settle(delivery)
    assert seen[:3] == ["a0", "b0", "a1"]


def test_timers_do_not_outlive_their_deliveries_without_bound(bench: Bench) -> None:
    bench.consumer(100)
    for r in range(200):
        bench.accept(*(message(f"{r}-{n}", expires=bench.now.wall_ms + 10**10) for n in range(50)))
        for _, delivery, _ in bench.taken():
            bench.settle(delivery)
    assert not bench.core.open
    assert len(bench.core._timers) < 5_000


def test_open_questions_are_bounded(bench: Bench) -> None:
    bench.consumer(0)
    codes = []
    for n in range(3000):
        codes += [
            a.code
            for a in bench.hear(
                b"p", frames.REQUEST, frames.Request(n, "sink", 600_000, message("q"))
            )
            if isinstance(a, frames.Reply)
        ]
    assert len(bench.core._questions) <= 1024
    assert "queue_full" in codes


def test_a_question_has_the_limit_of_a_body(bench: Bench) -> None:
    bench.consumer(0)
    (answer,) = [
        a
        for a in bench.hear(
            b"p", frames.REQUEST, frames.Request(1, "sink", 1000, message("q", body=b"x" * 101))
        )
        if isinstance(a, frames.Reply)
    ]
    assert answer.code == "body_too_large"


def test_an_emergency_takes_all_before_it_in_its_subject_forward(bench: Bench) -> None:
    bench.accept(*(message(f"o{n}", ROUTINE) for n in range(300)))
    bench.accept(message("a1", BULK, "call"), message("a2", BULK, "call"))
    bench.accept(message("a3", EMERGENCY, "call"))
    bench.consumer(1)
    seen = []
    for _ in range(3):
        ((id, delivery, _),) = bench.taken()
        seen.append(id)
        bench.settle(delivery)
    assert seen == ["a1", "a2", "a3"]


def test_no_part_of_the_heart_has_more_attributes_than_are_found_by_their_place(
    bench: Bench,
) -> None:
    """One more than thirty, and CPython looks each of them up by its name at every use."""
    bench.consumer(1)
    session = bench.core.sessions[b"c"]
    for one in (bench.core, bench.core.queues["sink"], session):
        assert len(vars(one)) <= 30
