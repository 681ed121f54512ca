"""What the exchange says in few words, one rule at a time, and what a dispatcher is told of it."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import msgspec

from connectors.partners.ats.ami import Packet
from connectors.partners.ats.calls import CallBook, CallEvent
from connectors.partners.ats.groups import GroupBook
from connectors.partners.ats.legs import endpoint_of, member_of, number_of, telephone_of
from connectors.partners.ats.memory import LiveCalls
from connectors.partners.ats.telling import call_message
from proto import schemas

NOW = datetime(2026, 11, 23, 8, 0, tzinfo=UTC)
CALLER = "Newchannel|Uniqueid: 1.0|Linkedid: 1.0|Context: from-trunk|Exten: 103"


def packets(*lines: str) -> list[Packet]:
    """Return events written as `Name|Key: value|...`."""
    found = []
    for line in lines:
        name, *fields = line.split("|")
        told = dict(field.split(": ", 1) for field in fields)
        found.append(Packet({"Event": name, **told}))
    return found


def heard(*lines: str, book: CallBook | None = None) -> list[CallEvent]:
    calls = book or CallBook(["from-trunk"])
    return [event for packet in packets(*lines) for event in calls.apply(packet, NOW)]


def told(events: list[CallEvent]) -> list[str]:
    return [f"{one.kind} {one.operator}".strip() for one in events]


def phone(id: str, number: str, link: str = "1.0") -> str:
    return (f"Newchannel|Uniqueid: {id}|Linkedid: {link}|Channel: PJSIP/{number}-0000000a"
            f"|Context: from-internal|CallerIDNum: {number}|Exten: s")  # fmt: skip


class TestNames:
    def test_of_channels_members_and_numbers(self) -> None:
        assert endpoint_of("PJSIP/op-01-0000002f") == endpoint_of("PJSIP/op-01") == "op-01"
        assert endpoint_of("Local/201@from-queue-00000003;1") == "201"
        assert [member_of(one) for one in ("Петров Пётр", "Local/201@q/n", "PJSIP/7")] == [
            "Петров Пётр", "201", "7",
        ]  # fmt: skip
        assert number_of("+79990000001", "PJSIP/trunk-00000001") == "+79990000001"
        words = ("<unknown>", "", "s", "anonymous", "Unknown")
        assert {number_of(one, "PJSIP/trunk2-00000001") for one in (*words, "trunk2")} == {""}

    def test_a_telephone_that_shows_a_number_of_the_world_is_told_by_its_own_name(self) -> None:
        assert telephone_of("+74950000103", "PJSIP/201-0000000a") == "201"
        assert telephone_of("201", "PJSIP/soft-abc-0000000a") == "201"


class TestNumbers:
    def test_nobody_is_no_number_until_the_exchange_brings_one(self) -> None:
        book = CallBook(["from-trunk"])
        events = heard(
            f"{CALLER}|CallerIDNum: <unknown>|Channel: PJSIP/trunk-00000001",
            "NewCallerid|Uniqueid: 1.0|Linkedid: 1.0|CallerIDNum: +79990000001",
            book=book,
        )
        assert (events[0].call.number_from, events[0].call.number_to) == ("+79990000001", "103")

    def test_a_click_is_a_call_to_the_number_and_belongs_to_its_card(self) -> None:
        book = CallBook(["from-trunk"])
        book.expect("bus-1", "201", "+79990000040", "112-1")
        events = heard(
            phone("bus-1", "201", "bus-1"),
            "DialBegin|DestUniqueid: bus-1|DestLinkedid: bus-1|DialString: 201",
            "Newchannel|Uniqueid: 9.1|Linkedid: bus-1|Context: from-trunk|CallerIDNum: <unknown>",
            "DialBegin|Uniqueid: bus-1|Linkedid: bus-1|Exten: +79990000040|DestUniqueid: 9.1"
            "|DestLinkedid: bus-1|DestCallerIDNum: +79990000040",
            "Hangup|Uniqueid: 9.1|Linkedid: bus-1|Cause: 17",
            "Hangup|Uniqueid: bus-1|Linkedid: bus-1|Cause: 16",
            book=book,
        )
        call = events[0].call
        assert told(events) == ["started 201", "ringing 201", "ended 201"]
        assert (call.number_from, call.number_to, call.id112) == ("201", "+79990000040", "112-1")
        assert (events[-1].cause, call.answered_at) == ("17", None)
        assert book.causes == {"bus-1": "16"}


class TestWhoAnswered:
    def test_a_member_who_sent_the_call_on_is_not_who_answered(self) -> None:
        """302: the queue says its member's name, and another telephone was picked up."""
        local = "Context: from-internal|CallerIDNum: <unknown>|Exten: 202"
        events = heard(
            f"{CALLER}|CallerIDNum: +79990000001",
            "QueueCallerJoin|Uniqueid: 1.0|Linkedid: 1.0|Queue: 103",
            phone("1.1", "201"),
            "AgentCalled|Uniqueid: 1.0|Linkedid: 1.0|DestUniqueid: 1.1|MemberName: 201",
            f"Newchannel|Uniqueid: 1.2|Linkedid: 1.0|Channel: Local/202@x-0000000b;1|{local}",
            f"Newchannel|Uniqueid: 1.3|Linkedid: 1.0|Channel: Local/202@x-0000000b;2|{local}",
            "DialBegin|Uniqueid: 1.0|Linkedid: 1.0|DestUniqueid: 1.2|DestLinkedid: 1.0",
            phone("1.4", "202"),
            "DialBegin|Uniqueid: 1.3|Linkedid: 1.0|DestUniqueid: 1.4|DestLinkedid: 1.0",
            "Hangup|Uniqueid: 1.1|Linkedid: 1.0|Cause: 23",
            "BridgeEnter|BridgeUniqueid: b1|Uniqueid: 1.4|Linkedid: 1.0",
            "BridgeEnter|BridgeUniqueid: b1|Uniqueid: 1.3|Linkedid: 1.0",
            "AgentConnect|Uniqueid: 1.0|Linkedid: 1.0|DestUniqueid: 1.2|Queue: 103|MemberName: 201"
            "|Interface: PJSIP/201",
            "BridgeEnter|BridgeUniqueid: b2|Uniqueid: 1.2|Linkedid: 1.0",
            "BridgeEnter|BridgeUniqueid: b2|Uniqueid: 1.0|Linkedid: 1.0",
        )
        assert told(events) == ["started", "ringing 201", "ringing 202", "answered 202"]
        assert [talk.operator for talk in events[-1].call.talks] == ["202"]

    def test_two_who_are_parked_do_not_talk_with_each_other(self) -> None:
        parked = "BridgeUniqueid: p|BridgeTechnology: holding_bridge|BridgeType: parking"
        events = heard(
            f"{CALLER}|CallerIDNum: +79990000001",
            CALLER.replace("1.0", "2.0") + "|CallerIDNum: +79990000002",
            f"BridgeEnter|{parked}|Uniqueid: 1.0|Linkedid: 1.0",
            f"BridgeEnter|{parked}|Uniqueid: 2.0|Linkedid: 2.0",
        )
        assert told(events) == ["started", "started"]

    def test_nothing_is_taken_off_hold_that_was_not_on_it(self) -> None:
        events = heard(
            f"{CALLER}|CallerIDNum: +79990000001",
            phone("1.1", "201"),
            "Unhold|Uniqueid: 1.1|Linkedid: 1.0",
            "Hold|Uniqueid: 1.1|Linkedid: 1.0",
            "Unhold|Uniqueid: 1.1|Linkedid: 1.0",
        )
        assert told(events) == ["started", "held 201", "resumed 201"]

    def test_a_dial_plan_that_passes_several_places_after_a_transfer_is_no_second_one(self) -> None:
        events = heard(
            f"{CALLER}|CallerIDNum: +79990000001",
            phone("1.1", "201"),
            "BridgeEnter|BridgeUniqueid: b|Uniqueid: 1.1|Linkedid: 1.0",
            "BridgeEnter|BridgeUniqueid: b|Uniqueid: 1.0|Linkedid: 1.0|Exten: 103",
            "BlindTransfer|Result: Success|TransfererUniqueid: 1.1|Extension: 303",
            "BridgeLeave|BridgeUniqueid: b|Uniqueid: 1.0|Linkedid: 1.0|Exten: 303",
            "Hangup|Uniqueid: 1.1|Linkedid: 1.0|Cause: 16",
            "QueueCallerJoin|Uniqueid: 1.0|Linkedid: 1.0|Queue: night|Exten: s",
        )
        assert told(events) == ["started", "answered 201", "transferred 201"]
        assert events[-1].to == "303"


