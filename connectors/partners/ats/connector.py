"""The connector of the telephone exchange, by the Asterisk Manager Interface over TCP."""

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec.structs import replace

from connectors.partners.ats.ami import Packet
from connectors.partners.ats.calls import CallBook, CallEvent, moment_of
from connectors.partners.ats.groups import GroupBook, OperatorEvent
from connectors.partners.ats.joining import Joining
from connectors.partners.ats.memory import LiveCalls
from connectors.partners.ats.session import AmiSession, LinkLost, LoginRefused
from connectors.runtime.bus.connector import Connector
from connectors.runtime.bus.outbox import Outbox
from connectors.runtime.bus.settings import ConnectorSettings, Listen
from connectors.runtime.door.door import message_id
from connectors.runtime.log import LOG
from connectors.runtime.partner import tls
from connectors.runtime.partner.partner import PartnerSettings, credentials
from connectors.runtime.statefile import Alarm
from proto import schemas
from proto.client import BusClient, Delivery, Reject, Retry
from proto.exits import StartError
from proto.inclear import is_here
from proto.message import UNREADABLE, Message, Priority
from proto.nesting import decode_json
from proto.note import coded
from proto.pattern import exactly
from proto.wording import text

PORTS: Final = {"tcp": 5038, "tls": 5039}
OUTBOX_MAX: Final = 5_000  # messages for the bus; then the exchange has to wait
MARGIN_S: Final = 5.0  # over the time that a telephone rings
RECONNECT_S: Final = 1.0
HOUSEKEEPING_S: Final = 1.0
FAREWELL_S: Final = 1.0
encode: Final = msgspec.json.Encoder().encode


class AmiSettings(PartnerSettings, frozen=True, forbid_unknown_fields=True):
    """Where the exchange listens; `credentials_file` holds a manager's `name:secret`. `login` says
    whether the secret itself goes over the wire ("secret") or what it makes of a challenge ("md5");
    "auto" shows it on this machine, by TLS, and to an exchange that offers no challenge."""

    url: Annotated[str, msgspec.Meta(pattern=exactly(r"(tcp|tls)://[^/]+"))]
    login: Literal["auto", "md5", "secret"] = "auto"


class _Contact(schemas.Body, frozen=True, kw_only=True):
    caller: schemas.Caller | None = None


class _Card(schemas.Body, frozen=True, kw_only=True):
    """Of a card what joins it to a call: its route hands out no more."""

    id112: schemas.Id112
    contact: _Contact | None = None


