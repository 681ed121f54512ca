"""A small model of Asterisk: channels, bridges and Linkedids as the real one has them, and visits
that are lived on it, each with the truth about who talked. Rules: the oldest Linkedid wins when
bridges join, without an event; Local channels are pipes with two halves; what is told in one moment
comes in any order that the real one was seen to use."""

from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from functools import partial
from random import Random

from connectors.partners.ats.ami import Packet

TRUNK, INSIDE, QUEUES = "from-trunk", "from-internal", "from-queue"


@dataclass
class Channel:
    """One channel of the model."""

    id: str
    name: str
    link: str
    context: str
    exten: str
    number: str
    began: float
    state: str = "0"
    bridge: str = ""
    application: str = ""
    data: str = ""
    outgoing: bool = False


@dataclass
class Truth:
    """What really became of a visit. `talked` are who talked with the caller, in order; `merged`
    are calls that became part of it; `outcomes` of its groups, in words of the figures."""

    call: str
    direction: str
    talked: list[str] = field(default_factory=list)
    merged: list[str] = field(default_factory=list)
    transfers: int = 0
    outcomes: list[tuple[str, str]] = field(default_factory=list)
    is_over: bool = False


@dataclass
class Switch:
    """The exchange; `tell` is given every event."""

    random: Random
    tell: Callable[[Packet], None]
    now: float = 1_796_000_000.0
    channels: dict[str, Channel] = field(default_factory=dict)
    conferences: set[str] = field(default_factory=set)
    waiting: dict[str, tuple[str, float]] = field(default_factory=dict)
    _serial: int = 0

    # -- what the exchange does -----------------------------------------------------------------

    def event(self, name: str, channel: Channel | None = None, **fields: str) -> None:
        told = {"Event": name, "Privilege": "call,all", "Timestamp": f"{self.now:.6f}"}
        self.tell(Packet({**told, **(_snapshot(channel) if channel else {}), **fields}))

    def new(
        self, name: str, context: str, exten: str, number: str, link: str = "", state: str = "0"
    ) -> Channel:
        self._serial += 1
        id = f"{int(self.now)}.{self._serial}"
        channel = Channel(id, name.format(f"{self._serial:08x}"), link or id, context, exten,
                          number, self.now, state)  # fmt: skip
        self.channels[id] = channel
        self.event("Newchannel", channel)
        return channel

    def caller(self, number: str, exten: str) -> Channel:
        channel = self.new("PJSIP/trunk-{}", TRUNK, exten, number, state="4")
        self.event("Newstate", channel, ChannelState="6")
        channel.state = "6"
        return channel

    def phone(self, extension: str, link: str) -> Channel:
        channel = self.new(f"PJSIP/{extension}-{{}}", INSIDE, "s", extension, link)
        channel.outgoing = True
        return channel

    def pipe(self, extension: str, context: str, link: str, kept: bool = True) -> list[Channel]:
        """A Local channel, as both halves; `kept`: /n, it is never optimised away."""
        self._serial += 1
        name = f"Local/{extension}@{context}-{self._serial:08x}"
        halves = [self.new(f"{name};{half}", context, extension, "<unknown>", link)
                  for half in (1, 2)]  # fmt: skip
        fields = {f"Local{word}{key}": value
                  for word, half in zip(("One", "Two"), halves, strict=True)
                  for key, value in _snapshot(half).items()}  # fmt: skip
        self.event("LocalBridge", None, **fields, LocalOptimization="No" if kept else "Yes")
        return halves

    def dial(self, source: Channel | None, dest: Channel, string: str) -> None:
        fields = {f"Dest{key}": value for key, value in _snapshot(dest).items()}
        self.event("DialBegin", source, **fields, DialString=string)
        dest.state = "5"
        self.event("Newstate", dest)

    def dial_end(self, source: Channel | None, dest: Channel, status: str) -> None:
        fields = {f"Dest{key}": value for key, value in _snapshot(dest).items()}
        self.event("DialEnd", source, **fields, DialStatus=status)

    def answer(self, source: Channel | None, dest: Channel) -> None:
        dest.state = "6"
        self.event("Newstate", dest)
        self.dial_end(source, dest, "ANSWER")

    def bridge(self, *channels: Channel, into: str = "") -> str:
        """Put channels into one bridge, in any order; returns it."""
        self._serial += 1
        bridge = into or f"bridge-{self._serial}"
        for channel in self.random.sample(channels, len(channels)):
            self.enter(channel, bridge)
        return bridge

    def enter(self, channel: Channel, bridge: str, swap: Channel | None = None) -> None:
        if swap is not None:
            swap.bridge = ""
        channel.bridge = bridge
        kind = "base" if bridge in self.conferences else "basic"
        if kind == "basic":  # nobody is told of the Linkedids of those who are there already
            there = [one for one in self.channels.values() if one.bridge == bridge]
            oldest = min((one.link for one in there), key=_age)
            for one in there:
                one.link = oldest
        more = {"SwapUniqueid": swap.id} if swap else {}
        self.event("BridgeEnter", channel, BridgeUniqueid=bridge, BridgeType=kind, **more)

    def leave(self, *channels: Channel) -> None:
        for channel in channels:
            if channel.bridge:
                bridge, channel.bridge = channel.bridge, ""
                self.event("BridgeLeave", channel, BridgeUniqueid=bridge, BridgeType="basic")

    def hangup(self, *channels: Channel, cause: str = "16") -> None:
        for channel in self.random.sample(channels, len(channels)):
            if self.channels.pop(channel.id, None) is not None:
                self.leave(channel)
                self.event("Hangup", channel, Cause=cause)

    def join(self, channel: Channel, queue: str) -> None:
        channel.application, channel.data = "Queue", f"{queue},tT,,,40"
        self.waiting[channel.id] = queue, self.now
        self.event("QueueCallerJoin", channel, Queue=queue)

    def quit(self, channel: Channel, *, abandoned: bool) -> None:
        queue, joined = self.waiting.pop(channel.id)
        if abandoned:
            self.event("QueueCallerAbandon", channel, Queue=queue,
                       HoldTime=str(int(self.now - joined)))  # fmt: skip
        self.event("QueueCallerLeave", channel, Queue=queue)

    def together(self, *deeds: Callable[[], object]) -> None:
        """Do what happens in one moment, in any order."""
        for deed in self.random.sample(deeds, len(deeds)):
            deed()

    # -- what it lists --------------------------------------------------------------------------

    def listed(self) -> list[Packet]:
        """CoreShowChannels."""
        listed = []
        for one in self.channels.values():
            age = int(self.now - one.began)
            clock = f"{age // 3600:02}:{age // 60 % 60:02}:{age % 60:02}"
            application = one.application or ("AppDial" if one.outgoing else "")
            listed.append(Packet({
                **_snapshot(one), "Event": "CoreShowChannel", "Duration": clock,
                "BridgeId": one.bridge, "Application": application, "ApplicationData": one.data,
            }))  # fmt: skip
        return listed

    def entries(self) -> list[Packet]:
        """The callers of QueueStatus."""
        return [
            Packet(Event="QueueEntry", Queue=queue, Uniqueid=id, Wait=str(int(self.now - joined)))
            for id, (queue, joined) in self.waiting.items()
        ]


