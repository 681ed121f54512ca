"""The exchange's stream cut into packets, and its channels put together into calls."""

from collections import Counter
from datetime import UTC, datetime
from itertools import count
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.partners.ats.ami import PACKET_BYTES_MAX, Packet, Parser, encode
from connectors.partners.ats.calls import LOST_SIGHT, CallBook, CallEvent
from connectors.partners.ats.gap import catch_up
from connectors.partners.ats.groups import GroupBook
from connectors.partners.ats.joining import KEPT_S, Joining
from connectors.partners.ats.memory import LiveCalls

NOW = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
BANNER = b"Asterisk Call Manager/7.0.3\r\n"
STREAM = BANNER + b"".join(
    f"Event: Newchannel\r\nUniqueid: {n}\r\nCallerIDName: Один: два\r\n\r\n".encode()
    for n in range(20)
)


def book(*packets: Packet) -> tuple[CallBook, list[CallEvent]]:
    calls = CallBook(["from-trunk"])
    return calls, [event for packet in packets for event in calls.apply(packet, NOW)]


def event(name: str, channel: str, call: str, **fields: str) -> Packet:
    return Packet(Event=name, Uniqueid=channel, Linkedid=call, **fields)


def incoming(channel: str, call: str = "") -> Packet:
    return event("Newchannel", channel, call or channel, Context="from-trunk",
                 CallerIDNum="+70000000001", Exten="103")  # fmt: skip


class TestParser:
    @given(st.lists(st.integers(1, 200), max_size=40))
    def test_however_a_stream_is_cut_the_packets_are_the_same(self, cuts: list[int]) -> None:
        parser, found, at = Parser(), [], 0
        for cut in [*cuts, len(STREAM)]:
            found += list(parser.feed(STREAM[at : at + cut]))
            at += cut
        assert [packet["Uniqueid"] for packet in found] == [str(n) for n in range(20)]
        assert found[0]["CallerIDName"] == "Один: два"
        assert parser.banner == "Asterisk Call Manager/7.0.3"

    @given(st.lists(st.binary(max_size=300), max_size=10))
    def test_noise_raises_nothing_and_hides_nothing_after_it(self, noise: list[bytes]) -> None:
        parser = Parser()
        list(parser.feed(BANNER))
        for piece in noise:
            list(parser.feed(piece))
        (*_, last) = parser.feed(b"\r\n\r\nEvent: After\r\n\r\n")
        assert last.event == "After"

    def test_a_packet_without_end_takes_no_memory_and_is_counted_once(self) -> None:
        parser = Parser()
        list(parser.feed(BANNER + b"Event: Endless\r\nValue: "))
        for _ in range(10):
            assert list(parser.feed(b"x" * PACKET_BYTES_MAX)) == []
            assert len(parser._rest) <= PACKET_BYTES_MAX
        assert [p.event for p in parser.feed(b"\r\n\r\nEvent: After\r\n\r\n")] == ["After"]
        assert parser.spoiled == 1

    def test_no_value_can_add_an_action(self) -> None:
        assert encode("Ping", "1") == b"Action: Ping\r\nActionID: 1\r\n\r\n"
        with pytest.raises(ValueError, match="Exten"):
            encode("Originate", "2", {"Exten": "1\r\n\r\nAction: Logoff"})


