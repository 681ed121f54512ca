"""The ambulance system played by a program: a dispatcher and brigades who live each call.

    POST /smp/calls            a card: creates or corrects the call, once per idempotency key
    POST /smp/cancellations    the end of a card: cancels its call
    POST /smp/external/...     the same two, of calls that outside services hand in
    POST /smp/telephony/...    what the exchange tells: counted
    POST /smp/transfers, hospital/..., visits, documents, registers
                               what other systems tell: kept by call
    GET  /ledger               calls, and what was applied
    POST /drive                {"pull": true}: fetch all this from the connector's queue instead
    POST /faults               switches of connectors.simulators.kit.faults

From each call come its ticket and its statuses, in order, posted to the connector until taken.
"""

import asyncio
import contextlib
import random
import uuid
from collections import Counter, defaultdict
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.partners.smp.contract import CallReply
from connectors.runtime.door.body import BadInput, decode, read_body
from connectors.simulators.kit.faults import FaultyApp
from connectors.simulators.kit.ledger import Ledger
from connectors.simulators.kit.simulation import Courier, SimulatorSettings, closing, spawn
from connectors.simulators.smp.care import Care
from connectors.simulators.smp.outside import card_of
from connectors.simulators.smp.puller import Puller
from proto import clinical, schemas
from proto.external import ExternalCall, ExternalCancelled
from proto.message import now_ms

BYTES_MAX: Final = 8 * 1024 * 1024
LIFE: Final[tuple[schemas.StatusCode, ...]] = (
    "received",
    "assigned",
    "accepted",
    "departed",
    "arrived",
    "transport_started",
    "at_hospital",
    "finished",
    "returned",
)
ON_PLACE: Final = frozenset({"transport_started", "at_hospital"})
TELEPHONY: Final[dict[str, type[schemas.Body]]] = {
    "calls": schemas.TelephonyCall,
    "joined": schemas.TelephonyJoined,
    "operators": schemas.OperatorState,
    "groups": schemas.GroupStatistics,
    "dialled": schemas.DialResult,
}
HEARD: Final[dict[str, type[schemas.Body]]] = {
    "transfers": clinical.TransferState,
    "hospital/bookings": clinical.BedState,
    "hospital/outcomes": clinical.HospitalOutcome,
    "visits": clinical.VisitState,
    "documents": clinical.DocumentState,
    "registers": clinical.RegisterState,
}
NAMESPACE: Final = uuid.UUID("6f1d3f0e-1120-5d8a-9c51-000000000103")


@dataclass
class Call:
    """One call of the ambulance; `cards` are the cards of System-112 tied to it, `changed` says
    how new the newest of each is, `external` is the outside service's call that it began as."""

    number: int
    card: schemas.IncidentCard
    cards: list[str]
    brigade: str
    received_at: datetime
    status: schemas.StatusCode = "received"
    version: int = 1
    cancelled: bool = False
    changed: dict[str, datetime] = field(default_factory=dict)
    events: list[str] = field(default_factory=list)
    history: list[schemas.StatusEvent] = field(default_factory=list)
    care: Care | None = None
    external: str | None = None

    @property
    def id(self) -> str:
        """YEAR-NUMBER of the call."""
        return f"{self.received_at.year}-{self.number}"

    @property
    def id112(self) -> str | None:
        """The first card of System-112, if there is any."""
        return self.cards[0] if self.cards else None


