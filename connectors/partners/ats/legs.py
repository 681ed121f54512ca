"""The channels of an exchange, and who of them hear each other. Pure.

A leg is one channel. Legs in one bridge hear each other; the two halves of a Local channel are one
pipe, so that whoever is in the bridge of one half hears whoever is in the bridge of the other. An
`end` is where a person (or a program that the exchange called out by itself) is: a leg that is no
half, or the near half of an originated pipe.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Final, Literal

from connectors.partners.ats.ami import Packet

BridgeKind = Literal["basic", "conference", "holding"]
OWN_NUMBER_DIGITS: Final = 10  # a number so long is somebody's own, not a telephone of the house
# Channels that the exchange makes for its own purposes: nobody is at them.
TECHNICAL: Final = frozenset({
    "AsyncGoto", "Surrogate", "CBAnn", "CBRec", "Announcer", "Recorder", "Snoop", "Message",
    "Bridge", "OutgoingSpoolFailed",
})  # fmt: skip
_CHANNEL: Final = re.compile(r"(.+)-[0-9a-fA-F]{8}")  # a telephone and a serial number
_PLAIN: Final = re.compile(r"\+?[0-9*#]+")
_NOBODY: Final = frozenset({"", "<unknown>", "unknown", "s", "anonymous"})


@dataclass(slots=True)
class Leg:
    """One channel; `outside` is a line to the world, anything else a telephone of the house."""

    id: str
    name: str = ""
    outside: bool = False
    party: str = ""  # the telephone, or the number of the world outside
    member: str = ""  # the queue's name for who is at it
    exten: str = ""  # where the dial plan has it
    queue: str = ""  # the queue that it waits in
    bridge: str = ""
    kind: BridgeKind = "basic"  # of the bridge
    is_originated: bool = False  # the exchange called it of its own accord
    is_ringing: bool = False
    is_held: bool = False

    @property
    def pipe(self) -> str:
        """The name that both halves of a Local channel share, "" of any other leg."""
        return self.name[:-2] if self.name.startswith("Local/") and self.name[-2:-1] == ";" else ""

    @property
    def who(self) -> str:
        """Who is at it, in the exchange's words."""
        return self.member or self.party


@dataclass
class Legs:
    """All legs there are, by Uniqueid, in the order in which they came."""

    all: dict[str, Leg] = field(default_factory=dict)
    _bridges: dict[str, dict[str, Leg]] = field(default_factory=dict)
    _pipes: dict[str, dict[str, Leg]] = field(default_factory=dict)

    def add(self, leg: Leg) -> None:
        """Take up a leg, with the bridge it says it is in."""
        self.all[leg.id] = leg
        if leg.pipe:
            self._pipes.setdefault(leg.pipe, {})[leg.id] = leg
        if leg.bridge:
            self._bridges.setdefault(leg.bridge, {})[leg.id] = leg

    def drop(self, leg: Leg) -> None:
        """Forget a leg."""
        self.leave(leg)
        self.all.pop(leg.id, None)
        if leg.pipe and (halves := self._pipes.get(leg.pipe)) is not None:
            halves.pop(leg.id, None)
            if not halves:
                del self._pipes[leg.pipe]

    def enter(self, leg: Leg, bridge: str, kind: BridgeKind) -> None:
        """Put a leg into a bridge; it leaves the one that it was in."""
        self.leave(leg)
        leg.bridge, leg.kind, leg.is_ringing = bridge, kind, False
        self._bridges.setdefault(bridge, {})[leg.id] = leg

    def leave(self, leg: Leg) -> None:
        """Take a leg out of its bridge."""
        there = self._bridges.get(leg.bridge)
        if there is not None:
            there.pop(leg.id, None)
            if not there:
                del self._bridges[leg.bridge]
        leg.bridge = ""

    def inside(self, bridge: str) -> list[Leg]:
        """Return who is in a bridge."""
        return list(self._bridges.get(bridge, {}).values())

    def twin(self, leg: Leg) -> Leg | None:
        """Return the other half of a Local channel."""
        halves = self._pipes.get(leg.pipe, {}) if leg.pipe else {}
        return next((half for half in halves.values() if half is not leg), None)

    def joined(self, leg: Leg, *, conferences: bool = True) -> list[Leg]:
        """Return all legs that `leg` is joined with, itself first; those in a holding bridge are
        not joined with each other, those in a conference only if `conferences`."""
        found, todo = {leg.id: leg}, [leg]
        while todo:
            for other in self._beside(todo.pop(), conferences):
                if other.id not in found:
                    found[other.id] = other
                    todo.append(other)
        return list(found.values())

    def _beside(self, leg: Leg, conferences: bool) -> Iterator[Leg]:
        if (twin := self.twin(leg)) is not None:
            yield twin
        if leg.bridge and (leg.kind == "basic" or (conferences and leg.kind == "conference")):
            yield from self._bridges.get(leg.bridge, {}).values()

    def is_end(self, leg: Leg) -> bool:
        """Whether somebody is at it."""
        return not leg.pipe or (leg.is_originated and not leg.bridge)


