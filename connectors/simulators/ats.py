"""A stand-in for Asterisk: the manager interface over TCP, calls that live, telephones that ring.

`--connector tcp://HOST:PORT` is where it listens as an exchange. Over HTTP: `POST /drive` with
`{"calls": N}` has N callers come in, `{"callers": [NUMBER, ...]}` these; `{"break": true}` breaks
every connection off in the middle of a packet, `{"garbage": N}` sends N packets that are none.
`{"replay": TEXT, "shift_s": S}` sends the events of a capture, at once, S seconds later than they
were; `{"lists": TEXT}` answers CoreShowChannels and QueueStatus with what was captured.
`{"odd": {...}}` switches to what real exchanges do (`Oddities`; the connector's README lists them).
`GET /ledger` tells what it did.
"""

import asyncio
import contextlib
import hashlib
import itertools
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from random import Random
from typing import Any, Final
from urllib.parse import urlsplit

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route
from starlette.types import ASGIApp

from connectors.partners.ats.ami import Packet, Parser
from connectors.simulators.atsmirror import Mirror, moment
from connectors.simulators.kit.faults import FaultyApp
from connectors.simulators.kit.simulation import SimulatorSettings

BANNER: Final = b"Asterisk Call Manager/7.0.3\r\n"
USER, SECRET = "smpbus", "made-up"
QUEUE: Final = "dispatch"
OPERATORS: Final = ("op-01", "op-02", "op-03")
FREE, TALKING, RINGING = "1", "2", "6"
ACTIONS: Final = ("CoreShowChannels", "Getvar", "ListCommands", "Originate", "Ping", "QueueStatus")


class Oddities(msgspec.Struct, forbid_unknown_fields=True):
    """How a real exchange differs from one that only obeys. `denied` are actions that its user may
    not ask, `unknown` those of modules that are not loaded (yet), for so many times; `mute` are
    classes of events that its user may not read."""

    denied: list[str] = []
    unknown: dict[str, int] = {}
    mute: list[str] = []


