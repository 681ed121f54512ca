"""The connector of an ambulance system that talks to the bus through tables of its own database."""

import asyncio
import math
import time
from typing import Annotated, Any, ClassVar, Final, cast

import msgspec

from connectors.partners.smpsql.database import (
    Address,
    BadData,
    Database,
    DatabaseAway,
    NotTaken,
    place,
)
from connectors.partners.smpsql.delivering import Deliverer
from connectors.partners.smpsql.probing import probe
from connectors.partners.smpsql.publishing import Publisher
from connectors.partners.smpsql.tables import OUTBOX_CHANNEL, Inbox, Outbox, greet
from connectors.runtime.bus.connector import Connector
from connectors.runtime.bus.settings import ConnectorSettings, Listen, Loaded
from connectors.runtime.bus.taking import ANY
from connectors.runtime.log import LOG
from connectors.runtime.partner.partner import PartnerSettings
from connectors.runtime.words import id_of
from proto.client import BusClient, Delivery, Reject, Retry
from proto.note import coded
from proto.pattern import exactly
from proto.wording import in_words, text

PRUNE_ROWS: Final = 1000
KEEP_HOURS_MIN: Final = 72
PRUNE_PAUSE_S: Final = 0.2
LISTEN_AGAIN_S: Final = 2.0
URL: Final = r"postgres(?:ql)?://[^/@][^@]*"  # no user and no password in it


class PostgresSettings(PartnerSettings, frozen=True, forbid_unknown_fields=True):
    """[connectors.smpsql.partner]: the database, perhaps behind PgBouncer; `credentials_file` holds
    the connector's user:password there. `listen_url` leads to the database itself. On another
    machine it has to show a certificate (`ca_file`) unless the URL ends in ?sslmode=..."""

    url: Annotated[str, msgspec.Meta(pattern=exactly(URL))]
    listen_url: Annotated[str, msgspec.Meta(pattern=exactly(f"(?:{URL})?"))] = ""