class Ambulance:
    """The state of the simulated ambulance system."""

    def __init__(self, settings: SimulatorSettings) -> None:
        self.settings = settings
        self.ledger = Ledger(settings.ledger)
        self.courier = Courier(settings)
        self.workers: dict[str, dict[str, Any]] = {}
        self.calls: dict[str, Call] = {}  # by Id112; tied cards share one call
        self._early: dict[str, Call] = {}  # by the Id112 that their card is a repeat of
        self.refused: list[dict[str, Any]] = []
        self.told: Counter[str] = Counter()  # of the exchange, by kind
        self.told_of: defaultdict[str, list[str]] = defaultdict(list)  # by call
        self._heard: set[str] = set()
        made = [entry["call_id"] for entry in self.ledger.entries if entry.get("call_id")]
        self._numbers = max((int(one.rpartition("-")[2]) for one in made), default=0)
        self._random = random.Random(settings.seed)
        self.tasks: set[asyncio.Task[None]] = set()
        self.pulling: asyncio.Task[None] | None = None

    def apply(self, key: str, shape: type[schemas.Body], body: bytes) -> tuple[int, Any]:
        """Apply a card or a cancellation; the same key again changes nothing. Raises BadInput."""
        if not key:
            raise BadInput("Idempotency-Key", "is required")
        if known := self.ledger.answer_of(key):
            return known
        given = decode(body, shape)
        if isinstance(given, schemas.Worker | schemas.WorkerRemoved):
            return self._take_worker(key, given)
        match given:
            case schemas.IncidentCard(id112=id112):
                reply = self._take_card(given)
            case schemas.IncidentCancelled(id112=id112):
                reply = self._end(id112, given.kind)
            case ExternalCall(external=id112):
                reply = self._take_outside(given)
            case ExternalCancelled(external=id112):
                reply = self._end(f"ext-{id112}", "cancelled")
            case (
                clinical.TransferState()
                | clinical.BedState()
                | clinical.HospitalOutcome()
                | clinical.VisitState()
                | clinical.DocumentState()
                | clinical.RegisterState()
            ):
                return self._hear(key, given)
            case _:  # what the exchange tells is only shown to the dispatchers
                self.told[shape.__name__] += 1
                return 200, CallReply("done")
        entry: dict[str, Any] = {"operation": shape.__name__, "id112": id112}
        entry |= {"outcome": reply.outcome, "call_id": reply.call_id, "taken_ms": now_ms()}
        status = 201 if reply.outcome == "created" else 200
        answer = msgspec.to_builtins(reply)
        self.ledger.record(key, entry, status, answer)
        return status, answer

    def _hear(self, key: str, given: Any) -> tuple[int, Any]:
        """Another system told what became of something: once each, whoever repeats it."""
        answer = msgspec.to_builtins(CallReply("done", given.call_id))
        said = getattr(given, "state", "admitted")
        what = getattr(given, "register", None) or getattr(given, "kind", "-")
        entry = {"operation": type(given).__name__, "call": given.call_id, "what": what}
        if given.event_id not in self._heard:
            self._heard.add(given.event_id)
            self.told_of[given.call_id].append(f"{type(given).__name__} {what} {said}")
        self.ledger.record(key, entry | {"said": said}, 200, answer)
        return 200, answer

    def _take_worker(
        self, key: str, given: schemas.Worker | schemas.WorkerRemoved
    ) -> tuple[int, Any]:
        if isinstance(given, schemas.Worker):
            self.workers[given.id] = msgspec.to_builtins(given)
        else:
            self.workers.pop(given.id, None)
        answer = msgspec.to_builtins(CallReply("done"))
        self.ledger.record(key, {"operation": type(given).__name__, "id": given.id}, 200, answer)
        return 200, answer

    def _take_card(self, card: schemas.IncidentCard) -> CallReply:
        call = self.calls.get(card.id112)
        if call is not None:
            if card.changed_at < call.changed[card.id112]:
                return _reply("older", call)
            call.card = card
            call.changed[card.id112] = card.changed_at
            call.version += 1
            self._spawn(self._bring_ticket(call))
            return _reply("updated", call)
        # Two cards are two subjects: the card of a repeat call may come before the first one.
        kin = self.calls.get(card.repeat_of or "") or self._early.get(card.id112)
        if kin is not None:
            kin.cards.append(card.id112)
            kin.changed[card.id112] = card.changed_at
            self.calls[card.id112] = kin
            return _reply("tied", kin)
        return self._create(card)

    def _create(self, card: schemas.IncidentCard) -> CallReply:
        self._numbers += 1
        brigade = str(self._random.randint(1, 60))
        call = Call(self._numbers, card, [card.id112], brigade, datetime.now(UTC))
        call.changed[card.id112] = card.changed_at
        self.calls[card.id112] = call
        if card.repeat_of:
            self._early[card.repeat_of] = call
        self._spawn(self._live(call))
        return _reply("created", call)

    def _take_outside(self, outside: ExternalCall) -> CallReply:
        known = self.calls.get(f"ext-{outside.external}")
        if known is not None:
            return _reply("updated", known)
        self._numbers += 1
        brigade = str(self._random.randint(1, 60))
        call = Call(self._numbers, card_of(outside), [], brigade, datetime.now(UTC))
        call.external = outside.external
        self.calls[f"ext-{outside.external}"] = call
        self._spawn(self._live(call))
        return _reply("created", call)

    def _end(self, id: str, kind: str) -> CallReply:
        call = self.calls.get(id)
        if call is None:
            return CallReply("unknown")
        if kind == "closed" or call.status in ("finished", "returned"):
            return _reply("done", call)
        call.cancelled = True
        return _reply("cancelled", call)

    async def _live(self, call: Call) -> None:
        call.care = Care(call.number, self.settings.seed, self.courier, self._bring)
        await self._bring_ticket(call)
        await call.care.identify()
        stays = self._random.random() < 0.4  # helped on the spot, nobody is taken to hospital
        for code in LIFE:
            if stays and code in ON_PLACE:
                continue
            if call.cancelled:
                await self._happen(call, "cancelled")
                return
            await self._happen(call, code)
            await self._care(call, call.care, code)
            await asyncio.sleep(self.settings.pace_s * self._random.uniform(0.5, 1.5))

    async def _care(self, call: Call, care: Care, code: schemas.StatusCode) -> None:
        about = {"call_id": call.id, "id112": call.id112, "brigade": call.brigade}
        if code == "transport_started":
            await care.find_bed(about)
        elif code == "finished":
            call.version += 1
            await care.write_card(msgspec.to_builtins(self._ticket(call)))
            if care.hospital is None:
                await care.ask_visit(about, call.card.address)

    async def _happen(self, call: Call, code: schemas.StatusCode) -> None:
        call.status = code
        now = datetime.now(UTC)
        event: dict[str, Any] = {
            "event_id": str(uuid.uuid5(NAMESPACE, f"{call.id}/{call.card.id112}/{code}")),
            "call_id": call.id,
            "code": code,
            "occurred_at": now,
            "recorded_at": now,
            "id112": list(call.cards),
            "operator": {"login": "disp-1", "name": "Диспетчер 1"},
        }
        if code != "received":
            event["brigade"] = {"id": call.brigade, "name": f"Бригада {call.brigade}"}
        if call.external is not None:
            event["external"] = call.external
        call.events.append(code)
        call.history.append(msgspec.convert(event | {"id112": call.id112}, schemas.StatusEvent))
        await self._bring("/bus/status", event)

    async def _bring_ticket(self, call: Call) -> None:
        await self._bring("/bus/tickets", self._ticket(call))

    def _ticket(self, call: Call) -> schemas.CallTicket:
        caller = call.card.contact.caller if call.card.contact else None
        return schemas.CallTicket(
            id=call.id,
            number_day=call.number,
            number_year=call.number,
            received_at=call.received_at,
            status=call.status,
            urgency=1 if call.card.danger else 2,
            reason=call.card.incident_type,
            caller=caller,
            address=call.card.address,
            patients=call.card.patients,
            source=schemas.TicketSource(
                system="external" if call.external else "112", id112=list(call.cards)
            ),
            brigades=[schemas.Brigade(id=call.brigade, name=f"Бригада {call.brigade}")],
            events=call.history,
            version=call.version,
            changed_at=datetime.now(UTC),
        )

    async def _bring(self, path: str, body: Any) -> None:
        answer = await self.courier.bring("POST", path, msgspec.json.encode(body))
        if answer.status >= 300:
            self.refused.append({"path": path, "status": answer.status})

    def _spawn(self, work: Any) -> None:
        if not self.settings.connector_url:
            work.close()
            return
        spawn(self.tasks, work)

    def pull(self) -> None:
        """Fetch messages from the connector's queue from now on."""
        if self.pulling is None:
            self.pulling = asyncio.create_task(Puller(self.courier, self.apply).run())

    async def close(self) -> None:
        """Fetch no more."""
        if self.pulling is not None:
            self.pulling.cancel()
            await asyncio.gather(self.pulling, return_exceptions=True)

    def report(self) -> dict[str, Any]:
        """Return calls, what was applied, and counters."""
        calls = {id(call): call for call in self.calls.values()}.values()
        return {
            "entries": self.ledger.entries,
            "repeats": self.ledger.repeats,
            "calls": [
                {
                    "id": call.id,
                    "cards": call.cards,
                    "external": call.external,
                    "status": call.status,
                    "events": call.events,
                    "version": call.version,
                    "changed": call.changed,
                    "description": call.card.description,
                    "ill": call.care.ill[0] if call.care else None,
                    "hospital": call.care.hospital if call.care else None,
                    "insured": call.care.insured if call.care else False,
                    "patient": call.care.patient if call.care else None,
                    "told": self.told_of[call.id],
                }
                for call in calls
            ],
            "workers": self.workers,
            "refused": self.refused,
            "told": self.told,
            "living": len(self.tasks),
            "posts_repeated": self.courier.repeats,
        }


