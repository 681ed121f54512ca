"""Groups of operators: who is in which state, and the figures of each minute. Pure.

The threshold of 20 seconds is the norm for answering an emergency call (Government decree 1931,
docs/domain.md 4.3). How a caller left a group is `visits.py`'s to say.
"""

from dataclasses import dataclass, field
from datetime import datetime
from statistics import fmean
from typing import Final, Literal, NamedTuple

from connectors.partners.ats.ami import Packet
from connectors.partners.ats.calls import CallBook
from connectors.partners.ats.legs import member_of
from connectors.partners.ats.visits import Outcome, Waiting

State = Literal["offline", "free", "ringing", "talking", "paused", "unavailable"]
# AST_DEVICE_* of Asterisk's devicestate.h. A queue rings whom it knows nothing of (0), such as a
# custom device that nobody has set.
BUSY: Final = "3"  # also one that rings, where device_state_busy_at = 1
STATES: Final[dict[str, State]] = {
    "0": "free", "1": "free", "2": "talking", "3": "talking", "4": "unavailable",
    "5": "unavailable", "6": "ringing", "7": "talking", "8": "talking",
}  # fmt: skip
# Events that mean something to groups and not to calls.
WANTED: Final = frozenset({
    "AgentComplete", "HangupRequest", "QueueCallerAbandon", "QueueEntryGone", "QueueMemberPause",
    "QueueMemberRemoved",
})  # fmt: skip


@dataclass(frozen=True)
class OperatorEvent:
    """An operator came into another state."""

    operator: str
    groups: tuple[str, ...]
    state: State
    at: datetime


@dataclass
class Minute:
    """What happened in one group since the last look; seconds."""

    offered: int = 0
    answered: int = 0
    answered_in_time: int = 0
    abandoned: int = 0
    left: int = 0  # unanswered, and not by hanging up
    left_by_key: int = 0  # of these
    waits_s: list[float] = field(default_factory=list)
    talks_s: list[float] = field(default_factory=list)

    @property
    def wait_mean_s(self) -> float:
        """Return the mean wait of who was answered or gave up."""
        return round(fmean(self.waits_s or [0.0]), 1)

    @property
    def wait_max_s(self) -> float:
        """Return the longest of these waits."""
        return max(self.waits_s, default=0.0)

    @property
    def talk_mean_s(self) -> float:
        """Return the mean length of the talks that ended."""
        return round(fmean(self.talks_s or [0.0]), 1)


class Group(NamedTuple):
    """A group at the end of a period."""

    figures: Minute
    logged_in: int
    available: int
    waiting: int


