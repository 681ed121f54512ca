"""The calls that an exchange is carrying, put together from what it says of their channels. Pure.

`joins.py` says which channels are one call and who talks in it; here is what each event means. What
happens while the connection is away is found out by `catch_up` (`gap.py`), so that no call is left
hanging.
"""

from collections.abc import Callable, Iterable
from datetime import UTC, datetime, timedelta
from typing import Final, Literal

from connectors.partners.ats.ami import Packet
from connectors.partners.ats.joins import MERGED, Visits, seniority
from connectors.partners.ats.legs import (
    BridgeKind,
    Leg,
    endpoint_of,
    is_technical,
    kind_of,
    leg_of,
    member_of,
    number_of,
    remember_member,
    telephone_of,
)
from connectors.partners.ats.story import LOST_SIGHT, Call, CallEvent, Kind

TOLD_WITHIN: Final = timedelta(seconds=2)  # of what it tells of
RECORDING: Final = "MIXMONITOR_FILENAME"

__all__ = ["LOST_SIGHT", "MERGED", "Call", "CallBook", "CallEvent", "Kind", "moment_of"]


class CallBook(Visits):
    """All calls there are. `inbound` are the dial plan's contexts that callers come in by."""

    def __init__(self, inbound: Iterable[str]) -> None:
        super().__init__(inbound)
        self._steps: dict[str, Callable[[Packet, datetime], list[CallEvent]]] = {
            "Newchannel": self._new_channel,
            "NewCallerid": self._new_number,
            "DialBegin": self._dial_begin,
            "DialEnd": self._dial_end,
            "OriginateResponse": self._originated,
            "AgentCalled": self._agent_called,
            "AgentConnect": self._agent_connect,
            "BridgeEnter": self._bridge_enter,
            "BridgeLeave": self._bridge_leave,
            "BridgeMerge": self._bridge_merge,
            "BridgeDestroy": self._bridge_destroy,
            "Pickup": self._picked_up,
            "ParkedCall": self._parked,
            "Hold": self._hold,
            "Unhold": self._hold,
            "BlindTransfer": self._blind_transfer,
            "AttendedTransfer": self._attended_transfer,
            "QueueCallerJoin": self._queue_join,
            "QueueCallerLeave": self._queue_leave,
            "VarSet": self._variable,
            "QueueMember": self._member,
            "QueueMemberStatus": self._member,
            "QueueMemberAdded": self._member,
            "Hangup": self._hangup,
        }

    @property
    def wanted(self) -> frozenset[str]:
        """The events that mean something."""
        return frozenset(self._steps)

    def apply(self, packet: Packet, now: datetime) -> list[CallEvent]:
        """Return what an event of the exchange means; events of no interest mean nothing."""
        step = self._steps.get(packet.event)
        return step(packet, moment_of(packet, now)) if step else []

    def is_rung(self, operator: str) -> bool:
        """Whether a telephone of this operator rings, and none talks."""
        own = [leg for leg in self.legs.all.values() if operator in (leg.member, leg.party)]
        return any(leg.is_ringing for leg in own) and not any(leg.bridge for leg in own)

    # -- legs --------------------------------------------------------------------------------------

    def _new_channel(self, packet: Packet, at: datetime) -> list[CallEvent]:
        if is_technical(packet["Channel"]):
            return []
        if packet["Uniqueid"] in self.of:
            return self.follow(packet, at)
        return self.add(packet, at)

    def _hangup(self, packet: Packet, at: datetime) -> list[CallEvent]:
        leg = self.legs.all.get(packet["Uniqueid"])
        if leg is None:
            self.unknown += not is_technical(packet["Channel"])
            return []
        return self.gone(leg, at, packet["Cause"])

    def _bridge_enter(self, packet: Packet, at: datetime) -> list[CallEvent]:
        leg, events = self.known(packet, at)
        if leg is None:
            return events
        leg.exten = packet["Exten"] or leg.exten
        swapped = self.legs.all.get(packet["SwapUniqueid"])
        if swapped is not None:
            self.legs.leave(swapped)
        left = self._left(leg)
        bridge = packet["BridgeUniqueid"] or f"of {self.of[leg.id].id}"
        self.legs.enter(leg, bridge, kind_of(packet))
        return events + self.settle([leg, *left, *([swapped] if swapped else [])], at)

    def _left(self, leg: Leg) -> list[Leg]:
        """Take a leg out of its bridge; return one of those that stay there."""
        bridge = leg.bridge
        self.legs.leave(leg)
        return self.legs.inside(bridge) if bridge else []

    def _bridge_leave(self, packet: Packet, at: datetime) -> list[CallEvent]:
        leg = self.legs.all.get(packet["Uniqueid"])
        if leg is None or (packet["BridgeUniqueid"] or leg.bridge) != leg.bridge:
            return []
        leg.exten = packet["Exten"] or leg.exten
        return self.settle([leg, *self._left(leg)], at)

    def _bridge_merge(self, packet: Packet, at: datetime) -> list[CallEvent]:
        to, there = packet["ToBridgeUniqueid"], self.legs.inside(packet["FromBridgeUniqueid"])
        kind: BridgeKind = next((leg.kind for leg in self.legs.inside(to)), "basic")
        for leg in there:
            self.legs.enter(leg, to, kind)
        return self.settle(there, at) if to else []

    def _bridge_destroy(self, packet: Packet, at: datetime) -> list[CallEvent]:
        there = self.legs.inside(packet["BridgeUniqueid"]) if packet["BridgeUniqueid"] else []
        for leg in there:
            self.legs.leave(leg)
        return self.settle(there, at)

    def _picked_up(self, packet: Packet, at: datetime) -> list[CallEvent]:
        call, other = self.call_of(packet, "TargetUniqueid", "TargetLinkedid"), self.call_of(packet)
        if call is None or other is None or call is other:
            return []
        return self.join(dict.fromkeys(other.legs, other), [call, other], at, keep=call)

    def _parked(self, packet: Packet, _: datetime) -> list[CallEvent]:
        """Who is parked may come back to who parked him: no program sent him on."""
        if (call := self.call_of(packet, "ParkeeUniqueid", "ParkeeLinkedid")) is not None:
            call.place = ""
        return []

    # -- who is rung ----------------------------------------------------------------------------

    def _dial_begin(self, packet: Packet, at: datetime) -> list[CallEvent]:
        source = self.legs.all.get(packet["Uniqueid"])
        call = self.call_of(packet, "DestUniqueid", "DestLinkedid") or self.call_of(packet)
        if call is None:
            self.unknown += 1
            return []
        dest = self.legs.all.get(packet["DestUniqueid"])
        if dest is None and packet["DestUniqueid"] and packet["DestUniqueid"] not in self.hung_up:
            dest = leg_of(packet, self.inbound, "Dest")
            self.enter(call, dest)
        if dest is not None:
            dest.is_ringing = True
            dest.is_originated = dest.is_originated or (source is None and not packet["Uniqueid"])
            if dest.outside and not dest.party:
                dest.party = number_of(packet["DestCallerIDNum"], dest.name)
            if not dest.outside and not dest.party and not dest.pipe:
                number, string = packet["DestCallerIDNum"], packet["DialString"]
                dest.party = telephone_of(number, dest.name) or endpoint_of(string)
        if not call.number_to and source is not None:
            call.number_to = number_of(packet["Exten"]) or number_of(packet["DestCallerIDNum"])
        if dest is not None and (dest.pipe or dest.is_originated):
            if dest.pipe and source is not None:
                dest.member = dest.member or self._member_through(source)
            return []
        moved = self._redirected(call, source, at)
        if dest is not None and source is not None and (member := self._member_through(source)):
            dest.member = member  # the queue told of it
            return moved
        if source is not None and source.queue:  # AgentCalled tells of it, by the member's name
            return moved
        name = dest.who if dest is not None else packet["DestCallerIDNum"] or packet["DialString"]
        outside = dest is not None and dest.outside
        return moved + self.ring(
            call, "" if outside else name, packet["DestUniqueid"], at, name if outside else ""
        )

    def _member_through(self, source: Leg) -> str:
        """Return the queue's member that is being called through a Local channel; once somebody has
        answered there, whom it calls is another."""
        near = self.legs.twin(source)
        return near.member if near is not None and not near.bridge else ""

    def _agent_called(self, packet: Packet, at: datetime) -> list[CallEvent]:
        call = self.call_of(packet)
        if call is None:
            self.unknown += 1
            return []
        name = member_of(packet["MemberName"])
        dest = self.legs.all.get(packet["DestUniqueid"])
        if dest is not None:
            dest.member, dest.is_ringing = name, True
        return self.ring(call, name, packet["DestUniqueid"], at)

    def ring(
        self, call: Call, operator: str, leg: str, at: datetime, number: str = ""
    ) -> list[CallEvent]:
        """Tell once of each time that a telephone rings: of the first by its name alone. `number`
        is of one that is not of the house."""
        name = operator or number
        first = name not in call.rung
        mark = name if first else f"{name}/{leg}"
        if not name or (not first and (not leg or mark in call.rung)):
            return []
        call.rung |= {name, f"{name}/{leg}"}
        if not call.open_talks():
            call.operator = operator or call.operator
        return [self.event(call, "ringing", at, mark, operator=operator or call.caller)]

    def _dial_end(self, packet: Packet, _: datetime) -> list[CallEvent]:
        if (dest := self.legs.all.get(packet["DestUniqueid"])) is not None:
            dest.is_ringing = False
        return []

    def _originated(self, packet: Packet, _: datetime) -> list[CallEvent]:
        call = self.of_leg(packet["Uniqueid"])
        if call is not None and not call.number_to and number_of(packet["Exten"]):
            call.number_to = packet["Exten"]
        return []

    def _agent_connect(self, packet: Packet, at: datetime) -> list[CallEvent]:
        call = self.call_of(packet)
        if call is None:
            self.unknown += 1
            return []
        name = member_of(packet["MemberName"])
        dest = self.legs.all.get(packet["DestUniqueid"])
        operator = self._answering(dest, packet["Interface"], name)
        call.queue = packet["Queue"] or call.queue
        if dest is not None:
            dest.is_ringing = False
        if any(talk.operator == operator or (dest and talk.leg == dest.id)
               for talk in call.open_talks()):  # fmt: skip
            return []
        call.expected = call.operator = operator
        if call.answered_at is None:
            call.answered_at = at
            return [self.event(call, "answered", at, operator=operator)]
        mark = f"{operator}/{len(call.talks) + 1}"
        return [self.event(call, "bridged", at, mark, operator=operator)]

    def _answering(self, dest: Leg | None, interface: str, name: str) -> str:
        """Return who answered a queue. That is its member, unless the call was picked up or sent on
        to another telephone: then the queue does not know of it."""
        if dest is None:
            return name
        if not dest.pipe:
            if not dest.who or endpoint_of(dest.name) == endpoint_of(interface):
                dest.member = dest.member or name
            return dest.who or name
        if dest.member:
            return dest.member
        return self._behind(dest) or name

    def _behind(self, half: Leg) -> str:
        """Return the telephone that was reached through a Local channel."""
        far = self.legs.twin(half)
        there = self.legs.joined(far) if far is not None and far.bridge else []
        return next((leg.who for leg in there if not leg.pipe and not leg.outside and leg.who), "")

    # -- what else happens ----------------------------------------------------------------------

    def _new_number(self, packet: Packet, _: datetime) -> list[CallEvent]:
        leg = self.legs.all.get(packet["Uniqueid"])
        number = number_of(packet["CallerIDNum"], packet["Channel"])
        if leg is None or leg.pipe or not number:
            return []
        call = self.of[leg.id]
        if leg.outside and not leg.party:
            leg.party = number
            if call.direction == "in" and leg is self.customer(call) and not call.number_from:
                call.number_from = number
                self.changed[call.id] = call
        return []

    def _hold(self, packet: Packet, at: datetime) -> list[CallEvent]:
        call, leg = self.call_of(packet), self.legs.all.get(packet["Uniqueid"])
        if call is None:
            self.unknown += 1
            return []
        holds = packet.event == "Hold"
        if leg is not None:
            if leg.is_held == holds:  # a REFER takes off what was never put on hold
                return []
            leg.is_held = holds
        kind: Literal["held", "resumed"] = "held" if holds else "resumed"
        operator = leg.who if leg is not None and not leg.outside else ""
        return [self.event(call, kind, at, at.isoformat(), operator=operator)]

    def _blind_transfer(self, packet: Packet, at: datetime) -> list[CallEvent]:
        call = self.call_of(packet, "TransfererUniqueid", "TransfererLinkedid")
        call = call or self.call_of(packet, "TransfereeUniqueid", "TransfereeLinkedid")
        if call is None or packet["Result"] not in ("", "Success"):
            self.unknown += call is None
            return []
        by = self.legs.all.get(packet["TransfererUniqueid"])
        return self.transferred(call, packet["Extension"], at, by.who if by else "")

    def _attended_transfer(self, packet: Packet, at: datetime) -> list[CallEvent]:
        call = self.call_of(packet, "OrigTransfererUniqueid", "OrigTransfererLinkedid")
        other = self.call_of(packet, "SecondTransfererUniqueid", "SecondTransfererLinkedid")
        call = call or self.call_of(packet, "TransfereeUniqueid", "TransfereeLinkedid")
        if call is None or packet["Result"] not in ("", "Success"):
            self.unknown += call is None
            return []
        by = self.legs.all.get(packet["OrigTransfererUniqueid"])
        target = self.legs.all.get(packet["TransferTargetUniqueid"])
        to = "" if target is None else self._behind(target) if target.pipe else target.who
        to = to or packet["TransferTargetExten"] or (other.number_to if other else "")
        if other is None or other is call:
            return self.transferred(call, to, at, by.who if by else "")
        kept = min(call, other, key=seniority)
        events = self.transferred(kept, to, at, by.who if by else "")
        moving = dict.fromkeys([*call.legs, *other.legs], call)
        events += self.join(moving, [call, other], at)
        return events + self.settle(list(kept.legs.values())[:1], at)

    def _redirected(self, call: Call, source: Leg | None, at: datetime) -> list[CallEvent]:
        """A caller who has talked and whom another place of the dial plan sends on was transferred,
        by an operator's program (Redirect): the exchange has no event for it."""
        if source is None or not call.talks or call.open_talks() or not source.exten:
            return []
        if source is not self.customer(call) or source.exten == call.place or not call.place:
            return []
        last = max((talk.until for talk in call.talks if talk.until), default=None)
        sent = call.transferred_at
        if sent is not None and (last is None or sent >= last - TOLD_WITHIN):
            return []  # that was told, whatever places the dial plan passes since
        return self.transferred(call, source.exten, at, call.operator)

    def _queue_join(self, packet: Packet, at: datetime) -> list[CallEvent]:
        leg, events = self.known(packet, at)
        if leg is None:
            return events
        call = self.of[leg.id]
        leg.exten = packet["Exten"] or leg.exten
        events += self._redirected(call, leg, at)
        leg.queue = call.queue = packet["Queue"]
        self.changed[call.id] = call
        return events

    def _queue_leave(self, packet: Packet, _: datetime) -> list[CallEvent]:
        if (leg := self.legs.all.get(packet["Uniqueid"])) is not None:
            leg.queue = ""
        return []

    def _variable(self, packet: Packet, _: datetime) -> list[CallEvent]:
        if packet["Variable"] == RECORDING and (call := self.call_of(packet)):
            self.recorded(call, packet["Value"])
        return []

    def _member(self, packet: Packet, _: datetime) -> list[CallEvent]:
        remember_member(self.members, packet)
        return []

    def recorded(self, call: Call, file: str) -> None:
        """Note that a call is recorded: the name of its file, without the folder."""
        name = file.rpartition("/")[2]
        if name and name not in call.recordings:
            call.recordings.append(name)
            call.recording = name
            self.changed[call.id] = call


def moment_of(packet: Packet, now: datetime) -> datetime:
    """Return when an event happened: by the exchange if it says so (timestampevents = yes)."""
    try:
        return datetime.fromtimestamp(float(packet["Timestamp"]), UTC)
    except (ValueError, OverflowError, OSError):
        return now
