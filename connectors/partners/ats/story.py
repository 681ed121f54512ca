"""What is kept of a call: who it is between, who talked when, and what nobody heard. Pure."""

from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final, Literal

import msgspec

from connectors.partners.ats.legs import Leg

Kind = Literal[
    "started", "ringing", "answered", "bridged", "held", "resumed", "transferred", "ended"
]
Direction = Literal["in", "out"]
LOST_SIGHT: Final = "lost_sight"  # it ended while nobody was listening
AGAIN_S: Final = 1.0  # within this a telephone that changed its bridge never stopped talking


@dataclass
class Talk:
    """Somebody of the house, or another of the world outside, talked with the caller (or with whom
    an operator called). `since` is None when the beginning was not heard, `until` when the end was
    not, or while it `goes_on`."""

    leg: str
    operator: str = ""
    number: str = ""
    queue: str = ""
    since: datetime | None = None
    until: datetime | None = None
    goes_on: bool = True


@dataclass
class Unheard:
    """From when to when the exchange was not heard."""

    since: datetime
    until: datetime


@dataclass
class Call:
    """One call that has not ended; times are UTC."""

    id: str
    direction: Direction
    number_from: str
    number_to: str
    started_at: datetime
    queue: str = ""
    operator: str = ""  # who of the house is with it: talks, or rings while nobody has talked
    caller: str = ""  # the telephone of the house that began it
    recording: str = ""
    recordings: list[str] = field(default_factory=list)
    answered_at: datetime | None = None
    cause: str = ""
    id112: str = ""
    expected: str = ""  # who answered, by the queue, and was not yet heard talking
    transferred_to: str = ""
    transferred_at: datetime | None = None
    place: str = ""  # of the dial plan, where the caller was when somebody began to talk
    legs: dict[str, Leg] = field(default_factory=dict)
    talks: list[Talk] = field(default_factory=list)
    unheard: list[Unheard] = field(default_factory=list)
    rung: set[str] = field(default_factory=set)  # operators that were rung
    sent_to: set[str] = field(default_factory=set)  # where it was transferred

    def talking(self, leg: str) -> Talk | None:
        """Return the talk of a leg that goes on."""
        return next((one for one in self.talks if one.leg == leg and one.goes_on), None)

    def open_talks(self) -> list[Talk]:
        """Return the talks that go on."""
        return [one for one in self.talks if one.goes_on]

    def begin(self, talk: Talk, at: datetime) -> bool:
        """Note that somebody talks; returns False for one who only went from one bridge to the
        next."""
        for before in reversed(self.talks):
            if before.leg != talk.leg or before.until is None:
                continue
            moved = self.transferred_at is not None and self.transferred_at >= before.until
            if (at - before.until).total_seconds() <= AGAIN_S and not moved:
                before.until, before.goes_on = None, True
                return False
            break
        self.talks.append(talk)
        return True

    @property
    def last_operator(self) -> str:
        """Who of the house talked last; of an outgoing call that nobody answered, who called."""
        talked = [one.operator for one in self.talks if one.operator]
        return talked[-1] if talked else self.operator if self.answered_at else self.caller


@dataclass(frozen=True)
class CallEvent:
    """What became of a call; (call id, kind, `mark`) is the same however often it is told.
    `operator` is whom it is about, `to` where it was transferred."""

    call: Call
    kind: Kind
    at: datetime
    mark: str = ""
    cause: str = ""
    operator: str = ""
    to: str = ""


def record_of(call: Call) -> dict[str, Any]:
    """Return a call as the file of live calls has it, for msgspec to encode."""
    return {
        "id": call.id, "direction": call.direction, "from": call.number_from,
        "to": call.number_to, "started_at": call.started_at.isoformat(),
        "story": call,
    }  # fmt: skip


def call_of(record: dict[str, Any]) -> Call:
    """Return the call of such a record. One of an earlier version holds no story: its only leg that
    can be known is the caller's, whose Uniqueid is the call's. Raises msgspec.ValidationError or
    KeyError."""
    if "story" in record:
        return msgspec.convert(record["story"], Call)
    began = datetime.fromisoformat(record["started_at"])
    call = Call(record["id"], record["direction"], record["from"], record["to"], began)
    outside = call.direction == "in"
    party = call.number_from
    call.legs[call.id] = Leg(call.id, outside=outside, party=party)
    call.caller = "" if outside else party
    return call
