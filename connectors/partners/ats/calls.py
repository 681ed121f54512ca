"""The calls that an exchange is carrying, put together from what it says of their channels. Pure.

A call is all channels of one `Linkedid`. After an attended transfer a channel speaks of another
Linkedid: it moves to that call, and a call that has lost its last channel has ended. What happens
while the connection is away is found out by `resync`, so that no call is left hanging.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final, Literal

from connectors.partners.ats.ami import Packet

Kind = Literal[
    "started", "ringing", "answered", "bridged", "held", "resumed", "transferred", "ended"
]
LOST_SIGHT: Final = "lost_sight"  # it ended while nobody was listening
MERGED: Final = "merged"
RECORDING: Final = "MIXMONITOR_FILENAME"
UP: Final = "6"  # ChannelState


@dataclass
class Call:
    """One call that has not ended; times are UTC."""

    id: str
    direction: Literal["in", "out"]
    number_from: str
    number_to: str
    started_at: datetime
    queue: str = ""
    operator: str = ""
    recording: str = ""
    answered_at: datetime | None = None
    channels: set[str] = field(default_factory=set)
    talking: set[str] = field(default_factory=set)  # channels in a bridge
    ringing: set[str] = field(default_factory=set)  # operators that were rung


@dataclass(frozen=True)
class CallEvent:
    """What became of a call; (call id, kind, `mark`) is the same however often it is told."""

    call: Call
    kind: Kind
    at: datetime
    mark: str = ""
    cause: str = ""


class CallBook:
    """All calls there are. `inbound` are the dial plan's contexts that callers come in by."""

    def __init__(self, inbound: Iterable[str]) -> None:
        self.calls: dict[str, Call] = {}
        self.unknown = 0  # packets that speak of channels nobody knows
        self._inbound = frozenset(inbound)
        self._channels: dict[str, Call] = {}
        self._steps: dict[str, Callable[[Packet, datetime], list[CallEvent]]] = {
            "Newchannel": self._new_channel,
            "DialBegin": self._dial_begin,
            "AgentCalled": self._agent_called,
            "AgentConnect": self._agent_connect,
            "BridgeEnter": self._bridge_enter,
            "BridgeLeave": self._bridge_leave,
            "Hold": lambda packet, at: self._held("held", packet, at),
            "Unhold": lambda packet, at: self._held("resumed", packet, at),
            "BlindTransfer": self._transfer,
            "AttendedTransfer": self._transfer,
            "QueueCallerJoin": self._queue_join,
            "VarSet": self._variable,
            "Hangup": self._hangup,
        }

    def apply(self, packet: Packet, now: datetime) -> list[CallEvent]:
        """Return what an event of the exchange means; events of no interest mean nothing."""
        step = self._steps.get(packet.event)
        return step(packet, moment_of(packet, now)) if step else []

    def resync(self, channels: Iterable[Packet], now: datetime) -> list[CallEvent]:
        """Compare with all channels there are (CoreShowChannels): begin the calls nobody told of,
        end those whose end nobody told of."""
        events: list[CallEvent] = []
        seen = set()
        for packet in channels:
            seen.add(packet["Uniqueid"])
            events += self._new_channel(packet, now)
            call = self._channels[packet["Uniqueid"]]
            if packet["BridgeId"]:
                events += self._talk(call, packet["Uniqueid"], now)
        for channel in [channel for channel in self._channels if channel not in seen]:
            events += self._gone(channel, now, LOST_SIGHT)
        return events

    def restore(self, calls: Iterable[dict[str, Any]]) -> None:
        """Take up the calls that an earlier process knew; `resync` tells what became of them."""
        for one in calls:
            call = Call(one["id"], one["direction"], one["from"], one["to"],
                        datetime.fromisoformat(one["started_at"]))  # fmt: skip
            self.calls[call.id] = call
            self._enter(call, f"{call.id}/restored")

    # -- channels -------------------------------------------------------------------------------

    def _new_channel(self, packet: Packet, at: datetime) -> list[CallEvent]:
        channel, id = packet["Uniqueid"], packet["Linkedid"] or packet["Uniqueid"]
        if not id:
            self.unknown += 1
            return []
        if channel in self._channels:
            return self._follow(packet, at)
        call = self.calls.get(id)
        if call is not None:
            self._leave(f"{id}/restored")
            self._enter(call, channel)
            return []
        direction: Literal["in", "out"] = "in" if packet["Context"] in self._inbound else "out"
        call = Call(id, direction, packet["CallerIDNum"], packet["Exten"], at)
        self.calls[id] = call
        self._enter(call, channel)
        return [CallEvent(call, "started", at)]

    def _enter(self, call: Call, channel: str) -> None:
        call.channels.add(channel)
        self._channels[channel] = call

    def _leave(self, channel: str) -> Call | None:
        call = self._channels.pop(channel, None)
        if call is not None:
            call.channels.discard(channel)
            call.talking.discard(channel)
        return call

    def _gone(self, channel: str, at: datetime, cause: str) -> list[CallEvent]:
        call = self._leave(channel)
        if call is None:
            self.unknown += 1
            return []
        if call.channels:
            return []
        del self.calls[call.id]
        return [CallEvent(call, "ended", at, cause=cause)]

    def _follow(self, packet: Packet, at: datetime) -> list[CallEvent]:
        """Move a channel that speaks of another call than it did."""
        channel, id = packet["Uniqueid"], packet["Linkedid"]
        before = self._channels[channel]
        if not id or before.id == id:
            return []
        call = self.calls.get(id)
        events = [] if before.channels == {channel} else [CallEvent(before, "transferred", at, id)]
        if call is None:
            return []
        events += self._gone(channel, at, MERGED)
        self._enter(call, channel)
        return events

    def _known(self, packet: Packet, key: str = "Uniqueid") -> Call | None:
        call = self._channels.get(packet[key]) or self.calls.get(packet["Linkedid"])
        self.unknown += call is None
        return call

    def _hangup(self, packet: Packet, at: datetime) -> list[CallEvent]:
        return self._gone(packet["Uniqueid"], at, packet["Cause"])

    # -- what happens in a call -----------------------------------------------------------------

    def _dial_begin(self, packet: Packet, at: datetime) -> list[CallEvent]:
        call = self._known(packet, "DestUniqueid")
        return self._ring(call, packet["DestCallerIDNum"] or packet["DialString"], at)

    def _agent_called(self, packet: Packet, at: datetime) -> list[CallEvent]:
        return self._ring(self._known(packet), packet["MemberName"], at)

    @staticmethod
    def _ring(call: Call | None, operator: str, at: datetime) -> list[CallEvent]:
        if call is None or not operator or operator in call.ringing:
            return []
        call.ringing.add(operator)
        call.operator = call.operator if call.answered_at else operator
        return [CallEvent(call, "ringing", at, operator)]

    def _agent_connect(self, packet: Packet, at: datetime) -> list[CallEvent]:
        call = self._known(packet)
        if call is None:
            return []
        call.operator = packet["MemberName"] or call.operator
        return self._answer(call, at, call.operator)

    @staticmethod
    def _answer(call: Call, at: datetime, mark: str) -> list[CallEvent]:
        if call.answered_at is None:
            call.answered_at = at
            return [CallEvent(call, "answered", at)]
        return [CallEvent(call, "bridged", at, mark)] if mark else []

    def _bridge_enter(self, packet: Packet, at: datetime) -> list[CallEvent]:
        events = self._follow(packet, at) if packet["Uniqueid"] in self._channels else []
        call = self._known(packet)
        return events + (self._talk(call, packet["Uniqueid"], at) if call else [])

    def _talk(self, call: Call, channel: str, at: datetime) -> list[CallEvent]:
        call.talking.add(channel)
        return self._answer(call, at, "") if len(call.talking) > 1 else []

    def _bridge_leave(self, packet: Packet, _: datetime) -> list[CallEvent]:
        if call := self._channels.get(packet["Uniqueid"]):
            call.talking.discard(packet["Uniqueid"])
        return []

    def _held(
        self, kind: Literal["held", "resumed"], packet: Packet, at: datetime
    ) -> list[CallEvent]:
        call = self._known(packet)
        return [CallEvent(call, kind, at, at.isoformat())] if call else []

    def _transfer(self, packet: Packet, at: datetime) -> list[CallEvent]:
        call = self.calls.get(packet["TransfererLinkedid"] or packet["OrigTransfererLinkedid"])
        self.unknown += call is None
        to = packet["Extension"] or packet["TransferTargetExten"]
        return [CallEvent(call, "transferred", at, to)] if call else []

    def _queue_join(self, packet: Packet, _: datetime) -> list[CallEvent]:
        if call := self._known(packet):
            call.queue = packet["Queue"]
        return []

    def _variable(self, packet: Packet, _: datetime) -> list[CallEvent]:
        if packet["Variable"] == RECORDING and (call := self._known(packet)):
            call.recording = packet["Value"].rpartition("/")[2]
        return []


def moment_of(packet: Packet, now: datetime) -> datetime:
    """Return when an event happened: by the exchange if it says so (timestampevents = yes)."""
    try:
        return datetime.fromtimestamp(float(packet["Timestamp"]), UTC)
    except (ValueError, OverflowError, OSError):
        return now