def _snapshot(channel: Channel) -> dict[str, str]:
    return {
        "Channel": channel.name, "ChannelState": channel.state, "CallerIDNum": channel.number,
        "ConnectedLineNum": "<unknown>", "Context": channel.context, "Exten": channel.exten,
        "Uniqueid": channel.id, "Linkedid": channel.link,
    }  # fmt: skip


def _age(link: str) -> tuple[int, int]:
    seconds, _, serial = link.partition(".")
    return int(seconds), int(serial)


# -- visits -------------------------------------------------------------------------------------
# Each takes the exchange and three telephones that are its own, and pauses where time passes.

Visit = Iterator[None]
Answered = Generator[None, None, tuple[Channel, Channel]]
Life = Callable[[Switch, list[str], Truth], Visit]


def _begin(switch: Switch, phones: list[str], truth: Truth, exten: str = "103") -> Channel:
    caller = switch.caller(f"+7999{phones[0]:0>7}", exten)
    truth.call, truth.direction = caller.id, "in"
    return caller


def _ring(switch: Switch, caller: Channel, phone: str, queue: str = "") -> Channel:
    leg = switch.phone(phone, caller.link)
    if queue:
        fields = {f"Dest{key}": value for key, value in _snapshot(leg).items()}
        switch.together(
            lambda: switch.event("AgentCalled", caller, Queue=queue, MemberName=phone,
                                 Interface=f"PJSIP/{phone}", **fields),
            lambda: switch.dial(caller, leg, f"PJSIP/{phone}"),
        )  # fmt: skip
    else:
        switch.dial(caller, leg, phone)
    return leg


