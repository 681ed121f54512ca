"""The connector of the telephone exchange, by the Asterisk Manager Interface over TCP."""

import asyncio
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, ClassVar, Final, Literal, cast
from urllib.parse import urlsplit

import msgspec

from connectors.partners.ats import telling
from connectors.partners.ats.calls import CallBook
from connectors.partners.ats.dialling import originate
from connectors.partners.ats.groups import GroupBook
from connectors.partners.ats.hearing import Hearing
from connectors.partners.ats.line import Line
from connectors.partners.ats.memory import LiveCalls
from connectors.partners.ats.probing import probe
from connectors.partners.ats.unsent import Unsent
from connectors.runtime.bus.connector import Connector
from connectors.runtime.bus.settings import Loaded, SessionSettings
from connectors.runtime.door.door import message_id
from connectors.runtime.partner.partner import Partner, PartnerSettings, credentials
from proto import schemas
from proto.client import BusClient, Delivery, Retry
from proto.exits import StartError
from proto.note import coded
from proto.pattern import exactly

PORTS: Final = {"tcp": 5038, "tls": 5039}
HOUSEKEEPING_S: Final = 1.0
FAREWELL_S: Final = 1.0


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


class AtsSettings(SessionSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[connectors.ats]. `inbound` are the dial plan's contexts that callers come in by; a telephone
    is called as `channel`/OPERATOR and connected by `context`. The threshold of 20 s is the norm of
    Government decree 1931."""

    partner: AmiSettings
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

    Settings: ClassVar = AtsSettings
    takes: ClassVar = {
        "telephony.dial.v1": (schemas.DialRequest, "dial"),
        "incident.card.v1": (_Card, "join_card"),
    }
    publishes: ClassVar = (
        "telephony.call.v1",
        "telephony.joined.v1",
        "telephony.operator.v1",
        "telephony.group.v1",
        "telephony.dialled.v1",
    )
    keeps: ClassVar = ("_hearing.memory", "_hearing.unsent")  # live calls, and what the bus has not
    runs: ClassVar = ("_hearing.run", "_keep_house", "_line.stay")
    settings: AtsSettings

    def __init__(self, name: str, settings: SessionSettings, bus: BusClient) -> None:
        super().__init__(name, settings, bus)
        file = self.settings.live_calls_file
        calls = CallBook(self.settings.inbound)
        books = calls, GroupBook(self.settings.threshold_s, calls)
        self._hearing = Hearing(name, books, LiveCalls(file), Unsent(file), bus)
        self._line = _line(self.settings, self.partner, self._hearing)
        self._put_off: set[str] = set()  # requests that were surely not dialled yet

    @classmethod
    async def probe(cls, name: str, loaded: Loaded) -> list[tuple[bool, str]] | None:
        """See Connector: name and secret, what may be asked, what is told."""
        settings = cast(AtsSettings, loaded.settings)
        return await probe(name, settings.partner, place_of(settings.partner))

    # -- from the exchange ----------------------------------------------------------------------

    async def stay(self) -> None:
        """Be connected to the exchange, again and again."""
        try:
            self._hearing.open()
        except OSError as error:
            path = self.settings.live_calls_file
            raise StartError(f"{path}: {error.strerror}") from None
        await super().stay()

    async def _keep_house(self) -> None:
        """Forget calls whose end is on the router's disk; tell the figures of each group."""
        next_s = time.monotonic() + self.settings.statistics_s
        while True:
            await asyncio.sleep(HOUSEKEEPING_S)
            self._hearing.keep_house()
            if time.monotonic() >= next_s:
                next_s = max(next_s + self.settings.statistics_s, time.monotonic())
                self._hearing.tell_groups(self.settings.threshold_s)

    def waiting(self) -> int:
        """Return what waits for the bus, of what the exchange told, too."""
        return self._hearing.unsent.waiting + super().waiting()

    def set_aside(self) -> int:
        """Return how many events the bus refused for good, and what else was set aside."""
        hearing = self._hearing
        return hearing.outbox.dropped + hearing.unsent.dropped + super().set_aside()

    # -- to the exchange ------------------------------------------------------------------------

    async def join_card(self, card: _Card, _: Delivery) -> str | None:
        """Remember the number of a card; return the call that it came of."""
        caller = card.contact.caller if card.contact else None
        if caller is None or not caller.phone:
            return None
        return self._hearing.join_card(caller.phone, card.id112)

    async def dial(self, request: schemas.DialRequest, delivery: Delivery) -> str:
        """Dialled at most once: when the line breaks off meanwhile, nobody's telephone rings again
        and the result says so. Raises Retry."""
        result, reason = "unknown", None
        if delivery.attempt == 1 or delivery.key in self._put_off:
            session = self._line.session
            if session is None:
                self._put_off.add(delivery.key)
                raise Retry(coded("ats.away"))
            self._put_off.discard(delivery.key)
            self._hearing.calls.expect(
                delivery.key, request.operator, request.number, request.id112
            )
            result, reason = await originate(
                session, self._hearing.calls, delivery.key, request, self.settings
            )
        body = {
            "request_id": delivery.message.id, "operator": request.operator, "result": result,
            "reason": reason, "id112": request.id112, "at": datetime.now(UTC),
        }  # fmt: skip
        id = message_id("telephony.dialled.v1", delivery.message.id)
        answer = msgspec.convert(body, schemas.DialResult)
        # On the router's disk before the request is settled: nobody would tell it again.
        await self.bus.publish(
            telling.message(self.name, "telephony.dialled.v1", id, delivery.message.subject, answer)
        )
        return result

    async def close(self) -> None:
        """Let what was told reach the bus, for a moment; then let go of the exchange."""
        await self._hearing.finish(FAREWELL_S)
        await super().close()


def place_of(partner: PartnerSettings) -> tuple[str, int]:
    """Return host and port of an exchange."""
    where = urlsplit(partner.url)
    return where.hostname or "", where.port or PORTS[where.scheme]


def _line(settings: AtsSettings, partner: Partner, hearing: Hearing) -> Line:
    user, secret = credentials(settings.partner.credentials_file)
    where, who = place_of(settings.partner), (user or "", secret or "")
    return Line(partner, settings.partner, where, who, hearing, settings.ping_s)
