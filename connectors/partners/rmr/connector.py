"""The connector of the register of medical workers: loads it, and answers who somebody is."""

import sqlite3
import time
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final

import msgspec

from connectors.partners.rmr import contract, mapping
from connectors.partners.rmr.load import Load
from connectors.partners.rmr.progress import Progress
from connectors.partners.rmr.register import Register
from connectors.runtime.bus.connector import Connector
from connectors.runtime.bus.ingress import REJECTED, NotAccepted
from connectors.runtime.bus.settings import ConnectorSettings, Listen
from connectors.runtime.door.body import BadInput
from connectors.runtime.log import LOG
from connectors.runtime.partner.partner import Partner, PartnerSettings
from connectors.runtime.statefile import StateAway
from connectors.runtime.words import reason_of
from connectors.services.lookup import WORKER, CodeList, Lookup, LookupSettings
from connectors.services.nsi import CodeLists, NsiClient, NsiSettings
from proto import schemas
from proto.client import BusClient, Delivery, Reject, Retry
from proto.errors import Code, RequestFailed
from proto.note import coded
from proto.wording import text

LISTS: Final = (mapping.POSTS, mapping.SPECIALITIES)


class RmrSettings(ConnectorSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[connectors.rmr]. What changed is asked for every `poll_s` seconds, everything every
    `full_every_s`; `state_file` remembers how far a load has come, and one call of it may take
    `state_timeout_s`."""

    partner: PartnerSettings
    listen: Listen = "127.0.0.1:7116"
    state_file: Path = Path("/var/lib/smpbus/rmr/register.db")
    state_timeout_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 60.0
    poll_s: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = 60.0
    full_every_s: Annotated[float, msgspec.Meta(gt=0)] = 86_400.0
    page_size: Annotated[int, msgspec.Meta(ge=1, le=1000)] = 200
    pause_s: Annotated[float, msgspec.Meta(gt=0, le=30)] = 1.0
    lookup: LookupSettings = LookupSettings()
    nsi: NsiSettings | None = None


class RmrConnector(Connector):
    """See the module; the contract is `connectors.partners.rmr.contract`."""

    Settings: ClassVar = RmrSettings
    takes: ClassVar = {"worker.load.v1": (schemas.WorkerLoad, "want_load")}
    answers: ClassVar = {"worker.lookup.v1": (schemas.WorkerQuestion, "worker")}
    publishes: ClassVar = ("worker.changed.v1", "worker.removed.v1", REJECTED)
    asked_is: ClassVar = "the register"
    owns: ClassVar = ("lookup", "_nsi", "progress")
    settings: RmrSettings

    def __init__(self, name: str, settings: RmrSettings, bus: BusClient) -> None:
        """Raises StartError."""
        super().__init__(name, settings, bus)
        self.poll_s = settings.poll_s
        self.lookup = Lookup(settings.lookup)
        self.progress = Progress(settings.state_file)
        self._nsi = None if settings.nsi is None else NsiClient(settings.nsi)
        self._lists = None if self._nsi is None else CodeLists(self.lookup, self._nsi)
        self._register = Register(self.partner, settings.page_size, settings.pause_s)
        self.load = Load(
            self._register,
            self.progress,
            self.ingress,
            self.lookup,
            self._names,
            settings.state_timeout_s,
        )
        self._held: dict[str, CodeList] = {}
        self._told = ""

    # -- loading --------------------------------------------------------------------------------

    async def poll(self) -> None:
        """Load what is due. What stopped a load is told once, not at every try."""
        if self.partner.breaker.wait_s(time.monotonic()):
            return
        try:
            await self._load_due()
        except (Retry, Reject) as stop:
            self._tell(reason_of(stop))
        except NotAccepted as stop:
            self._tell(stop.code)
        except sqlite3.Error:
            self._tell(text("note.connector.state_away"))
        else:
            self._told = ""

    async def _load_due(self) -> None:
        position = self.progress.position
        overdue = time.time() - position.full_at >= self.settings.full_every_s
        if position.loading or self.progress.wanted or position.since is None or overdue:
            await self.load.full()
        await self.load.changes()

    def _tell(self, why: str) -> None:
        if why != self._told:
            position = self.progress.position
            told = text("rmr.stopped", why=why, loaded=position.loaded, total=position.total)
            LOG.warning(told)
        self._told = why

    async def _names(self) -> mapping.Name:
        """Return the names of codes as НСИ has them; a load does not wait for НСИ to come back."""
        if self._lists is not None:
            for oid in LISTS:
                try:
                    self._held[oid] = await self._lists.get(oid)
                except (Retry, Reject) as error:
                    LOG.warning(text("rmr.no_names", oid=oid, why=reason_of(error)))
        return self._name

    def _name(self, oid: str, code: str) -> str | None:
        found = self._held.get(oid)
        return None if found is None else found.name_of(code)

    # -- from the bus ---------------------------------------------------------------------------

    async def want_load(self, wish: schemas.WorkerLoad, _: Delivery) -> str:
        """Take the administrator's wish for a load. Raises Retry."""
        if wish.full:
            try:
                await self.load.want_full()
            except sqlite3.Error:
                raise StateAway from None
        return coded("rmr.wanted", seconds=f"{self.settings.poll_s:g}")

    async def worker(self, asked: schemas.WorkerQuestion) -> dict[str, Any]:
        """Return {"worker": the worker, or null}. Raises RequestFailed, Retry or Reject."""
        if (asked.id is None) == (asked.snils is None):
            raise RequestFailed(Code.BAD_MESSAGE, "name either id or snils")
        question = ("id", asked.id or "") if asked.snils is None else ("snils", asked.snils)
        return {"worker": await self.lookup.get(WORKER, question, partial(self._find, asked))}

    async def _find(self, asked: schemas.WorkerQuestion) -> schemas.Worker | None:
        question = contract.Question(id=asked.id, snils=asked.snils)
        raw = await self._register.find(question)
        if raw is None:
            return None
        try:
            worker = mapping.worker_in(raw, self._name)
        except BadInput as bad:
            raise Reject(f"{bad.path}: {bad.rule}") from None
        if worker.id != asked.id and worker.snils != asked.snils:
            raise Retry(coded("rmr.another"))
        return worker

    # -- figures --------------------------------------------------------------------------------

    def figures(self) -> dict[str, Any]:
        """Return the counters of lookups and of loads."""
        position = self.progress.position
        load = {
            "running": position.loading,
            "loaded": position.loaded,
            "total": position.total,
            "full_at": position.full_at,
            "published": self.load.published,
            "refused": self.load.refused,
        }
        return {"load": load, "lookup": self.lookup.figures()}

    def partners(self) -> list[Partner]:
        """Return the register, and НСИ when it is asked for names."""
        return [self.partner] if self._nsi is None else [self.partner, self._nsi.partner]