class TestGaps:
    def test_a_call_that_is_first_seen_in_a_bridge_begins_when_its_uniqueid_says(self) -> None:
        """The list of channels was refused, so nobody could tell of it before."""
        began = NOW - timedelta(seconds=90)
        id = f"pbx-{int(began.timestamp())}.7"
        (event,) = heard(
            f"BridgeEnter|BridgeUniqueid: b|Uniqueid: {id}|Linkedid: {id}|Context: from-trunk"
            "|CallerIDNum: +79990000001|Exten: 103"
        )
        assert event.call.started_at == began
        assert [(one.since, one.until) for one in event.call.unheard] == [(began, NOW)]

    def test_a_file_of_an_earlier_version_goes_on(self, tmp_path: Path) -> None:
        file = tmp_path / "live"
        record = {"id": "1.0", "direction": "in", "from": "+79990000001", "to": "103",
                  "started_at": NOW.isoformat()}  # fmt: skip
        file.write_bytes(msgspec.json.encode(record) + b"\n")
        memory, book = LiveCalls(file), CallBook(["from-trunk"])
        book.restore(memory.open())
        (event,) = heard("Hangup|Uniqueid: 1.0|Linkedid: 1.0|Cause: 16", book=book)
        assert (event.kind, event.cause, event.call.number_from) == ("ended", "16", "+79990000001")

    def test_what_is_kept_of_a_call_is_all_that_was_known(self, tmp_path: Path) -> None:
        book = CallBook(["from-trunk"])
        heard(
            f"{CALLER}|CallerIDNum: +79990000001",
            "QueueCallerJoin|Uniqueid: 1.0|Linkedid: 1.0|Queue: 103",
            phone("1.1", "201"),
            "BridgeEnter|BridgeUniqueid: b|Uniqueid: 1.1|Linkedid: 1.0",
            "BridgeEnter|BridgeUniqueid: b|Uniqueid: 1.0|Linkedid: 1.0",
            book=book,
        )
        memory = LiveCalls(tmp_path / "live", grown_bytes=3_000)
        memory.open()
        for number in range(20):  # it is made short again meanwhile
            book.calls["1.0"].recordings.append(f"{number}.wav")
            memory.began(book.calls["1.0"])
        memory.heard(NOW)
        memory.close()
        again, later = LiveCalls(tmp_path / "live"), CallBook(["from-trunk"])
        later.restore(again.open())
        assert later.calls == book.calls
        assert again.heard_at == NOW
        assert (tmp_path / "live").stat().st_size < 6_000
        events = heard("Hangup|Uniqueid: 1.1|Linkedid: 1.0|Cause: 16",
                       "Hangup|Uniqueid: 1.0|Linkedid: 1.0|Cause: 16", book=later)  # fmt: skip
        body = schemas.TelephonyCall
        ended = msgspec.json.decode(call_message("ats", events[-1]).body, type=body)
        assert (ended.operator, ended.queue, ended.answered_at) == ("201", "103", NOW)
        assert [(talk.operator, talk.queue, talk.goes_on) for talk in ended.talks] == [
            ("201", "103", False)
        ]