def _connect(switch: Switch, caller: Channel, leg: Channel, queue: str, member: str) -> None:
    switch.quit(caller, abandoned=False)
    fields = {f"Dest{key}": value for key, value in _snapshot(leg).items()}
    switch.event("AgentConnect", caller, Queue=queue, MemberName=member, HoldTime="1",
                 Interface=f"PJSIP/{member}", **fields)  # fmt: skip


def _answered(switch: Switch, phones: list[str], truth: Truth) -> Answered:
    """A queue, and its first member answers; returns both legs."""
    caller = _begin(switch, phones, truth)
    yield
    queue = f"q{phones[0]}"
    switch.join(caller, queue)
    leg = _ring(switch, caller, phones[0], queue)
    yield
    switch.answer(caller, leg)
    _connect(switch, caller, leg, queue, phones[0])
    switch.bridge(caller, leg)
    truth.talked.append(phones[0])
    truth.outcomes.append((queue, "answered"))
    return caller, leg


def direct(switch: Switch, phones: list[str], truth: Truth) -> Visit:
    """One telephone, no queue."""
    caller = _begin(switch, phones, truth, "104")
    leg = _ring(switch, caller, phones[0])
    yield
    switch.answer(caller, leg)
    switch.bridge(caller, leg)
    truth.talked.append(phones[0])
    yield
    switch.hangup(caller, leg)


def two_telephones(switch: Switch, phones: list[str], truth: Truth) -> Visit:
    """Two ring at once, the second answers, the first loses the race."""
    caller = _begin(switch, phones, truth, "108")
    legs = [_ring(switch, caller, phone) for phone in phones[:2]]
    yield
    switch.dial_end(caller, legs[0], "CANCEL")
    switch.answer(caller, legs[1])
    switch.hangup(legs[0], cause="26")
    switch.bridge(caller, legs[1])
    truth.talked.append(phones[1])
    yield
    switch.hangup(caller, legs[1])


def queued(switch: Switch, phones: list[str], truth: Truth) -> Visit:
    """A queue; put on hold in between."""
    caller, leg = yield from _answered(switch, phones, truth)
    yield
    switch.event("Hold", leg)
    yield
    switch.event("Unhold", leg)
    yield
    switch.event("AgentComplete", caller, Queue=f"q{phones[0]}", TalkTime="3")
    switch.hangup(caller, leg)


def abandoned(switch: Switch, phones: list[str], truth: Truth) -> Visit:
    """A queue whose caller hangs up waiting."""
    caller = _begin(switch, phones, truth)
    queue = f"q{phones[0]}"
    switch.join(caller, queue)
    leg = _ring(switch, caller, phones[0], queue)
    yield
    switch.event("HangupRequest", caller)
    switch.quit(caller, abandoned=True)
    truth.outcomes.append((queue, "abandoned"))
    switch.hangup(leg, caller, cause="0")


def overflow(switch: Switch, phones: list[str], truth: Truth) -> Visit:
    """A queue that sends its caller on to another one, where he is answered."""
    caller = _begin(switch, phones, truth, "105")
    first, second = f"q{phones[0]}", f"q{phones[1]}"
    switch.join(caller, first)
    leg = _ring(switch, caller, phones[0], first)
    yield
    switch.dial_end(caller, leg, "NOANSWER")
    switch.hangup(leg, cause="0")
    switch.quit(caller, abandoned=True)
    truth.outcomes.append((first, "left"))
    switch.event("VarSet", caller, Variable="QUEUESTATUS", Value="TIMEOUT")
    switch.join(caller, second)
    leg = _ring(switch, caller, phones[1], second)
    yield
    switch.answer(caller, leg)
    _connect(switch, caller, leg, second, phones[1])
    switch.bridge(caller, leg)
    truth.talked.append(phones[1])
    truth.outcomes.append((second, "answered"))
    yield
    switch.hangup(caller, leg)


def by_key(switch: Switch, phones: list[str], truth: Truth) -> Visit:
    """A queue that its caller leaves by a key; hears something, and hangs up."""
    caller = _begin(switch, phones, truth)
    queue = f"q{phones[0]}"
    switch.join(caller, queue)
    yield
    switch.quit(caller, abandoned=True)
    truth.outcomes.append((queue, "left"))
    caller.exten = "1"
    switch.event("VarSet", caller, Variable="X", Value="1")
    yield
    switch.hangup(caller)