class Exchange:
    """Channels, operators, and whoever is logged in."""

    def __init__(self, settings: SimulatorSettings) -> None:
        self.settings = settings
        self.faulty: FaultyApp | None = None
        self.channels: dict[str, Packet] = {}
        self.ended: list[str] = []
        self.answered: list[str] = []
        self.dialled: list[dict[str, str]] = []
        self.logins = 0
        self._challenges: dict[asyncio.StreamWriter, str] = {}
        self.living = 0
        self.odd = Oddities()
        self.mirror = Mirror()
        self._lists: list[Packet] | None = None
        self._states = dict.fromkeys(OPERATORS, FREE)
        self._numbers = itertools.count(1)
        self._random = Random(settings.seed)
        self._writers: set[asyncio.StreamWriter] = set()
        self._tasks: set[asyncio.Task[None]] = set()

    # -- the manager interface ------------------------------------------------------------------

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until it ends."""
        parser = Parser()
        writer.write(BANNER)
        for _ in parser.feed(BANNER):
            raise AssertionError("the banner is no packet")
        try:
            while data := await reader.read(65536):
                for action in parser.feed(data):
                    await self._act(action, writer)
        except (ConnectionError, asyncio.CancelledError):
            pass
        finally:
            self._writers.discard(writer)
            writer.close()

    async def _act(self, action: Packet, writer: asyncio.StreamWriter) -> None:
        faults = self.faulty.faults if self.faulty is not None else None
        if faults is not None and faults.delay_s:
            await asyncio.sleep(faults.delay_s)
        name, id = action["Action"], action["ActionID"]
        if faults is not None and (faults.down or self._random.random() < faults.fail):
            writer.close()
        elif name == "Challenge":
            self._challenges[writer] = challenge = str(self._random.randrange(10**9))
            _say(writer, Response="Success", ActionID=id, Challenge=challenge)
        elif name == "Login":
            self._login(action, writer)
        elif writer not in self._writers or name in self.odd.denied:
            _say(writer, Response="Error", ActionID=id, Message="Permission denied")
        elif self.odd.unknown.get(name, 0) > 0:
            self.odd.unknown[name] -= 1
            _say(writer, Response="Error", ActionID=id, Message="Invalid/unknown command: " + name)
        elif name == "ListCommands":
            known = {one: f"{one} (Priv: all)" for one in ACTIONS if one not in self.odd.denied}
            _say(writer, Response="Success", ActionID=id, **known)
        elif name == "Getvar":
            _say(writer, Response="Success", ActionID=id, Variable=action["Variable"], Value="")
        elif name == "Ping":
            _say(writer, Response="Success", ActionID=id, Ping="Pong")
        elif name in ("CoreShowChannels", "QueueStatus"):
            self._list(name, id, writer)
        elif name == "Originate" and action["Application"]:
            _say(writer, Response="Success", ActionID=id, Message="Originate successfully queued")
            self._probe(action)
        elif name == "Originate":
            _say(writer, Response="Success", ActionID=id, Message="Originate successfully queued")
            self._go(self._originate(action, writer))
        else:
            _say(writer, Response="Error", ActionID=id, Message="Invalid/unknown command")

    def _login(self, action: Packet, writer: asyncio.StreamWriter) -> None:
        id = action["ActionID"]
        challenge = self._challenges.pop(writer, "")
        key = hashlib.md5(f"{challenge}{SECRET}".encode(), usedforsecurity=False).hexdigest()
        known = action["Key"] == key if challenge else action["Secret"] == SECRET
        if action["Username"] != USER or not known:
            _say(writer, Response="Error", ActionID=id, Message="Authentication failed")
            return
        self.logins += 1
        _say(writer, Response="Success", ActionID=id, Message="Authentication accepted")
        self._writers.add(writer)

    def _list(self, name: str, id: str, writer: asyncio.StreamWriter) -> None:
        _say(writer, Response="Success", ActionID=id, EventList="start", Message="Will follow")
        listed = self._lists
        if listed is None and not self.channels:
            now = datetime.now(UTC)
            listed = self.mirror.channels(now) + self.mirror.queues(now)
        if listed:
            for packet in listed:
                if (packet.event == "CoreShowChannel") == (name == "CoreShowChannels"):
                    _say(writer, **{**packet, "ActionID": id})
        elif name == "CoreShowChannels":
            for channel in self.channels.values():
                _say(writer, **{**channel, "Event": "CoreShowChannel", "ActionID": id})
        else:
            for operator, state in self._states.items():
                _say(writer, Event="QueueMember", Queue=QUEUE, Name=operator, Status=state,
                     Paused="0", ActionID=id)  # fmt: skip
        _say(writer, Event=f"{name}Complete", EventList="Complete", ActionID=id)

    def tell(self, event: str, **fields: str) -> None:
        """Send an event to all who are logged in."""
        fields.setdefault("Privilege", f"{_class_of(event)},all")
        if fields["Privilege"].partition(",")[0] not in self.odd.mute:
            for writer in self._writers:
                _say(writer, Event=event, **fields)

    # -- lives ----------------------------------------------------------------------------------

    async def drive(self, order: dict[str, Any]) -> None:
        """Carry out what `POST /drive` asks for."""
        for _ in range(int(order.get("calls", 0))):
            self._go(self._call(f"+7000{self._random.randrange(10**7):07}"))
        for number in order.get("callers", ()):
            self._go(self._call(number))
        if "odd" in order:
            self.odd = msgspec.convert(order["odd"], Oddities)
        if "lists" in order:
            self._lists = [one for one in _packets(order["lists"]) if one.event]
        if "replay" in order:
            self._replay(order["replay"], float(order.get("shift_s", 0.0)))
        for _ in range(int(order.get("garbage", 0))):
            for writer in self._writers:
                writer.write(b"no packet at all\r\n\xff\xfe\r\n\r\n")
        if order.get("break"):
            for writer in list(self._writers):
                writer.write(b"Event: Newchannel\r\nUniqueid: 1")
                writer.close()

    def _replay(self, capture: str, shift_s: float) -> None:
        for packet in _packets(capture):
            if packet.event and packet["Timestamp"]:
                packet["Timestamp"] = f"{float(packet['Timestamp']) + shift_s:.6f}"
                self.mirror.note(packet, moment(packet))
                fields = {key: value for key, value in packet.items() if key != "Event"}
                self.tell(packet.event, **fields)

    def _go(self, life: Any) -> None:
        task = asyncio.ensure_future(life)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def stop(self) -> None:
        """End all lives and connections."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        for writer in list(self._writers):
            writer.close()

    async def _call(self, number: str) -> None:
        """One caller: comes in, waits, talks to an operator, and hangs up; some give up before."""
        self.living += 1
        call = f"1790000000.{next(self._numbers)}"
        self._open(call, call, Context="from-trunk", CallerIDNum=number, Exten="103")
        self.tell("QueueCallerJoin", Queue=QUEUE, Uniqueid=call, Linkedid=call)
        await self._pace()
        if self._random.random() < 0.15:
            self.tell("QueueCallerAbandon", Queue=QUEUE, Uniqueid=call, Linkedid=call, HoldTime="9")
        else:
            await self._talk(call)
        self.tell("QueueCallerLeave", Queue=QUEUE, Uniqueid=call, Linkedid=call)
        self._close(call, "16")
        self.ended.append(call)
        self.living -= 1

    async def _talk(self, call: str) -> None:
        operator = self._random.choice(OPERATORS)
        leg = f"1790000000.{next(self._numbers)}"
        self._state(operator, RINGING)
        self.tell("AgentCalled", Queue=QUEUE, MemberName=operator, Uniqueid=call, Linkedid=call)
        self._open(leg, call, Context="from-internal", Exten="")
        await self._pace()
        wait_s = str(self._random.randrange(40))
        self.tell("AgentConnect", Queue=QUEUE, MemberName=operator, Uniqueid=call, Linkedid=call,
                  HoldTime=wait_s)  # fmt: skip
        self.answered.append(call)
        for channel in (call, leg):
            self.channels[channel]["BridgeId"] = f"bridge-{call}"
            self.tell("BridgeEnter", BridgeUniqueid=f"bridge-{call}", Uniqueid=channel,
                      Linkedid=call)  # fmt: skip
        self._state(operator, TALKING)
        await self._pace()
        self.tell("AgentComplete", Queue=QUEUE, MemberName=operator, Uniqueid=call, Linkedid=call,
                  TalkTime=str(self._random.randrange(10, 200)))  # fmt: skip
        self._close(leg, "16")
        self._state(operator, FREE)

    async def _originate(self, action: Packet, writer: asyncio.StreamWriter) -> None:
        channel, id = action["ChannelId"], action["ActionID"]
        self.dialled.append({"id": channel, "channel": action["Channel"]})
        operator = action["Channel"].rpartition("/")[2]
        await self._pace()
        known = operator in OPERATORS
        answer = {"Response": "Success", "Reason": "4"} if known else {
            "Response": "Failure", "Reason": "0"}  # fmt: skip
        _say(writer, Event="OriginateResponse", ActionID=id, Channel=action["Channel"], **answer)

    def _probe(self, action: Packet) -> None:
        """A channel that goes nowhere, and says so."""
        id = f"1790000000.{next(self._numbers)}"
        variable, _, value = action["Variable"].partition("=")
        about = {"Uniqueid": id, "Linkedid": id, "Channel": f"{action['Channel']}-00000001;1"}
        self.tell("Newchannel", **about, Context="smpbus-check")
        self.tell("VarSet", **about, Variable=variable, Value=value)
        self.tell("Hangup", **about, Cause="0")

    def _open(self, channel: str, call: str, **fields: str) -> None:
        packet = Packet(Uniqueid=channel, Linkedid=call, ChannelState="6", **fields)
        self.channels[channel] = packet
        self.tell("Newchannel", **packet)

    def _close(self, channel: str, cause: str) -> None:
        packet = self.channels.pop(channel)
        self.tell("Hangup", Uniqueid=channel, Linkedid=packet["Linkedid"], Cause=cause)

    def _state(self, operator: str, state: str) -> None:
        self._states[operator] = state
        self.tell("QueueMemberStatus", Queue=QUEUE, MemberName=operator, Status=state, Paused="0")

    async def _pace(self) -> None:
        await asyncio.sleep(self.settings.pace_s * self._random.uniform(0.5, 1.5))