class SmpSqlSettings(ConnectorSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[connectors.smpsql]. The outbox is looked into every `poll_s`, `batch_rows` at a time. What
    ended `keep_hours` ago (`retention.sql_days` where it is unset) is deleted, every `prune_s`:
    never sooner than the bus forgets repeats (store.dedup_hours), or one of them would be put into
    the inbox as a new one."""

    partner: PostgresSettings
    listen: Listen = "127.0.0.1:7124"
    credit: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 500
    body_bytes_max: Annotated[int, msgspec.Meta(ge=1024, le=8 * 1024 * 1024)] = 1024 * 1024
    poll_s: Annotated[float, msgspec.Meta(ge=0.01, le=60)] = 0.5
    batch_rows: Annotated[int, msgspec.Meta(ge=1, le=4096)] = 500
    keep_hours: Annotated[int, msgspec.Meta(ge=KEEP_HOURS_MIN, le=24 * 3660)] | None = None
    prune_s: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = 600.0


class SmpSqlConnector(Connector):
    """See the module; README.md has the tables, and how both ways are made safe."""

    Settings: ClassVar = SmpSqlSettings
    takes: ClassVar = {ANY: (bytes, "store")}
    runs: ClassVar = ("_publisher.run", "_prune_again", "_listen_again")
    owns: ClassVar = ("_deliverer", "_out", "_in")
    settings: SmpSqlSettings

    def __init__(self, name: str, settings: ConnectorSettings, bus: BusClient) -> None:
        super().__init__(name, settings, bus)
        mine = self.settings
        self._failing: set[str] = set()
        self._answers = {""}  # what this outage was told as; that nothing answers is told first
        self._deaf = False
        address = _address(mine.partner, mine.partner.url)
        self._out = Database(address, mine.partner.timeout_s, greet)
        self._in = Database(address, mine.partner.timeout_s, greet)
        self._outbox = Outbox(self._out)
        self._publisher = Publisher(
            self._outbox,
            bus,
            self.door,
            rows_max=mine.batch_rows,
            body_max=mine.body_bytes_max,
            poll_s=mine.poll_s,
            failed=lambda answer: self._failed("outbox", answer),
            succeeded=lambda: self._succeeded("outbox"),
        )
        self._deliverer = Deliverer(
            Inbox(self._in),
            failed=lambda answer: self._failed("inbox", answer),
            succeeded=lambda: self._succeeded("inbox"),
        )

    # -- the two ways ---------------------------------------------------------------------------

    async def store(self, _: bytes, delivery: Delivery) -> str:
        """Put a delivery into the inbox. Raises Retry or Reject."""
        try:
            await self._deliverer.put(delivery)
        except DatabaseAway as away:
            why = away.answer or coded("smpsql.silent")
            raise Retry(coded("connector.no_answer", why=why)) from None
        except NotTaken as refused:  # the vendor may mend his rule meanwhile: tried as often as any
            LOG.error(text("smpsql.not_taken", id=id_of(delivery.message.id), state=refused))
            raise Retry(f"SQLSTATE {refused}") from None
        except BadData:
            raise Reject(coded("smpsql.bad_body")) from None
        return coded("smpsql.stored")

    @staticmethod
    def keep_hours_of(settings: SmpSqlSettings) -> int:
        """Return for how long rows that have ended are kept."""
        if settings.keep_hours is not None:
            return settings.keep_hours
        return max(KEEP_HOURS_MIN, math.ceil(settings.retention.sql_days * 24))

    async def _prune_again(self) -> None:
        """Delete in small steps what ended long ago. The first pause lets the router bring first
        what we did not settle before a stop, however long ago that was."""
        kept = self.keep_hours_of(self.settings)
        while True:
            await asyncio.sleep(self.settings.prune_s)
            gone = 1
            while gone:
                try:
                    gone = await self._outbox.prune(kept, PRUNE_ROWS)
                except (DatabaseAway, BadData, NotTaken):  # the publisher tells
                    gone = 0
                await asyncio.sleep(PRUNE_PAUSE_S)

    async def _listen_again(self) -> None:
        """Hear of new rows at once, where there is a way to; polling goes on beside it."""
        partner = self.settings.partner
        if not partner.listen_url:
            return
        ear = Database(_address(partner, partner.listen_url), partner.timeout_s)
        while True:
            try:
                await ear.listen(OUTBOX_CHANNEL, self._hear, self._publisher.wake)
            except (DatabaseAway, BadData, NotTaken):
                if not self._deaf:
                    LOG.warning(text("smpsql.deaf", seconds=f"{self.settings.poll_s:g}"))
                self._deaf = True
            await asyncio.sleep(LISTEN_AGAIN_S)

    def _hear(self) -> None:
        if self._deaf:
            LOG.info(text("smpsql.hears"))
        self._deaf = False
        self._publisher.wake()

    # -- what it tells --------------------------------------------------------------------------

    def _failed(self, way: str, answer: str) -> float:
        self._failing.add(way)
        outage = self.partner.outage
        if outage.count and answer not in self._answers:  # it is back, and wrong in another way
            told = {"host": outage.host, "system": outage.system, "answer": in_words(answer)}
            LOG.error(text("connector.unready", **told))
        self._answers.add(answer)
        self.partner.failed(answer)
        return self.partner.breaker.wait_s(time.monotonic())

    def _succeeded(self, way: str) -> None:
        """Both ways have to go: a full disk can be read, and an outage is told once."""
        self._failing.discard(way)
        if not self._failing:
            self._answers = {""}
            self.partner.succeeded()

    def figures(self) -> dict[str, Any]:
        """Return what went either way since the start of this process."""
        return {
            "accepted": self._publisher.accepted,
            "refused": self._publisher.refused,
            "delivered": self._deliverer.inserted,
            "repeats": self._deliverer.repeats,
        }

    @classmethod
    async def probe(cls, name: str, loaded: Loaded) -> list[tuple[bool, str]]:
        """See Connector: the database, our schema and rights in it, whether it can be heard."""
        partner = cast(SmpSqlSettings, loaded.settings).partner
        database = Database(_address(partner, partner.url), partner.timeout_s, greet)
        ear = None
        if partner.listen_url:
            ear = Database(_address(partner, partner.listen_url), partner.timeout_s)
        return await probe(database, partner.url, ear, partner.listen_url)


def _address(partner: PostgresSettings, url: str) -> Address:
    address = Address(
        url,
        partner.credentials_file,
        connect_s=partner.connect_timeout_s,
        ca_file=partner.ca_file,
        certificate=partner.client_certificate_file,
        key=partner.client_key_file,
    )
    if mode := address.unverified:
        LOG.warning(text("smpsql.unverified", place=place(url), mode=mode))
    return address