def _reply(outcome: Any, call: Call) -> CallReply:
    return CallReply(outcome, call.id, call.number, call.number)


def create_app(settings: SimulatorSettings) -> FaultyApp:
    """Return the simulator's ASGI app."""
    ambulance = Ambulance(settings)

    def endpoint(shape: type[schemas.Body]) -> Any:
        async def take(request: Request) -> Response:
            key = request.headers.get("idempotency-key", "")
            try:
                body = await read_body(request, BYTES_MAX)
                status, answer = ambulance.apply(key, shape, body)
            except BadInput as bad:
                status, answer = 400, {"path": bad.path, "sentence": bad.sentence}
            return Response(msgspec.json.encode(answer), status, media_type="application/json")

        return take

    async def ledger(_: Request) -> Response:
        return Response(msgspec.json.encode(ambulance.report()), media_type="application/json")

    async def drive(request: Request) -> Response:
        if msgspec.json.decode(await request.body()).get("pull"):
            ambulance.pull()
        return Response(status_code=202)

    routes = [
        Route("/smp/calls", endpoint(schemas.IncidentCard), methods=["POST"]),
        Route("/smp/cancellations", endpoint(schemas.IncidentCancelled), methods=["POST"]),
        *(
            Route(f"/smp/telephony/{name}", endpoint(shape), methods=["POST"])
            for name, shape in TELEPHONY.items()
        ),
        *(
            Route(f"/smp/{name}", endpoint(shape), methods=["POST"])
            for name, shape in HEARD.items()
        ),
        Route("/smp/workers", endpoint(schemas.Worker), methods=["POST"]),
        Route("/smp/workers/removals", endpoint(schemas.WorkerRemoved), methods=["POST"]),
        Route("/smp/external/calls", endpoint(ExternalCall), methods=["POST"]),
        Route("/smp/external/cancellations", endpoint(ExternalCancelled), methods=["POST"]),
        Route("/ledger", ledger),
        Route("/drive", drive, methods=["POST"]),
        ambulance.ledger.page(),
    ]
    closes = closing(ambulance.tasks, ambulance.courier)

    @contextlib.asynccontextmanager
    async def lifespan(app: Starlette) -> AsyncIterator[None]:
        async with closes(app):
            yield
            await ambulance.close()

    return FaultyApp(Starlette(routes=routes, lifespan=lifespan), settings.faults)