def _class_of(event: str) -> str:
    if event == "VarSet":
        return "dialplan"
    return "agent" if event.startswith(("Queue", "Agent")) else "call"


def _packets(capture: str) -> list[Packet]:
    """Return the packets of a capture, whose first line is the banner."""
    lines = capture.replace("\r\n", "\n").replace("\n", "\r\n")
    return list(Parser().feed(lines.encode()))


def _say(writer: asyncio.StreamWriter, **fields: str) -> None:
    if not writer.is_closing():
        lines = "".join(f"{key}: {value}\r\n" for key, value in fields.items())
        writer.write(f"{lines}\r\n".encode())


def create_app(settings: SimulatorSettings) -> ASGIApp:
    """Return the simulator's pages; while they are served, so is the exchange."""
    exchange = Exchange(settings)
    where = urlsplit(settings.connector_url)

    @contextlib.asynccontextmanager
    async def lifespan(_: Starlette) -> AsyncIterator[None]:
        server = await asyncio.start_server(exchange.serve, where.hostname, where.port)
        yield
        server.close()
        await exchange.stop()

    async def drive(request: Request) -> Response:
        await exchange.drive(msgspec.json.decode(await request.body()))
        return Response(status_code=202)

    async def ledger(_: Request) -> Response:
        told = {"logins": exchange.logins, "living": exchange.living, "ended": exchange.ended,
                "answered": exchange.answered, "dialled": exchange.dialled}  # fmt: skip
        return Response(msgspec.json.encode(told), media_type="application/json")

    app = Starlette(lifespan=lifespan, routes=[
        Route("/drive", drive, methods=["POST"]), Route("/ledger", ledger)])  # fmt: skip
    exchange.faulty = FaultyApp(app, settings.faults)
    return exchange.faulty