def _member(
    switch: Switch, caller: Channel, phone: str, queue: str, name: str
) -> tuple[Channel, Channel, Channel]:
    """A queue's member as FreePBX has it: through a Local channel to the telephone."""
    near, far = switch.pipe(phone, QUEUES, caller.link)
    fields = {f"Dest{key}": value for key, value in _snapshot(near).items()}
    interface = f"Local/{phone}@{QUEUES}/n"
    switch.event("AgentCalled", caller, Queue=queue, MemberName=name, Interface=interface, **fields)
    switch.dial(caller, near, interface)
    leg = switch.phone(phone, caller.link)
    switch.dial(far, leg, phone)
    return near, far, leg


def freepbx(switch: Switch, phones: list[str], truth: Truth) -> Visit:
    """Two members through Local channels ring at once; the second answers; she transfers him."""
    caller = _begin(switch, phones, truth)
    queue = f"q{phones[0]}"
    switch.join(caller, queue)
    first = _member(switch, caller, phones[0], queue, f"Оператор {phones[0]}")
    name = f"Оператор {phones[1]}"
    near, far, leg = _member(switch, caller, phones[1], queue, name)
    yield
    switch.answer(far, leg)
    if switch.random.random() < 0.3:  # both pick up in one moment, and one is too late
        switch.answer(first[1], first[2])
        switch.bridge(first[1], first[2])

    def connect() -> None:
        switch.answer(caller, near)
        _connect(switch, caller, near, queue, name)

    switch.together(lambda: switch.bridge(far, leg), connect)
    switch.hangup(*first, cause="26")
    switch.bridge(caller, near)
    truth.talked.append(name)
    truth.outcomes.append((queue, "answered"))
    yield
    if switch.random.random() < 0.5:
        switch.event("Unhold", leg)
        yield from _blind(switch, far, leg, phones[2], truth)
    switch.hangup(caller, near, far, *_there(switch, truth))


def _there(switch: Switch, truth: Truth) -> list[Channel]:
    """All channels of a visit that are left."""
    links = {truth.call, *truth.merged}
    return [one for one in switch.channels.values() if one.link in links]


def _blind(switch: Switch, transferee: Channel, by: Channel, to: str, truth: Truth) -> Visit:
    """Sent on without asking; the new one answers, or nobody does."""
    event = {f"Transferee{key}": value for key, value in _snapshot(transferee).items()}
    event |= {f"Transferer{key}": value for key, value in _snapshot(by).items()}
    transferee.exten = to
    truth.transfers += 1
    switch.together(
        lambda: switch.event("BlindTransfer", None, Result="Success", Extension=to, **event),
        lambda: switch.leave(transferee),
    )
    switch.leave(by)
    switch.hangup(by)
    leg = _ring(switch, transferee, to)
    yield
    if switch.random.random() < 0.2:
        switch.dial_end(transferee, leg, "NOANSWER")
        switch.hangup(leg, cause="19")
        return
    switch.answer(transferee, leg)
    switch.bridge(transferee, leg)
    truth.talked.append(to)
    yield


def blind(switch: Switch, phones: list[str], truth: Truth) -> Visit:
    """A queue call that is sent on twice."""
    caller, leg = yield from _answered(switch, phones, truth)
    yield
    for to in phones[1:3]:
        yield from _blind(switch, caller, leg, to, truth)
        found = [one for one in _there(switch, truth) if one.number == to]
        if not found:
            break
        leg = found[0]
    switch.hangup(*_there(switch, truth))


