"""Generated streams of an exchange: calls that overlap, most of whose events mean nothing to us."""

from collections.abc import Iterator, Mapping
from random import Random
from types import MappingProxyType

OPERATORS = [f"op-{number:02}" for number in range(1, 41)]
OVERLAP = 200  # calls at once
QUEUE = "dispatch"
NOTHING: Mapping[str, str] = MappingProxyType({})
Event = tuple[bytes, tuple[str, bytes] | None, str]  # it, the channel it opens, and closes


class Stream:
    """Events as bytes, in order; `live` are the channels there are at `at`. With `noise` each call
    has besides what matters the many events of a dial plan at work."""

    def __init__(self, calls: int, seed: int = 0, noise: int = 28) -> None:
        self.random = Random(seed)
        self.calls = calls
        self._noise = noise
        self.events = list(self._woven())
        self.at = 0
        self.live: dict[str, bytes] = {}  # channel -> what CoreShowChannels says of it

    def take(self, count: int) -> bytes:
        """Return the next `count` events as they go over the wire."""
        taken = self.events[self.at : self.at + count]
        self.at += len(taken)
        for _, opened, closed in taken:
            if opened:
                self.live[opened[0]] = opened[1]
            self.live.pop(closed, None)
        return b"".join(event for event, _, _ in taken)

    def listing(self, action: str, id: str) -> bytes:
        """Return the answer to CoreShowChannels or QueueStatus."""
        parts = [_packet(Response="Success", ActionID=id, EventList="start")]
        if action == "CoreShowChannels":
            tail = f"ActionID: {id}\r\n\r\n".encode()
            parts += [head + tail for head in self.live.values()]
        parts.append(_packet(Event=f"{action}Complete", EventList="Complete", ActionID=id))
        return b"".join(parts)

    def _woven(self) -> Iterator[Event]:
        waiting = iter(range(self.calls))
        going = [self._call(number) for _, number in zip(range(OVERLAP), waiting, strict=False)]
        while going:
            place = self.random.randrange(len(going))
            event = next(going[place], None)
            if event is not None:
                yield event
            elif (number := next(waiting, None)) is not None:
                going[place] = self._call(number)
            else:
                going.pop(place)

    def _call(self, number: int) -> Iterator[Event]:
        call, leg = f"1790000000.{2 * number}", f"1790000000.{2 * number + 1}"
        operator = OPERATORS[number % len(OPERATORS)]
        about = {"Uniqueid": call, "Linkedid": call}
        queue = about | {"Queue": QUEUE}
        yield self._opened(
            call, call, Context="from-trunk", CallerIDNum=f"+7000{number:07}", Exten="103"
        )
        yield from self._plan(about)
        yield _event("QueueCallerJoin", queue)
        yield _event("AgentCalled", queue, MemberName=operator)
        yield self._opened(leg, call, Context="from-internal", Exten="")
        yield _event("QueueMemberStatus", Queue=QUEUE, MemberName=operator, Status="6", Paused="0")
        yield from self._plan(about)
        yield _event("AgentConnect", queue, MemberName=operator, HoldTime="7")
        for channel in (call, leg):
            yield _event("BridgeEnter", Uniqueid=channel, Linkedid=call, BridgeUniqueid=f"b-{call}")
        yield _event("QueueMemberStatus", Queue=QUEUE, MemberName=operator, Status="2", Paused="0")
        yield _event("AgentComplete", queue, MemberName=operator, TalkTime="70")
        yield _event("QueueMemberStatus", Queue=QUEUE, MemberName=operator, Status="1", Paused="0")
        yield _event("QueueCallerLeave", queue)
        for channel in (leg, call):
            yield (
                _packet(Event="Hangup", Uniqueid=channel, Linkedid=call, Cause="16"),
                None,
                channel,
            )

    def _plan(self, about: Mapping[str, str]) -> Iterator[Event]:
        for number in range(self._noise // 2):
            name = ("Newexten", "VarSet", "RTCPSent", "SomethingOfTomorrow")[number % 4]
            yield _event(name, about, Context="dialplan", Variable=f"v{number}", Value="x" * 40)

    @staticmethod
    def _opened(channel: str, call: str, **fields: str) -> Event:
        told = {"Uniqueid": channel, "Linkedid": call, "ChannelState": "6", **fields}
        shown = _packet(Event="CoreShowChannel", **told).removesuffix(b"\r\n")
        return _packet(Event="Newchannel", **told), (channel, shown), ""


def _event(name: str, about: Mapping[str, str] = NOTHING, **fields: str) -> Event:
    return _packet(Event=name, **about, **fields), None, ""


def _packet(**fields: str) -> bytes:
    lines = "".join(f"{key}: {value}\r\n" for key, value in fields.items())
    return f"{lines}\r\n".encode()