class AtsSettings(ConnectorSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[connectors.ats]. `inbound` are the dial plan's contexts that callers come in by; a telephone
    is called as `channel`/OPERATOR and connected by `context`. The threshold of 20 s is the norm of
    Government decree 1931."""

    partner: AmiSettings
    listen: Listen = "127.0.0.1:7105"  # not used
    inbound: tuple[str, ...] = ("from-trunk", "from-pstn", "from-external")
    channel: str = "PJSIP"
    context: str = "from-internal"
    ring_s: Annotated[float, msgspec.Meta(gt=0, le=300)] = 30.0
    ping_s: Annotated[float, msgspec.Meta(gt=0, le=600)] = 15.0
    statistics_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 60.0
    threshold_s: Annotated[float, msgspec.Meta(gt=0, le=600)] = 20.0
    live_calls_file: Path | None = None


class AtsConnector(Connector):
    """See the module; README.md lists what becomes of what."""

    Settings: ClassVar[type[ConnectorSettings]] = AtsSettings
    settings: AtsSettings

    def __init__(self, name: str, settings: ConnectorSettings, bus: BusClient) -> None:
        super().__init__(name, settings, bus)
        where = urlsplit(self.settings.partner.url)
        self._host, self._port = where.hostname or "", where.port or PORTS[where.scheme]
        self._user, self._secret = credentials(self.settings.partner.credentials_file)
        self._memory = LiveCalls(self.settings.live_calls_file)
        self._calls = CallBook(self.settings.inbound)
        self._groups = GroupBook(self.settings.threshold_s)
        self._joining = Joining()
        self._cards: dict[str, str] = {}  # live call -> id112
        self._ended: list[str] = []  # their end is on its way to the bus
        self._put_off: set[str] = set()  # requests that were surely not dialled yet
        self._outbox = Outbox(bus, OUTBOX_MAX)
        self._session: AmiSession | None = None
        self._told_shown = False
        self._told_at = datetime.now(UTC)

    def states(self) -> list[Alarm]:
        """Return the file of live calls."""
        return [self._memory]

    # -- from the exchange ----------------------------------------------------------------------

    async def stay(self) -> None:
        """Be connected to the exchange, again and again."""
        try:
            self._calls.restore(self._memory.open())
        except OSError as error:
            path = self.settings.live_calls_file
            raise StartError(f"{path}: {error.strerror}") from None
        work = (self._outbox.run(), self._keep_house(), self._listen_again())
        tasks = [asyncio.create_task(one) for one in work]
        try:
            await asyncio.gather(*tasks)
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _listen_again(self) -> None:
        while True:
            try:
                await self._listen()
            except LinkLost as lost:
                self.partner.failed(tls.sentence_of(str(lost), lost.lack))
            except LoginRefused:
                self.partner.failed(text("connector.ats_login"))
            pause_s = self.partner.breaker.wait_s(time.monotonic())
            await asyncio.sleep(max(RECONNECT_S, pause_s))

    async def _listen(self) -> None:
        """One connection from its login to its end. Raises LinkLost or LoginRefused."""
        session = AmiSession(self._on_event, self.settings.partner.timeout_s)
        await session.open(self._host, self._port, self.partner.context)
        reading = asyncio.create_task(session.run())
        try:
            await self._login(session)
            await self._resync(session)
            self._session = session
            self.partner.succeeded()
            while not reading.done():
                await asyncio.wait([reading], timeout=self.settings.ping_s)
                if not reading.done():
                    await session.ping()
                    self.partner.succeeded()
            await reading
        finally:
            self._session = None
            session.close()
            reading.cancel()
            await asyncio.gather(reading, return_exceptions=True)

    async def _login(self, session: AmiSession) -> None:
        way = self.settings.partner.login
        in_clear = self.partner.context is None and not is_here(self._host)
        must_hide = way == "md5"
        hidden = must_hide or (way == "auto" and in_clear)
        shown = not await session.login(
            self._user or "", self._secret or "", hidden=hidden, must_hide=must_hide
        )
        if hidden and shown and not self._told_shown:
            self._told_shown = True
            LOG.warning(text("connector.ats_shown", host=self._host))

    async def _resync(self, session: AmiSession) -> None:
        """Find out what happened while nobody was listening, then hear what happened since."""
        channels = await session.listing("CoreShowChannels")
        members = await session.listing("QueueStatus")
        session.end_listing()
        now = datetime.now(UTC)
        live = [packet for packet in channels if packet.event == "CoreShowChannel"]
        for event in self._calls.resync(live, now):
            await self._tell_call(event)
        for change in self._groups.resync(members, now):
            await self._tell_operator(change)
        await session.release()

    async def _on_event(self, packet: Packet) -> None:
        now = datetime.now(UTC)
        for event in self._calls.apply(packet, now):
            await self._tell_call(event)
        for change in self._groups.apply(packet, moment_of(packet, now)):
            await self._tell_operator(change)

    def waiting(self) -> int:
        """Return what waits for the bus, of what the exchange told, too."""
        return self._outbox.waiting + super().waiting()

    def set_aside(self) -> int:
        """Return how many events the bus refused for good, and what else was set aside."""
        return self._outbox.dropped + super().set_aside()

    # -- to the bus -----------------------------------------------------------------------------

    async def _tell_call(self, event: CallEvent) -> None:
        call = event.call
        if event.kind == "started":
            self._memory.began(call)
            await self._join_call(call.id, call.number_from, call.number_to)
        body = schemas.TelephonyCall(
            call_id=call.id, event=event.kind, at=event.at, direction=call.direction,
            number_from=call.number_from, number_to=call.number_to, started_at=call.started_at,
            answered_at=call.answered_at, queue=call.queue or None, operator=call.operator or None,
            cause=event.cause or None, recording_ref=call.recording or None,
            id112=self._cards.get(call.id),
        )  # fmt: skip
        id = message_id("telephony.call.v1", call.id, event.kind, event.mark)
        await self._publish("telephony.call.v1", id, f"ats-{call.id}", body)
        if event.kind == "ended":
            self._cards.pop(call.id, None)
            self._ended.append(call.id)

    async def _join_call(self, call_id: str, *numbers: str) -> None:
        for number in numbers:
            if id112 := self._joining.call(number, call_id, time.monotonic()):
                await self._tell_joined(call_id, id112)

    async def _tell_joined(self, call_id: str, id112: str) -> None:
        if call_id in self._calls.calls:
            self._cards[call_id] = id112
        body = schemas.TelephonyJoined(call_id=call_id, id112=id112, at=datetime.now(UTC))
        id = message_id("telephony.joined.v1", call_id, id112)
        message = self._message("telephony.joined.v1", id, f"112-{id112}", body)
        await self._outbox.put(replace(message, correlation_id=call_id))

    async def _tell_operator(self, event: OperatorEvent) -> None:
        body = schemas.OperatorState(
            operator=event.operator, groups=list(event.groups), state=event.state, at=event.at
        )
        id = message_id("telephony.operator.v1", event.operator, event.state, event.at.isoformat())
        await self._publish("telephony.operator.v1", id, f"operator-{event.operator}", body)

    async def _keep_house(self) -> None:
        """Forget calls whose end is on the router's disk; tell the figures of each group."""
        next_s = time.monotonic() + self.settings.statistics_s
        while True:
            await asyncio.sleep(HOUSEKEEPING_S)
            if self._ended:
                ended, self._ended = self._ended, []
                await self._outbox.drain()
                self._memory.ended(ended)
            if time.monotonic() >= next_s:
                next_s = max(next_s + self.settings.statistics_s, time.monotonic())
                await self._tell_groups()

    async def _tell_groups(self) -> None:
        now = datetime.now(UTC)
        period_s = max(0.001, (now - self._told_at).total_seconds())
        self._told_at = now
        for group, there in self._groups.take().items():
            figures = there.figures
            body = schemas.GroupStatistics(
                group=group, period_s=period_s, at=now, offered=figures.offered,
                answered=figures.answered, abandoned=figures.abandoned,
                answered_in_time=figures.answered_in_time, threshold_s=self.settings.threshold_s,
                wait_mean_s=figures.wait_mean_s, wait_max_s=figures.wait_max_s,
                talk_mean_s=figures.talk_mean_s, logged_in=there.logged_in,
                available=there.available, waiting=there.waiting,
            )  # fmt: skip
            id = message_id("telephony.group.v1", group, now.isoformat())
            await self._publish("telephony.group.v1", id, f"group-{group}", body)

    async def _publish(self, type: str, id: str, subject: str, body: schemas.Body) -> None:
        await self._outbox.put(self._message(type, id, subject, body))

    def _message(self, type: str, id: str, subject: str, body: schemas.Body) -> Message:
        return Message.new(
            type, self.name, encode(body), subject=subject, id=id, priority=Priority.ROUTINE
        )

    # -- to the exchange ------------------------------------------------------------------------

    async def handle(self, delivery: Delivery) -> str | None:
        """Dial, or remember the number of a card. Raises Retry or Reject."""
        message = delivery.message
        try:
            if message.type == "telephony.dial.v1":
                request = decode_json(message.body, schemas.DialRequest)
                return await self._dial(delivery, request)
            if message.type == "incident.card.v1":
                card = decode_json(message.body, _Card)
                return await self._join_card(card)
        except UNREADABLE:
            raise Reject(coded("connector.bad_body")) from None
        raise Reject(coded("connector.no_type", type=message.type))

    async def _join_card(self, card: _Card) -> str | None:
        caller = card.contact.caller if card.contact else None
        if caller is None or not caller.phone:
            return None
        call_id = self._joining.card(caller.phone, card.id112, time.monotonic())
        if call_id is None:
            return None
        await self._tell_joined(call_id, card.id112)
        return call_id

    async def _dial(self, delivery: Delivery, request: schemas.DialRequest) -> str:
        """Dialled at most once: when the line breaks off meanwhile, nobody's telephone rings again
        and the result says so."""
        result, reason = "unknown", None
        if delivery.attempt == 1 or delivery.key in self._put_off:
            if self._session is None:
                self._put_off.add(delivery.key)
                raise Retry(coded("ats.away"))
            self._put_off.discard(delivery.key)
            result, reason = await self._originate(self._session, delivery.key, request)
        body = {
            "request_id": delivery.message.id, "operator": request.operator, "result": result,
            "reason": reason, "id112": request.id112, "at": datetime.now(UTC),
        }  # fmt: skip
        id = message_id("telephony.dialled.v1", delivery.message.id)
        answer = msgspec.convert(body, schemas.DialResult)
        # On the router's disk before the request is settled: nobody would tell it again.
        result_message = self._message("telephony.dialled.v1", id, delivery.message.subject, answer)
        await self.bus.publish(result_message)
        return result

    async def _originate(
        self, session: AmiSession, key: str, request: schemas.DialRequest
    ) -> tuple[str, str | None]:
        fields = {
            "Channel": f"{self.settings.channel}/{request.operator}", "Exten": request.number,
            "Context": self.settings.context, "Priority": "1", "Async": "true",
            "Timeout": str(int(self.settings.ring_s * 1000)), "ChannelId": key,
        }  # fmt: skip

        def is_last(packet: Packet) -> bool:
            return packet.event == "OriginateResponse"

        try:
            timeout_s = self.settings.ring_s + MARGIN_S
            *_, last = await session.ask("Originate", fields, is_last, timeout_s)
        except LinkLost as lost:
            return "unknown", str(lost)
        if last["Response"] == "Success":
            return "connected", None
        return "failed", last["Reason"] or last["Message"] or None

    async def close(self) -> None:
        """Let what was told reach the bus, for a moment; then let go of the exchange."""
        await self._outbox.finish(FAREWELL_S)
        self._memory.close()
        await super().close()