def attended(switch: Switch, phones: list[str], truth: Truth) -> Visit:
    """Put on hold, the second telephone asked, and joined with it; now and then while it rings."""
    caller, leg = yield from _answered(switch, phones, truth)
    yield
    switch.event("Hold", leg)
    own = switch.new(f"PJSIP/{phones[0]}-{{}}", INSIDE, phones[1], phones[0], state="4")
    truth.merged.append(own.id)
    asked = switch.phone(phones[1], own.link)
    switch.dial(own, asked, phones[1])
    yield
    switch.answer(own, asked)
    second = switch.bridge(own, asked)
    yield
    names = {"OrigTransferer": leg, "SecondTransferer": own, "TransferTarget": asked,
             "Transferee": caller}  # fmt: skip
    event = {f"{word}{key}": value for word, one in names.items()
             for key, value in _snapshot(one).items()}  # fmt: skip
    switch.together(partial(switch.event, "Unhold", leg), partial(switch.event, "Unhold", own))
    first = caller.bridge
    if switch.random.random() < 0.5:  # either bridge may be the one that is kept
        switch.leave(asked, leg)
        switch.enter(asked, first, swap=leg)
    else:
        switch.leave(caller, own)
        switch.enter(caller, second, swap=own)
    switch.event("AttendedTransfer", None, Result="Success", DestType="Bridge", **event)
    truth.transfers += 1
    truth.talked.append(phones[1])
    switch.hangup(leg, own)
    yield
    switch.hangup(caller, asked)


def semi_attended(switch: Switch, phones: list[str], truth: Truth) -> Visit:
    """Joined with a telephone that still rings: a Local channel takes the operator's place."""
    caller, leg = yield from _answered(switch, phones, truth)
    yield
    own = switch.new(f"PJSIP/{phones[0]}-{{}}", INSIDE, phones[1], phones[0], state="4")
    truth.merged.append(own.id)
    asked = switch.phone(phones[1], own.link)
    switch.dial(own, asked, phones[1])
    yield
    event = {f"{word}{key}": value
             for word, one in (("OrigTransferer", leg), ("SecondTransferer", own),
                               ("Transferee", caller))
             for key, value in _snapshot(one).items()}  # fmt: skip
    near, far = switch.pipe(phones[1], INSIDE, caller.link)
    far.link = own.link  # it takes the place of the operator's second channel
    switch.leave(leg)
    switch.enter(near, caller.bridge, swap=leg)
    switch.event("AttendedTransfer", None, Result="Success", DestType="App", **event)
    truth.transfers += 1
    switch.hangup(leg, own)
    yield
    switch.answer(far, asked)
    switch.bridge(far, asked)
    truth.talked.append(phones[1])
    yield
    switch.hangup(caller, near, far, asked)


def parked(switch: Switch, phones: list[str], truth: Truth) -> Visit:
    """Parked, and fetched from another telephone."""
    caller, leg = yield from _answered(switch, phones, truth)
    yield
    event = {f"Transferee{key}": value for key, value in _snapshot(caller).items()}
    event |= {f"Transferer{key}": value for key, value in _snapshot(leg).items()}
    switch.event("BlindTransfer", None, Result="Success", Extension="700", **event)
    truth.transfers += 1
    switch.leave(caller, leg)
    caller.bridge = "parking"
    switch.event("BridgeEnter", caller, BridgeUniqueid="parking", BridgeType="parking",
                 BridgeTechnology="holding_bridge", BridgeCreator="Parking")  # fmt: skip
    switch.hangup(leg)
    yield
    fetches = switch.new(f"PJSIP/{phones[1]}-{{}}", INSIDE, "701", phones[1], state="6")
    truth.merged.append(fetches.id)
    yield
    switch.leave(caller)
    switch.bridge(caller, fetches)
    truth.talked.append(phones[1])
    yield
    switch.hangup(caller, fetches)


def picked_up(switch: Switch, phones: list[str], truth: Truth) -> Visit:
    """It rings at one telephone and another takes it."""
    caller = _begin(switch, phones, truth, "104")
    leg = _ring(switch, caller, phones[0])
    yield
    takes = switch.new(f"PJSIP/{phones[1]}-{{}}", INSIDE, f"*8{phones[0]}", phones[1], state="6")
    truth.merged.append(takes.id)
    yield
    if switch.random.random() < 0.5:
        target = {f"Target{key}": value for key, value in _snapshot(leg).items()}
        switch.event("Pickup", takes, **target)
    switch.hangup(leg, cause="26")
    switch.bridge(takes, caller)
    truth.talked.append(phones[1])
    yield
    switch.hangup(caller, takes)


def redirected(switch: Switch, phones: list[str], truth: Truth) -> Visit:
    """Sent on by a program of the operator: there is no event for it."""
    caller, leg = yield from _answered(switch, phones, truth)
    yield
    caller.exten = phones[1]
    switch.leave(caller, leg)
    switch.hangup(leg)
    leg = _ring(switch, caller, phones[1])
    truth.transfers += 1
    yield
    switch.answer(caller, leg)
    switch.bridge(caller, leg)
    truth.talked.append(phones[1])
    yield
    switch.hangup(caller, leg)