class TestCalls:
    def test_a_call_from_its_beginning_to_its_end(self) -> None:
        calls, events = book(
            incoming("1"),
            event("QueueCallerJoin", "1", "1", Queue="dispatch"),
            event("AgentCalled", "1", "1", Queue="dispatch", MemberName="op-07"),
            event("Newchannel", "2", "1", Context="from-internal"),
            event("AgentConnect", "1", "1", MemberName="op-07"),
            event("BridgeEnter", "1", "1"),
            event("BridgeEnter", "2", "1"),
            event("VarSet", "1", "1", Variable="MIXMONITOR_FILENAME", Value="/var/rec/1.wav"),
            event("Hangup", "2", "1", Cause="16"),
            event("Hangup", "1", "1", Cause="16"),
        )
        assert [one.kind for one in events] == ["started", "ringing", "answered", "ended"]
        last = events[-1]
        assert (last.call.operator, last.call.queue) == ("op-07", "dispatch")
        assert (last.cause, last.call.recording, last.call.direction) == ("16", "1.wav", "in")
        assert calls.calls == {}

    def test_a_channel_that_follows_a_transfer_ends_the_call_it_left(self) -> None:
        _, events = book(
            incoming("1"),
            event("Newchannel", "2", "1", Context="from-internal"),
            incoming("3"),
            event("BridgeEnter", "1", "3"),  # attended transfer: 1 is now of call 3
            event("Hangup", "2", "1", Cause="16"),
            event("Hangup", "3", "3", Cause="16"),
            event("Hangup", "1", "3", Cause="16"),
        )
        # Nobody of the world outside is left in call 1: it is part of call 3 from here on.
        ends = [(one.call.id, one.cause) for one in events if one.kind == "ended"]
        assert ends == [("1", "merged"), ("3", "16")]

    def test_an_old_version_without_linkedid_has_calls_of_one_channel(self) -> None:
        _, events = book(incoming("1", ""), Packet(Event="Hangup", Uniqueid="1", Cause="17"))
        assert [(one.call.id, one.kind) for one in events] == [("1", "started"), ("1", "ended")]

    def test_after_a_gap_no_call_hangs_and_none_begins_twice(self) -> None:
        calls, _ = book(incoming("1"), incoming("2"))
        live = [Packet(incoming("2"), Event="CoreShowChannel"),
                Packet(incoming("3"), Event="CoreShowChannel")]  # fmt: skip
        events = catch_up(calls, live, NOW)
        assert [(one.call.id, one.kind, one.cause) for one in events] == [
            ("3", "started", ""),
            ("1", "ended", LOST_SIGHT),
        ]
        assert catch_up(calls, live, NOW) == []

    def test_what_an_earlier_process_knew_ends_too(self, tmp_path: Path) -> None:
        memory = LiveCalls(tmp_path / "live")
        memory.open()
        _, (first, second) = book(incoming("1"), incoming("2"))
        memory.began(first.call)
        memory.began(second.call)
        memory.ended(["2"])
        with (tmp_path / "live").open("ab") as file:
            file.write(b'{"id": "torn')
        again = LiveCalls(tmp_path / "live")
        calls = CallBook(["from-trunk"])
        calls.restore(again.open())
        events = catch_up(calls, [], NOW)
        assert [(one.call.id, one.kind) for one in events] == [("1", "ended")]
        assert (tmp_path / "live").stat().st_mode & 0o777 == 0o600

    @settings(deadline=None)
    @given(st.lists(st.tuples(st.integers(0, 5), st.integers(0, 3), st.sampled_from(
        ["Newchannel", "BridgeEnter", "BridgeLeave", "Hangup", "AgentConnect", "Hold", "Strange"]
    )), max_size=60), st.sets(st.integers(0, 5)))  # fmt: skip
    def test_in_any_order_a_call_starts_once_ends_once_and_none_is_left(
        self, steps: list[tuple[int, int, str]], live: set[int]
    ) -> None:
        fresh = count()
        channels = {number: f"{number}.{next(fresh)}" for number in range(6)}
        calls, events = CallBook(["from-trunk"]), []
        for number, call, name in steps:
            if name == "Newchannel":  # an exchange gives no Uniqueid twice
                channels[number] = f"{number}.{next(fresh)}"
            packet = event(name, channels[number], f"call-{call}.{channels[number]}")
            events += calls.apply(packet, NOW)
        shown = [event("CoreShowChannel", channels[number], channels[number]) for number in live]
        events += catch_up(calls, shown, NOW)
        events += catch_up(calls, [], NOW)
        assert calls.calls == {}
        assert not calls.legs.all
        assert not calls.of
        assert not calls._alias
        per_call = Counter((one.call.id, one.kind) for one in events)
        begun = {id for id, kind in per_call if kind == "started"}
        assert begun == {id for id, kind in per_call if kind == "ended"}
        assert all(n == 1 for (_, kind), n in per_call.items() if kind in ("started", "ended"))


class TestGroups:
    def test_a_minute_of_a_group(self) -> None:
        groups = GroupBook(20.0)
        for packet in (
            event("QueueCallerJoin", "1", "1", Queue="dispatch"),
            event("AgentConnect", "1", "1", Queue="dispatch", HoldTime="20"),
            event("QueueCallerLeave", "1", "1", Queue="dispatch"),
            event("QueueCallerJoin", "2", "2", Queue="dispatch"),
            event("AgentConnect", "2", "2", Queue="dispatch", HoldTime="21"),
            event("QueueCallerJoin", "3", "3", Queue="dispatch"),
            event("QueueCallerJoin", "4", "4", Queue="dispatch"),
            event("QueueCallerAbandon", "4", "4", Queue="dispatch", HoldTime="x"),
            event("QueueCallerLeave", "4", "4", Queue="dispatch"),
            event("Hangup", "4", "4", Cause="0"),
            event("AgentComplete", "1", "1", Queue="dispatch", TalkTime="60"),
            Packet(Event="QueueMemberStatus", Queue="dispatch", MemberName="op", Status="1"),
        ):
            groups.apply(packet, NOW)
        there = groups.take()["dispatch"]
        minute = there.figures
        assert (minute.offered, minute.answered, minute.answered_in_time) == (4, 2, 1)
        assert (minute.abandoned, minute.wait_max_s, minute.talk_mean_s) == (1, 21.0, 60.0)
        assert (there.logged_in, there.available, there.waiting) == (1, 1, 1)
        assert groups.take()["dispatch"].figures.offered == 0

    def test_an_operator_is_told_of_once_per_state_and_missed_when_gone(self) -> None:
        groups = GroupBook(20.0)
        free = Packet(Event="QueueMember", Queue="dispatch", Name="op", Status="1", Paused="0")
        paused = Packet(free, Paused="1")
        states = [one.state for packet in (free, free, paused) for one in groups.apply(packet, NOW)]
        assert states == ["free", "paused"]
        assert [one.state for one in groups.resync([], NOW)] == ["offline"]


def test_a_card_finds_its_call_and_a_call_its_card_for_an_hour() -> None:
    joining = Joining()
    assert joining.call("+7 (000) 000-00-01", "call-1", 0) is None
    assert joining.card("80000000001", "112-1", 5) == "call-1"
    assert joining.call("70000000001", "call-2", 10) == "112-1"
    assert joining.call("70000000001", "call-3", 6 + KEPT_S) is None
    assert joining.card("112", "112-2", 0) is None