class TestGroups:
    def test_who_is_answered_elsewhere_has_not_abandoned(self) -> None:
        book = CallBook(["from-trunk"])
        groups = GroupBook(20.0, book)
        for packet in packets(
            f"{CALLER}|CallerIDNum: +79990000001",
            "QueueCallerJoin|Uniqueid: 1.0|Linkedid: 1.0|Queue: 103",
            phone("2.0", "203", "2.0"),
            "BridgeEnter|BridgeUniqueid: b|Uniqueid: 2.0|Linkedid: 2.0",
            "BridgeEnter|BridgeUniqueid: b|Uniqueid: 1.0|Linkedid: 1.0",
            "QueueCallerAbandon|Uniqueid: 1.0|Linkedid: 1.0|Queue: 103|HoldTime: 4",
            "QueueCallerLeave|Uniqueid: 1.0|Linkedid: 1.0|Queue: 103",
            "Hangup|Uniqueid: 1.0|Linkedid: 1.0|Cause: 16",
        ):
            groups.apply(packet, NOW)
            book.apply(packet, NOW)
        there = groups.take()["103"]
        assert (there.figures.offered, there.figures.abandoned, there.figures.left) == (1, 0, 1)

    def test_a_telephone_that_rings_is_not_busy_whatever_its_settings_say(self) -> None:
        book = CallBook(["from-trunk"])
        groups = GroupBook(20.0, book)
        heard(
            f"{CALLER}|CallerIDNum: +79990000001",
            phone("1.1", "201"),
            "DialBegin|Uniqueid: 1.0|Linkedid: 1.0|DestUniqueid: 1.1|DestLinkedid: 1.0",
            book=book,
        )
        states = []
        for status in "30451":
            (packet,) = packets(f"QueueMemberStatus|Queue: 103|MemberName: 201|Status: {status}")
            states += [event.state for event in groups.apply(packet, NOW)]
        assert states == ["ringing", "free", "unavailable", "free"]

    def test_only_who_is_there_is_logged_in(self) -> None:
        groups = GroupBook(20.0)
        for name, status in (("a", "1"), ("b", "4"), ("c", "5"), ("d", "0")):
            (packet,) = packets(f"QueueMemberStatus|Queue: 103|MemberName: {name}|Status: {status}")
            groups.apply(packet, NOW)
        assert groups.take()["103"].logged_in == 2
