"""Which legs are one call, and who talks in it. Pure.

A call is one visit: all legs of one `Linkedid`, and those of other Linkedids that were joined with
them (consultations, pick-ups, parked calls fetched), whichever way the exchange tells of it. Who
talks is who is joined with the caller (`legs.py`), not who is in some bridge: a queue's member may
be called through Local channels, which bridge among themselves before anybody hears the caller.
"""

from collections import OrderedDict
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import msgspec

from connectors.partners.ats.ami import Packet
from connectors.partners.ats.legs import Leg, Legs, is_technical, leg_of, number_of
from connectors.partners.ats.story import (
    LOST_SIGHT,
    Call,
    CallEvent,
    Direction,
    Kind,
    Talk,
    Unheard,
    call_of,
)

MERGED: Final = "merged"
GONE_MAX: Final = 10_000  # legs that have hung up, of which late events may still speak
EXPECTED_MAX: Final = 1_000


class Visits:
    """All calls there are, and their legs."""

    def __init__(self, inbound: Iterable[str]) -> None:
        self.calls: dict[str, Call] = {}
        self.legs = Legs()
        self.unknown = 0  # packets that speak of channels nobody knows
        self.changed: dict[str, Call] = {}  # since somebody looked, what a restart has to know
        self.inbound = frozenset(inbound)
        self.members: dict[tuple[str, str], str] = {}  # by queue and telephone: the queue's name
        self.is_blind = False  # what is found now happened unheard
        self.of: dict[str, Call] = {}  # by leg
        self._alias: dict[str, str] = {}  # a Linkedid that became part of another call
        self.hung_up: OrderedDict[str, None] = OrderedDict()
        self._expected: OrderedDict[str, tuple[str, str, str]] = OrderedDict()
        self._ours: set[str] = set()  # channels that were expected
        self.causes: OrderedDict[str, str] = OrderedDict()  # of these, why they were hung up

    def restore(self, calls: Iterable[dict[str, Any]]) -> None:
        """Take up the calls that an earlier process knew; `catch_up` (`gap.py`) tells what became
        of them. What cannot be read is passed over."""
        for record in calls:
            try:
                call = call_of(record)
            except (msgspec.ValidationError, KeyError, ValueError, TypeError):
                continue
            self.calls[call.id] = call
            for leg in call.legs.values():
                self.of[leg.id] = call
                self.legs.add(leg)

    def forget(self, call: Call) -> None:
        """Forget a call that has no legs."""
        del self.calls[call.id]

    def expect(self, channel: str, operator: str, number: str, id112: str | None) -> None:
        """Say that this channel will be a call that we have the exchange make."""
        self._expected[channel] = operator, number, id112 or ""
        while len(self._expected) > EXPECTED_MAX:
            self._expected.popitem(last=False)

    def call_of(self, packet: Packet, key: str = "Uniqueid", link: str = "Linkedid") -> Call | None:
        """Return the call that an event speaks of."""
        found = self.of.get(packet[key]) if packet[key] else None
        return found or (self.by_link(packet[link]) if packet[link] else None)

    def by_link(self, link: str) -> Call | None:
        """Return the call that a Linkedid belongs to now."""
        return self.calls.get(self._alias.get(link, link))

    def of_leg(self, leg: str) -> Call | None:
        """Return the call that a leg belongs to."""
        return self.of.get(leg)

    # -- legs and calls -------------------------------------------------------------------------

    def add(self, packet: Packet, at: datetime) -> list[CallEvent]:
        """Take up a leg that was not known; its call begins with it if nobody told of it."""
        id = packet["Linkedid"] or packet["Uniqueid"]
        if not id or not packet["Uniqueid"]:
            self.unknown += 1
            return []
        leg = leg_of(packet, self.inbound)
        if (call := self.by_link(id)) is not None:
            self.enter(call, leg)
            return []
        direction: Direction = "in" if leg.outside else "out"
        call = Call(id, direction, leg.party, number_of(packet["Exten"]), at)
        if expected := self._expected.pop(leg.id, None):
            self._ours.add(leg.id)
            call.number_from, call.number_to, call.id112 = expected
            leg.party, leg.is_originated = expected[0], True
        call.caller = "" if leg.outside else leg.party
        self.calls[id] = call
        self.enter(call, leg)
        return [self.event(call, "started", at, operator=call.caller)]

    def event(self, call: Call, kind: Kind, at: datetime, mark: str = "", **more: str) -> CallEvent:
        """Return what became of a call, and note that it changed."""
        self.changed[call.id] = call
        return CallEvent(call, kind, at, mark, **more)

    def enter(self, call: Call, leg: Leg) -> None:
        """Make a leg one of a call."""
        call.legs[leg.id] = leg
        self.of[leg.id] = call
        self.legs.add(leg)

    def known(self, packet: Packet, at: datetime) -> tuple[Leg | None, list[CallEvent]]:
        """Return the leg that an event tells of, taken up if its beginning was not heard."""
        id = packet["Uniqueid"]
        if (leg := self.legs.all.get(id)) is not None:
            return leg, self.follow(packet, at)
        if not id or id in self.hung_up or is_technical(packet["Channel"]):
            self.unknown += 1
            return None, []
        began = born(id, at)
        events = self.add(packet, began)
        if events and began < at:
            self.of[id].unheard.append(Unheard(began, at))
        return self.legs.all.get(id), events

    def follow(self, packet: Packet, at: datetime) -> list[CallEvent]:
        """Let a leg that speaks of another Linkedid than it did go with it."""
        call, link = self.of[packet["Uniqueid"]], packet["Linkedid"]
        if not link or self._alias.get(link, link) == call.id:
            return []
        other = self.by_link(link)
        if other is None:  # of a call that is over, or that nobody heard begin
            self._alias.setdefault(link, call.id)
            return []
        return self.join({packet["Uniqueid"]: call}, [call, other], at, keep=other)

    def settle(self, legs: Iterable[Leg], at: datetime) -> list[CallEvent]:
        """After legs came together or apart: make one call of those that were joined, and tell who
        talks now."""
        events: list[CallEvent] = []
        calls: dict[str, Call] = {}
        for leg in legs:
            for call in self._calls_of(self.legs.joined(leg)):
                calls[call.id] = call
            if leg.id in self.of:
                together = self.legs.joined(leg, conferences=False)
                merged = self._calls_of(together)
                if len(merged) > 1:
                    of = {one.id: self.of[one.id] for one in together if one.id in self.of}
                    events += self.join(of, merged, at)
        for call in calls.values():
            if call.id in self.calls:
                events += self._look(call, at)
        return events

    def _calls_of(self, legs: Iterable[Leg]) -> list[Call]:
        found = {call.id: call for leg in legs if (call := self.of.get(leg.id)) is not None}
        return list(found.values())

    def join(
        self, joined: dict[str, Call], calls: list[Call], at: datetime, keep: Call | None = None
    ) -> list[CallEvent]:
        """Make one call of several. The one that a caller came by is kept, and of these the oldest;
        a call whose other party stays behind goes on, with what is left of it."""
        kept = keep or min(calls, key=seniority)
        events: list[CallEvent] = []
        for call in calls:
            if call is kept:
                continue
            events += self._consulted(kept, call, at)
            stays = any(leg.outside and self.legs.is_end(leg) and leg.id not in joined
                        for leg in call.legs.values())  # fmt: skip
            moving = [leg for leg in call.legs.values() if leg.id in joined or not stays]
            for leg in moving:
                self._close_talk(call, leg.id, at)
                del call.legs[leg.id]
                kept.legs[leg.id] = leg
                self.of[leg.id] = kept
            if call.legs:
                events.append(self.event(call, "transferred", at, kept.id))
                events += self._look(call, at)
            else:
                events += self._end(call, at, MERGED, into=kept.id)
        return events

    def _consulted(self, call: Call, other: Call, at: datetime) -> list[CallEvent]:
        """The transfer that joins a caller with whom an operator has consulted: its own event comes
        after the new party talks already."""
        talked = {talk.leg for talk in call.talks}
        asked = next((leg for leg in call.legs.values()
                      if leg.id in talked and leg.party == other.caller), None)  # fmt: skip
        if not call.answered_at or other.direction != "out" or asked is None:
            return []
        to = other.number_to or next((one.operator for one in other.talks if one.operator), "")
        return self.transferred(call, to, at, asked.who)

    def _end(self, call: Call, at: datetime, cause: str, into: str = "") -> list[CallEvent]:
        for talk in call.open_talks():
            self._close_talk(call, talk.leg, at)
        del self.calls[call.id]
        for link in [link for link, id in self._alias.items() if id == call.id]:
            del self._alias[link]
            if into:
                self._alias[link] = into
        if into:
            self._alias[call.id] = into
        return [self.event(call, "ended", at, cause=cause, operator=call.last_operator)]

    def gone(self, leg: Leg, at: datetime, cause: str) -> list[CallEvent]:
        """A leg is no more."""
        call = self.of[leg.id]
        beside = [one for one in self.legs.joined(leg) if one is not leg]
        is_customer = leg is self.customer(call)
        if cause != LOST_SIGHT and is_customer and (leg.outside or call.cause in ("", "0")):
            call.cause = cause
        self._close_talk(call, leg.id, at if cause != LOST_SIGHT else None)
        self.legs.drop(leg)
        del self.of[leg.id], call.legs[leg.id]
        self.hung_up[leg.id] = None
        if leg.id in self._ours:
            self._ours.discard(leg.id)
            self.causes[leg.id] = cause
            if len(self.causes) > EXPECTED_MAX:
                self.causes.popitem(last=False)
        if len(self.hung_up) > GONE_MAX:
            self.hung_up.popitem(last=False)
        if call.legs:
            return self.settle([*beside, *list(call.legs.values())[:1]], at)
        told = cause if cause == LOST_SIGHT else call.cause or cause
        return [*self._end(call, at, told), *self.settle(beside, at)]

    # -- who talks ------------------------------------------------------------------------------

    def customer(self, call: Call) -> Leg | None:
        """Return who the call is about: the line to the world outside, or else who began it."""
        ends = [leg for leg in call.legs.values() if self.legs.is_end(leg)]
        return next((leg for leg in ends if leg.outside), ends[0] if ends else None)

    def _look(self, call: Call, at: datetime) -> list[CallEvent]:
        """Compare who talks with who talked."""
        customer = self.customer(call)
        now = {leg.id: leg for leg in self.legs.joined(customer)
               if leg is not customer and self.legs.is_end(leg)} if customer else {}  # fmt: skip
        for talk in call.open_talks():
            if talk.leg not in now:
                self._close_talk(call, talk.leg, at)
        events: list[CallEvent] = []
        for leg in now.values():
            if call.talking(leg.id) is None:
                events += self._talk(call, leg, at)
        return events

    def _talk(self, call: Call, leg: Leg, at: datetime) -> list[CallEvent]:
        operator = "" if leg.outside else leg.who or call.expected
        number = leg.party if leg.outside else ""
        expected, call.expected = call.expected, ""
        queue = call.queue if expected or not call.talks else ""
        talk = Talk(leg.id, operator, number, queue, None if self.is_blind else at)
        customer = self.customer(call)
        call.place = customer.exten if customer else ""
        if not call.begin(talk, at):
            return []
        self.changed[call.id] = call
        call.operator = operator or call.operator
        if call.answered_at is None:
            call.answered_at = at
            return [self.event(call, "answered", at, operator=operator or call.caller)]
        if expected and operator == call.operator:
            return []
        mark = f"{operator or number}/{len(call.talks)}"
        return [self.event(call, "bridged", at, mark, operator=operator)]

    def _close_talk(self, call: Call, leg: str, at: datetime | None) -> None:
        if (talk := call.talking(leg)) is not None:
            talk.until, talk.goes_on = at, False
            self.changed[call.id] = call

    def transferred(self, call: Call, to: str, at: datetime, by: str) -> list[CallEvent]:
        """Tell of a transfer once, whether it is seen in the bridges first or told first."""
        last = call.transferred_at
        if last is not None and call.transferred_to == to and (at - last) < timedelta(seconds=2):
            return []
        call.transferred_to, call.transferred_at, call.place = to, at, to
        mark = to if to not in call.sent_to else f"{to}/{at.isoformat()}"
        call.sent_to.add(to)
        return [self.event(call, "transferred", at, mark, operator=by or call.operator, to=to)]


def born(id: str, at: datetime) -> datetime:
    """Return when a channel began, which its Uniqueid says ([SYSTEM-]SECONDS.NUMBER); `at` when it
    does not."""
    try:
        began = datetime.fromtimestamp(int(id.partition(".")[0].rpartition("-")[2]), UTC)
    except (ValueError, OverflowError, OSError):
        return at
    return began if timedelta(0) <= at - began <= timedelta(days=1) else at


def seniority(call: Call) -> tuple[bool, bool, datetime]:
    """What comes first is kept: who called us, whoever else is of the world outside, the oldest."""
    outside = any(leg.outside for leg in call.legs.values())
    return call.direction != "in", not outside, call.started_at
