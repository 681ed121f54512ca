"""How callers leave a group: answered, abandoned, by a key, or otherwise unanswered. Pure.

The exchange says QueueCallerAbandon of everybody who leaves unanswered, also of whom the queue
itself sends on after its time, and of whom a key lets out. What they did is seen by what comes
next on their channel: who is hung up at once, or has asked for it while waiting, has abandoned; who
goes on in the dial plan has not, and neither has who was answered elsewhere meanwhile.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final, Literal, NamedTuple

from connectors.partners.ats.ami import Packet
from connectors.partners.ats.calls import CallBook

AT_ONCE_S: Final = 1.0
KEYS: Final = frozenset("0123456789*#ABCD")
GOING_ON: Final = frozenset({"QueueCallerJoin", "DialBegin", "BridgeEnter", "ParkedCall"})


class Outcome(NamedTuple):
    """How somebody left a group, who was not answered by it."""

    queue: str
    kind: Literal["abandoned", "key", "left"]
    wait_s: float


@dataclass
class _Visit:
    queue: str
    joined_at: datetime
    exten: str
    hangs_up: bool = False
    left_at: datetime | None = None
    wait_s: float | None = None  # as the exchange says when it calls somebody abandoned


class Waiting:
    """Who waits in which group, and who has left one in a way not yet known."""

    def __init__(self, calls: CallBook | None) -> None:
        self._calls = calls
        self._waiting: dict[str, _Visit] = {}  # by channel
        self._leaving: dict[str, _Visit] = {}

    def count(self, queue: str) -> int:
        """Return how many wait in a group."""
        return sum(one.queue == queue for one in self._waiting.values())

    def apply(self, packet: Packet, at: datetime) -> Iterator[Outcome]:
        """Yield how callers left who are known now to have left unanswered."""
        channel = packet["Uniqueid"]
        if (leaving := self._leaving.get(channel)) is not None:
            yield from self._went_on(leaving, packet, at)
        match packet.event:
            case "QueueCallerJoin":
                self._waiting[channel] = _Visit(packet["Queue"], at, packet["Exten"])
            case "AgentConnect":
                self._waiting.pop(channel, None)
                self._leaving.pop(channel, None)
            case "HangupRequest":
                if (visit := self._waiting.get(channel)) is not None:
                    visit.hangs_up = True
            case "QueueCallerAbandon":
                visit = self._waiting.get(channel) or _Visit(packet["Queue"], at, packet["Exten"])
                visit.wait_s = _seconds(packet["HoldTime"])
                self._leaving[channel] = visit
            case "QueueCallerLeave" | "QueueEntryGone":
                if (left := self._waiting.pop(channel, None)) is not None:
                    left.left_at = at
                    self._leaving[channel] = left
            case "Hangup":
                if (waited := self._waiting.pop(channel, None)) is not None:
                    waited.hangs_up = True  # it never left
                    yield self._ended(waited, channel, at)

    def _went_on(self, visit: _Visit, packet: Packet, at: datetime) -> Iterator[Outcome]:
        channel = packet["Uniqueid"]
        outcome: Outcome | None = None
        key = packet["Exten"] != visit.exten and packet["Exten"] in KEYS and packet["Exten"] != ""
        if key and visit.left_at is not None:
            outcome = Outcome(visit.queue, "key", 0.0)
        elif packet.event == "Hangup":
            outcome = self._ended(visit, channel, at)
        elif packet.event in GOING_ON or (
            packet.event == "VarSet" and packet["Variable"] == "QUEUESTATUS" and packet["Value"]
        ):
            outcome = Outcome(visit.queue, "left", 0.0)
        if outcome is not None:
            del self._leaving[channel]
            if self._waiting.get(channel) is visit:
                del self._waiting[channel]
            yield outcome

    def _ended(self, visit: _Visit, channel: str, at: datetime) -> Outcome:
        left_at = visit.left_at or at
        hung_up = visit.hangs_up or at - left_at <= timedelta(seconds=AT_ONCE_S)
        if not hung_up or self._answered_since(channel, visit.joined_at):
            return Outcome(visit.queue, "left", 0.0)
        waited_s = (left_at - visit.joined_at).total_seconds()
        return Outcome(visit.queue, "abandoned", waited_s if visit.wait_s is None else visit.wait_s)

    def _answered_since(self, channel: str, joined_at: datetime) -> bool:
        call = self._calls.of_leg(channel) if self._calls is not None else None
        talks = call.talks if call is not None else []
        return any(one.goes_on or (one.since and one.since >= joined_at) for one in talks)

    def resync(self, entries: Iterable[Packet], at: datetime) -> list[str]:
        """Take a list of who waits (QueueEntry) for what is true; return the groups of those who
        were not known."""
        known, self._waiting, self._leaving = self._waiting, {}, {}
        new = []
        for entry in entries:
            channel, queue = entry["Uniqueid"], entry["Queue"]
            leg = self._calls.legs.all.get(channel) if self._calls is not None else None
            visit = known.get(channel)
            if visit is None or visit.queue != queue:
                exten = leg.exten if leg is not None else ""
                began = at - timedelta(seconds=_seconds(entry["Wait"]))
                visit = _Visit(queue, began, exten)
                if leg is None or leg.queue != queue:
                    new.append(queue)
            self._waiting[channel] = visit
        return new


def _seconds(value: str) -> float:
    try:
        return max(0.0, float(value))
    except ValueError:
        return 0.0