class GroupBook:
    """All groups and operators there are. `calls` tell what else becomes of a caller: give each
    event to the groups first."""

    def __init__(self, threshold_s: float, calls: CallBook | None = None) -> None:
        self._threshold_s = threshold_s
        self._calls = calls
        self._waiting = Waiting(calls)
        self.minutes: dict[str, Minute] = {}
        self._states: dict[str, dict[str, State]] = {}  # operator -> group -> state
        self._told: dict[str, tuple[tuple[str, ...], State]] = {}

    def apply(self, packet: Packet, at: datetime) -> list[OperatorEvent]:
        """Count what an event says of its group; returns whose state changed."""
        for one in self._waiting.apply(packet, at):
            self._count(one)
        group = packet["Queue"]
        if not group:
            return []
        minute = self.minutes.setdefault(group, Minute())
        match packet.event:
            case "QueueCallerJoin":
                minute.offered += 1
            case "AgentConnect":
                wait_s = _seconds(packet["HoldTime"])
                minute.answered += 1
                minute.answered_in_time += wait_s <= self._threshold_s
                minute.waits_s.append(wait_s)
            case "AgentComplete":
                minute.talks_s.append(self._talk_s(packet, at))
            case "QueueMemberStatus" | "QueueMemberAdded" | "QueueMemberPause" | "QueueMember":
                return self._member(packet, at)
            case "QueueMemberRemoved":
                return self._member_gone(packet, at)
        return []

    def _count(self, outcome: Outcome) -> None:
        minute = self.minutes.setdefault(outcome.queue, Minute())
        if outcome.kind == "abandoned":
            minute.abandoned += 1
            minute.waits_s.append(outcome.wait_s)
        else:
            minute.left += 1
            minute.left_by_key += outcome.kind == "key"

    def _talk_s(self, packet: Packet, at: datetime) -> float:
        """Return how long the queue's member talked, as it was heard. What the exchange says
        (TalkTime) goes on until the caller hangs up, where the call was redirected or transferred
        through a Local channel."""
        call = self._calls.of_leg(packet["Uniqueid"]) if self._calls is not None else None
        talks = call.talks if call is not None else []
        for talk in reversed(talks):
            if talk.queue == packet["Queue"] and talk.since is not None:
                until = at if talk.goes_on else talk.until
                if until is not None:
                    return max(0.0, (until - talk.since).total_seconds())
        return _seconds(packet["TalkTime"])

    def resync(self, packets: list[Packet], at: datetime) -> list[OperatorEvent]:
        """Take the answer to QueueStatus for what is true now. Who waits and was not known is
        offered now."""
        members = {(_name(one), one["Queue"]) for one in packets if one.event == "QueueMember"}
        events: list[OperatorEvent] = []
        for operator, groups in list(self._states.items()):
            for group in [group for group in groups if (operator, group) not in members]:
                gone = Packet({"MemberName": operator, "Queue": group})
                events += self._member_gone(gone, at)
        entries = [one for one in packets if one.event == "QueueEntry"]
        for queue in self._waiting.resync(entries, at):
            self.minutes.setdefault(queue, Minute()).offered += 1
        for packet in packets:
            if packet.event == "QueueMember":
                events += self._member(packet, at)
        return events

    def take(self) -> dict[str, Group]:
        """Return what there is to tell of each group, and begin to count anew."""
        minutes, self.minutes = self.minutes, {}
        groups = {group for states in self._states.values() for group in states}
        taken = {}
        for group in sorted(groups | minutes.keys()):
            states = [one[group] for one in self._states.values() if group in one]
            logged_in = sum(state not in ("offline", "unavailable") for state in states)
            waiting = self._waiting.count(group)
            figures = minutes.get(group, Minute())
            taken[group] = Group(figures, logged_in, states.count("free"), waiting)
        return taken

    def _member(self, packet: Packet, at: datetime) -> list[OperatorEvent]:
        operator, status = _name(packet), packet["Status"]
        state: State = STATES.get(status, "unavailable")
        if status == BUSY and self._calls is not None and self._calls.is_rung(operator):
            state = "ringing"
        if packet["Paused"] == "1" and state == "free":
            state = "paused"
        self._states.setdefault(operator, {})[packet["Queue"]] = state
        return self._tell(operator, at)

    def _member_gone(self, packet: Packet, at: datetime) -> list[OperatorEvent]:
        operator = _name(packet)
        groups = self._states.get(operator, {})
        groups.pop(packet["Queue"], None)
        if not groups:
            self._states.pop(operator, None)
        return self._tell(operator, at)

    def _tell(self, operator: str, at: datetime) -> list[OperatorEvent]:
        groups = self._states.get(operator, {})
        busy = [state for state in groups.values() if state in ("talking", "ringing")]
        state: State = next(iter([*busy, *groups.values(), "offline"]))
        now = tuple(sorted(groups)), state
        if self._told.get(operator) == now:
            return []
        self._told[operator] = now
        return [OperatorEvent(operator, *now, at)]


def _name(packet: Packet) -> str:
    return member_of(packet["MemberName"] or packet["Name"])


def _seconds(value: str) -> float:
    try:
        return max(0.0, float(value))
    except ValueError:
        return 0.0
