"""The connector of the ambulance system."""

from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal, cast

import msgspec
from starlette.routing import Route

from connectors.partners.smp import contract
from connectors.partners.smp.doors import POSTED, SCOPES, describe
from connectors.partners.smp.making import Maker
from connectors.partners.smp.questions import Questions
from connectors.partners.smp.queue import Queue
from connectors.partners.smp.queuedoor import QueueDoor
from connectors.runtime.bus.connector import Connector
from connectors.runtime.bus.settings import ConnectorSettings, Listen, Loaded, SessionSettings
from connectors.runtime.bus.taking import ANY, Takes
from connectors.runtime.door.body import without_mark
from connectors.runtime.door.claims import Namespace
from connectors.runtime.door.doorsettings import CallerSettings
from connectors.runtime.door.openapi import DOCUMENT, PAGE
from connectors.runtime.door.served import Came, Served
from connectors.runtime.partner.partner import Answer, BadReply, PartnerSettings
from connectors.runtime.partner.window import Window
from proto.client import BusClient, Delivery, Reject
from proto.configuration.questions import BUILT_IN
from proto.message import UNREADABLE, Message, now_ms
from proto.nesting import decode_json
from proto.note import coded
from proto.wording import text


class SmpSettings(ConnectorSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[connectors.smp]. With `clinical` off the ambulance's tickets, call cards, beds and visits
    are taken and go nowhere: for a region whose hospitals' system is not on the bus yet. A question
    of the ambulance is answered within `question_timeout_s`, by whom `questions` say. A card that
    took longer than `card_within_s` from System-112 to the ambulance is counted (docs/domain.md
    4.3).

    `mode` "push": we post to `partner.url`. "queue": the ambulance receives and commits by itself;
    what it holds comes again after `visibility_s`, and its silence of `quiet_s` is told. A
    `token_file` is one caller, "smp", that may ask everything. `claims_key` holds the secret of the
    ids of what the ambulance posts; the connector makes it, once."""

    partner: PartnerSettings
    listen: Listen = "127.0.0.1:7103"
    clinical: bool = True
    question_timeout_s: Annotated[float, msgspec.Meta(gt=0, le=60)] = 3.0
    card_within_s: Annotated[float, msgspec.Meta(gt=0, le=60)] = 1.0
    mode: Literal["push", "queue"] = "push"
    visibility_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 60.0
    quiet_s: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = 60.0
    questions: dict[str, str] = msgspec.field(default_factory=BUILT_IN.copy)
    token_file: Path | None = None
    claims_key: Path | None = None

    def __post_init__(self) -> None:
        """Name the caller of `token_file`."""
        if self.token_file is not None and not self.callers:
            callers = {"smp": CallerSettings(token_file=self.token_file)}
            msgspec.structs.force_setattr(self, "callers", callers)


class SmpConnector(Connector):
    """See the module; the contract is `connectors.partners.smp.contract`."""

    Settings: ClassVar = SmpSettings
    takes: ClassVar = dict.fromkeys(contract.PATHS, (bytes, "push"))
    serves: ClassVar = {
        f"POST {path}": Served(bytes, "posted", type) for path, type in POSTED.items()
    }
    publishes: ClassVar = (*POSTED.values(), "external.status.v1")
    settings: SmpSettings
    door_scopes: ClassVar = SCOPES
    door_public: ClassVar = frozenset({DOCUMENT, PAGE})

    def __init__(self, name: str, settings: SmpSettings, bus: BusClient) -> None:
        """Raises StartError."""
        super().__init__(name, settings, bus)
        self._cards = Window(settings.card_within_s)
        self._maker = Maker(name, settings.clinical, Namespace.load(settings.claims_key))
        self.queue: Queue | None = None
        if settings.mode == "queue":
            self.queue = Queue(self.system, settings.visibility_s, settings.quiet_s)

    @classmethod
    async def probe(cls, name: str, loaded: Loaded) -> list[tuple[bool, str]] | None:
        """See Connector: who comes by itself has no address."""
        settings = cast(SmpSettings, loaded.settings)
        if settings.mode == "push":
            return None
        system = settings.partner.system or name
        return [(True, text("smp.check_queue", system=system, address=settings.listen))]

    def figures(self) -> dict[str, Any]:
        """Return how long the cards of the last hour took from the door of System-112 to the
        ambulance, its answer included."""
        return {"card_to_dispatcher": self._cards.report()}

    # -- to the ambulance system ----------------------------------------------------------------

    @classmethod
    def taken_with(cls, settings: SessionSettings) -> Takes:
        """See Connector: whatever comes is held for who fetches."""
        held = isinstance(settings, SmpSettings) and settings.mode == "queue"
        return {ANY: (Any, "hold")} if held else cls.takes

    async def handle(self, delivery: Delivery) -> str | None:
        """See Connector: how long a card took is counted."""
        note = await super().handle(delivery)
        if delivery.message.type == "incident.card.v1":
            self._cards.add(max(0, now_ms() - delivery.message.time) / 1000)
        return note

    async def push(self, body: bytes, delivery: Delivery) -> str:
        """Bring a message, byte for byte. Raises Retry or Reject."""
        path = contract.PATHS[delivery.message.type]
        return await self.partner.ask("POST", path, body, delivery.key, noted)

    async def hold(self, _: Any, delivery: Delivery) -> str | None:
        """Hold a message, JSON of any kind, until it is fetched. Raises Retry or Reject."""
        return None if self.queue is None else await self.queue.hold(delivery)

    async def stay(self) -> None:
        """Take back what is fetched and not committed, in the mode that needs it."""
        await (super().stay() if self.queue is None else self.queue.run())

    # -- from the ambulance system --------------------------------------------------------------

    def routes(self) -> list[Route]:
        """Return the routes of questions, of the queue and of what describes the door."""
        return [
            Questions(self.bus, self.settings, self.accesses).route(),
            *QueueDoor(self.door, self._maker, self.queue, self.settings).routes(),
            *describe(self.settings.questions, token=bool(self.settings.callers)).routes(),
        ]

    def posted(self, body: bytes, came: Came) -> list[Message]:
        """Return the messages of one post. Raises BadInput."""
        return self._maker.make(came.operation, body)


def noted(answer: Answer) -> str:
    """Return the note of an answer. Raises BadReply or Reject."""
    if answer.status >= 300:
        raise Reject(f"HTTP {answer.status}")
    try:
        reply = decode_json(without_mark(answer.body), contract.CallReply)
    except UNREADABLE:
        raise BadReply(coded("connector.bad_reply", status=answer.status)) from None
    return f"HTTP {answer.status}, {reply.outcome} {reply.call_id}".strip()
