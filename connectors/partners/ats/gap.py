"""What became of the calls while the exchange was not heard. Pure.

The exchange lists the channels that it has now, with how long each is there: so a call that nobody
told of has its real beginning. When somebody answered, left or hung up meanwhile is not known, and
is not invented: such a call says from when to when nobody heard the exchange, a talk whose
beginning or end was not heard has none, and what is noticed now has the time of now, the latest
that it can have been.
"""

from collections import defaultdict
from collections.abc import Iterable
from datetime import datetime, timedelta
from typing import Final

from connectors.partners.ats.ami import Packet
from connectors.partners.ats.calls import CallBook
from connectors.partners.ats.legs import BridgeKind
from connectors.partners.ats.story import LOST_SIGHT, Call, CallEvent, Unheard

RINGING: Final = "5"  # ChannelState
QUEUES: Final = ("Queue", "AppQueue")
# What the exchange says of a channel that it is calling, or has called, for another.
CALLED: Final = ("", "AppDial", "AppDial2", "AppQueue")


def catch_up(
    book: CallBook, channels: list[Packet], now: datetime, heard: datetime | None = None
) -> list[CallEvent]:
    """Compare with all channels there are (CoreShowChannels) after the exchange was not heard since
    `heard`, or never: begin the calls nobody told of, end those whose end nobody told of."""
    for call in book.calls.values():
        _unheard(call, heard or call.started_at, now)
    events: list[CallEvent] = []
    new: set[str] = set()
    for packet in sorted(channels, key=_age, reverse=True):
        began = now - timedelta(seconds=_age(packet))
        known = book.legs.all.get(packet["Uniqueid"])
        before = set(book.calls)
        events += book.follow(packet, now) if known else book.add(packet, began)
        for id in book.calls.keys() - before:
            new.add(id)
            _unheard(book.calls[id], began, now)
    events += _place(book, channels, now)
    shown = {packet["Uniqueid"] for packet in channels}
    book.is_blind = True
    for leg in [leg for leg in book.legs.all.values() if leg.id not in shown]:
        if leg.id in book.legs.all:
            events += book.gone(leg, now, LOST_SIGHT)
    events += book.settle(list(book.legs.all.values()), now)
    book.is_blind = False
    return events


def _place(book: CallBook, channels: Iterable[Packet], now: datetime) -> list[CallEvent]:
    """Put each leg where the list has it: its bridge, its queue, its telephone that rings."""
    events: list[CallEvent] = []
    kinds = _kinds(book, channels)
    for packet in channels:
        leg, call = book.legs.all.get(packet["Uniqueid"]), book.of_leg(packet["Uniqueid"])
        if leg is None or call is None:
            continue
        leg.exten = packet["Exten"] or leg.exten
        bridge, was = packet["BridgeId"], leg.bridge
        if bridge != was:
            if bridge:
                book.legs.enter(leg, bridge, kinds.get(bridge, "basic"))
            else:
                book.legs.leave(leg)
        application = packet["Application"]
        if leg.pipe and application not in CALLED and not bridge:
            leg.is_originated = True
        if application in QUEUES and "," in packet["ApplicationData"]:
            call.queue = packet["ApplicationData"].partition(",")[0]
            leg.queue = "" if bridge else call.queue
        if not leg.outside and not leg.pipe:
            leg.member = leg.member or book.members.get((call.queue, leg.party), "")
    for packet in channels:
        leg, call = book.legs.all.get(packet["Uniqueid"]), book.of_leg(packet["Uniqueid"])
        if leg is None or call is None or packet["ChannelState"] != RINGING or leg.pipe:
            continue
        if not leg.is_ringing:
            leg.is_ringing = True
            if not leg.outside and leg.who and leg.id != call.id:
                events += book.ring(call, leg.who, leg.id, now - timedelta(seconds=_age(packet)))
    return events


def _kinds(book: CallBook, channels: Iterable[Packet]) -> dict[str, BridgeKind]:
    """Return what each bridge is for: the list does not say it. A bridge of two makes one call of
    its legs, so one whose legs are of different calls is a conference, or people who are parked."""
    links: dict[str, set[str]] = defaultdict(set)
    conferences = set()
    for packet in channels:
        if packet["BridgeId"]:
            links[packet["BridgeId"]].add(packet["Linkedid"])
            if packet["Application"] in ("ConfBridge", "Stasis"):
                conferences.add(packet["BridgeId"])
    kinds: dict[str, BridgeKind] = {
        leg.bridge: leg.kind for leg in book.legs.all.values() if leg.bridge
    }
    for bridge, calls in links.items():
        if bridge in conferences:
            kinds[bridge] = "conference"
        elif bridge not in kinds and len(calls) > 1:
            kinds[bridge] = "holding"
    return kinds


def _unheard(call: Call, since: datetime, until: datetime) -> None:
    since = max(since, call.started_at)
    if since < until and (not call.unheard or call.unheard[-1].until != until):
        call.unheard.append(Unheard(since, until))


def _age(packet: Packet) -> float:
    """Return for how many seconds a channel is there (Duration, HH:MM:SS), 0 if nobody says."""
    try:
        hours, minutes, seconds = (int(part) for part in packet["Duration"].split(":"))
    except ValueError:
        return 0.0
    return hours * 3600.0 + minutes * 60 + seconds