def leg_of(packet: Packet, inbound: Iterable[str], prefix: str = "") -> Leg:
    """Return the leg that an event tells of; `prefix` is "Dest" for whom it calls."""
    name, number = packet[f"{prefix}Channel"], packet[f"{prefix}CallerIDNum"]
    leg = Leg(packet[f"{prefix}Uniqueid"], name, packet[f"{prefix}Context"] in inbound)
    leg.exten = packet[f"{prefix}Exten"]
    leg.party = number_of(number, name) if leg.outside else telephone_of(number, name)
    return leg


def is_technical(name: str) -> bool:
    """Whether a channel is the exchange's own instrument."""
    return name.partition("/")[0] in TECHNICAL or name.endswith(("<ZOMBIE>", "<MASQ>"))


def endpoint_of(name: str) -> str:
    """Return the telephone of a channel or an interface: 201 of PJSIP/201-0000002f, PJSIP/201,
    Local/201@from-queue/n."""
    rest = (name.partition("/")[2] or name).partition("@")[0].partition("/")[0]
    found = _CHANNEL.fullmatch(rest)
    return found[1] if found else rest


def number_of(value: str, channel: str = "") -> str:
    """Return a caller's number, "" for none: an exchange writes words there, and the name of the
    line that the call came by."""
    if value.lower() in _NOBODY or not any(sign.isdigit() for sign in value):
        return ""
    return "" if channel and value == endpoint_of(channel) else value


def telephone_of(number: str, channel: str) -> str:
    """Return the name of a telephone of the house: its number, or the endpoint's name when the
    number is one of the world outside, which such a telephone may be told to show."""
    short = _PLAIN.fullmatch(number) and len(number.lstrip("+")) < OWN_NUMBER_DIGITS
    if channel.startswith("Local/"):
        return ""
    endpoint = endpoint_of(channel)
    return number if short else endpoint or ("" if _PLAIN.fullmatch(number) else _plain(number))


def member_of(name: str) -> str:
    """Return a queue member's name; of one that has none, whose interface stands there, the
    telephone."""
    return endpoint_of(name) if "/" in name else name


def _plain(number: str) -> str:
    return "" if number.lower() in _NOBODY else number


def kind_of(packet: Packet) -> BridgeKind:
    """Return what the bridge of an event is for."""
    type, creator = packet["BridgeType"], packet["BridgeCreator"]
    if packet["BridgeTechnology"] == "holding_bridge" or type == "parking" or creator == "Parking":
        return "holding"
    return "basic" if type in ("", "basic") and creator != "ConfBridge" else "conference"


def remember_member(members: dict[tuple[str, str], str], packet: Packet) -> None:
    """Note by which name a queue knows a telephone."""
    name = packet["MemberName"] or packet["Name"]
    interface = packet["Interface"] or packet["Location"]
    if name and interface and "/" not in name:
        members[packet["Queue"], endpoint_of(interface)] = name