def outgoing(switch: Switch, phones: list[str], truth: Truth) -> Visit:
    """An operator calls out; somebody answers, or it is busy."""
    own = switch.new(f"PJSIP/{phones[0]}-{{}}", INSIDE, "+79990000018", phones[0], state="4")
    truth.call, truth.direction = own.id, "out"
    far = switch.new("PJSIP/trunk-{}", TRUNK, "s", "<unknown>", own.link)
    far.number, far.exten, far.outgoing = "+79990000018", "+79990000018", True
    switch.event("NewCallerid", far)
    switch.dial(own, far, "+79990000018@trunk")
    yield
    if switch.random.random() < 0.3:
        switch.dial_end(own, far, "BUSY")
        switch.hangup(far, cause="17")
    else:
        switch.answer(own, far)
        switch.bridge(own, far)
        truth.talked.append(phones[0])
        yield
    switch.hangup(own, *([far] if far.id in switch.channels else []))


def clicked(switch: Switch, phones: list[str], truth: Truth) -> Visit:
    """A program calls the operator's telephone, and then the number."""
    own = switch.phone(phones[0], "")
    truth.call, truth.direction = own.id, "out"
    switch.dial(None, own, phones[0])
    yield
    switch.answer(None, own)
    own.exten = "+79990000040"
    far = switch.new("PJSIP/trunk-{}", TRUNK, "s", "<unknown>", own.link)
    far.number, far.exten, far.outgoing = "+79990000040", "+79990000040", True
    switch.dial(own, far, "+79990000040@trunk")
    yield
    switch.answer(own, far)
    switch.bridge(own, far)
    truth.talked.append(phones[0])
    yield
    switch.hangup(own, far)


def conference(switch: Switch, phones: list[str], truth: Truth) -> Visit:
    """A caller and an operator meet in a conference, which makes no call of them."""
    caller = _begin(switch, phones, truth, "8000")
    room = f"room-{phones[0]}"
    switch.conferences.add(room)
    switch.enter(caller, room)
    yield
    own = switch.new(f"PJSIP/{phones[0]}-{{}}", INSIDE, "8000", phones[0], state="6")
    switch.enter(own, room)
    truth.talked.append(phones[0])
    yield
    switch.hangup(own)
    yield
    switch.hangup(caller)


def optimised(switch: Switch, phones: list[str], truth: Truth) -> Visit:
    """A telephone behind a Local channel that the exchange takes out of the way."""
    caller = _begin(switch, phones, truth, "106")
    near, far = switch.pipe(phones[0], INSIDE, caller.link, kept=False)
    switch.dial(caller, near, f"{phones[0]}@{INSIDE}")
    leg = switch.phone(phones[0], caller.link)
    switch.dial(far, leg, phones[0])
    yield
    switch.answer(far, leg)
    switch.answer(caller, near)
    switch.together(lambda: switch.bridge(far, leg), lambda: switch.bridge(caller, near))
    truth.talked.append(phones[0])
    switch.leave(leg)
    switch.leave(near)
    switch.enter(leg, caller.bridge, swap=near)
    switch.hangup(near, far)
    yield
    switch.hangup(caller, leg)


def masqueraded(switch: Switch, phones: list[str], truth: Truth) -> Visit:
    """The operator's telephone is sent elsewhere by a masquerade: a channel that is nobody's comes
    and goes, and the telephone keeps its identity."""
    caller = _begin(switch, phones, truth, "104")
    leg = _ring(switch, caller, phones[0])
    yield
    switch.answer(caller, leg)
    switch.bridge(caller, leg)
    truth.talked.append(phones[0])
    yield
    ghost = switch.new(f"AsyncGoto/{leg.name}", INSIDE, "s", phones[0])
    switch.event("Rename", leg, Newname=f"{leg.name}<MASQ>")
    ghost.name += "<ZOMBIE>"
    switch.leave(leg)
    switch.hangup(ghost)
    yield
    switch.hangup(caller, leg)


LIVES: tuple[Life, ...] = (
    direct, two_telephones, queued, abandoned, overflow, by_key, freepbx, blind, attended,
    semi_attended, parked, picked_up, redirected, outgoing, clicked, conference, optimised,
    masqueraded,
)  # fmt: skip
