"""The connector of outside services: their calls go to the ambulance, its statuses come to them."""

from pathlib import Path
from typing import Annotated, ClassVar, Final, cast

import msgspec
from starlette.applications import Starlette

from connectors.partners.external import contract
from connectors.partners.external.clients import ClientName, Clients, ClientSettings
from connectors.partners.external.description import describe
from connectors.partners.external.doors import Doors, no_such_page
from connectors.partners.external.memory import Call, Memory, mark_of, now_s, parts_of
from connectors.runtime.bus.connector import Connector
from connectors.runtime.bus.ingress import REJECTED
from connectors.runtime.bus.settings import DoorSettings, Listen, Loaded
from connectors.runtime.door.door import message_id
from connectors.runtime.door.waiting import Waiting
from proto.client import BusClient, Delivery, Reject
from proto.external import ExternalNotice, ExternalStatus
from proto.message import Message, Priority
from proto.note import coded
from proto.retention import DAY_S
from proto.wording import text

WAITING_MAX: Final = 500


class ExternalSettings(DoorSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[connectors.external]. Each of the `clients` is a partner of its own. `state_file` keeps
    calls and events, `credit` is shared by all webhooks."""

    listen: Listen = "127.0.0.1:7123"
    credit: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 64
    body_bytes_max: Annotated[int, msgspec.Meta(ge=1024)] = 128 * 1024
    state_file: Path = Path("/var/lib/smpbus/external/calls.db")
    clients: dict[ClientName, ClientSettings] = msgspec.field(default_factory=dict)


class ExternalConnector(Connector):
    """See the module; the contract is `connectors.partners.external.contract`."""

    Settings: ClassVar = ExternalSettings
    takes: ClassVar = {
        "external.status.v1": (ExternalStatus, "keep_status"),
        "external.notice.v1": (contract.Notice, "tell_webhook"),
    }
    publishes: ClassVar = (
        "external.call.v1",
        "external.cancelled.v1",
        "external.notice.v1",
        REJECTED,
    )
    owns: ClassVar = ("_clients", "_memory")
    keeps: ClassVar = ("_memory.file",)
    settings: ExternalSettings
    knows_callers: ClassVar = True

    def __init__(self, name: str, settings: ExternalSettings, bus: BusClient) -> None:
        """Raises StartError."""
        super().__init__(name, settings, bus)
        self._clients = Clients(settings.clients, settings.credit)
        self._memory = Memory(settings.state_file, settings.retention.external_days * DAY_S)
        self._waiting = Waiting(WAITING_MAX)

    @classmethod
    async def probe(cls, name: str, loaded: Loaded) -> list[tuple[bool, str]]:
        """See Connector: files are looked at, and nobody is asked: a webhook may be away."""
        settings = cast(ExternalSettings, loaded.settings)
        await Clients(settings.clients, settings.credit).close()
        count = len(settings.clients)
        return [(True, text("external.check", address=settings.listen, count=count))]

    async def stay(self) -> None:
        """Let those who wait for events wait until the connector stops."""
        try:
            await super().stay()
        finally:
            self._waiting.end()

    def forget(self) -> None:
        """See Connector."""
        self._memory.forget()

    @property
    def system(self) -> str:
        """See Connector."""
        return text("external.system")

    # -- to outside services --------------------------------------------------------------------

    async def keep_status(self, status: ExternalStatus, _: Delivery) -> str:
        """Keep an event on the disk. The webhook's turn is a message of its own: while it is away
        the later events can be asked for."""
        call = self._call(status.external)
        event = self._memory.distinct(call.ref, _event(status))
        event = self._memory.note_event(call.ref, event)
        self._waiting.wake(call.ref)
        client = self._clients.named(call.client)
        if client is not None and client.webhook is not None:
            await self.ingress.publish([self._notice(call, event)])
        return coded("external.kept", number=event.number)

    def _notice(self, call: Call, event: contract.Event) -> Message:
        notice = ExternalNotice(
            external=call.ref,
            client=call.client,
            number=call.number,
            event=msgspec.to_builtins(event),
        )
        return Message.new(
            "external.notice.v1",
            self.name,
            notice,
            subject=f"tell-{call.ref}",
            # By what it says, too: of a file that was lost nothing is known of the first of two.
            id=message_id("external.notice.v1", call.ref, event.event_id, mark_of(event)),
            priority=Priority.URGENT,
            correlation_id=call.ref,
        )

    async def tell_webhook(self, notice: contract.Notice, delivery: Delivery) -> str:
        """Tell a client of an event. Raises Retry or Reject."""
        client = self._clients.named(notice.client)
        if client is None or client.webhook is None:
            return coded("external.no_webhook")
        id = notice.external.rpartition("-")[2]
        told = contract.Told(id=id, number=notice.number, event=notice.event)
        return await client.webhook.tell(msgspec.json.encode(told), delivery.key)

    def _call(self, ref: str) -> Call:
        """Return the call of a ref; one whose file was lost is begun anew. Raises Reject."""
        call = self._memory.call(ref)
        if call is not None:
            return call
        parts = parts_of(ref)
        if parts is None or self._clients.named(parts[0]) is None:
            raise Reject(coded("external.unknown"))
        call = Call(ref, *parts, b"", None, now_s(), True, None)
        self._memory.begin(call)
        return call

    # -- from outside services ------------------------------------------------------------------

    def app(self) -> Starlette:
        """Return the server of the API and of what describes it."""
        doors = Doors(
            self.door, self._clients, self._memory, self._waiting, self.name, self.settings
        )
        app = Starlette(
            routes=[*doors.routes(), *describe().routes()],
            exception_handlers={404: no_such_page, 405: no_such_page},
        )
        app.router.redirect_slashes = False  # a stranger is told nothing, not even another address
        return app


def _event(status: ExternalStatus) -> contract.Event:
    """Return what an outside service may know of a status: nothing of persons, nor where they
    are."""
    brigade = status.brigade
    return contract.Event(
        number=0,
        event_id=status.event_id,
        code=status.code,
        occurred_at=status.occurred_at,
        recorded_at=status.recorded_at,
        call_id=status.call_id,
        brigade=contract.EventBrigade(brigade.id, brigade.name) if brigade else None,
        supersedes=status.supersedes,
    )
