"""An outside service played by a program: hands in calls, and follows them both ways.

POST /webhook   the events of its calls, signed; applied once per idempotency key
GET  /ledger    its calls with their events by webhook and by asking, and what was out of order
POST /drive     {"token", "secret", "count", "poll", "cancel"}: hand in so many made-up calls;
                with `poll` ask for their events, and cancel the first `cancel` of them
POST /faults    switches of connectors.simulators.kit.faults
"""

import asyncio
import time
from collections import defaultdict
from datetime import UTC, datetime
from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.partners.external import contract
from connectors.partners.external.webhook import is_signed
from connectors.runtime.door.body import BadInput, decode, read_body
from connectors.simulators.kit.faults import FaultyApp
from connectors.simulators.kit.ledger import Ledger
from connectors.simulators.kit.people import STREET
from connectors.simulators.kit.simulation import Courier, SimulatorSettings, closing, spawn

BYTES_MAX: Final = 1024 * 1024


class Drive(msgspec.Struct, frozen=True):
    """What the service is to do; `secret` is that of its webhook."""

    token: str
    secret: str = ""
    count: int = 1
    poll: bool = False
    cancel: int = 0


class Platform:
    """The state of the simulated service."""

    def __init__(self, settings: SimulatorSettings) -> None:
        self.settings = settings
        self.ledger = Ledger(settings.ledger)
        self.courier = Courier(settings)
        self.calls: dict[str, str] = {}  # the service's own number -> the bus's id
        self.asked: defaultdict[str, list[str]] = defaultdict(list)  # by id: codes of events
        self.refused: list[dict[str, Any]] = []
        self.disorder: list[str] = []
        self.secret = b""
        self.tasks: set[asyncio.Task[None]] = set()
        self._numbers = 0
        self._last: defaultdict[str, int] = defaultdict(int)

    def drive(self, drive: Drive) -> None:
        """Hand in calls in the background."""
        self.secret = drive.secret.encode() or self.secret
        for index in range(drive.count):
            self._numbers += 1
            work = self._live(self._numbers, drive, cancels=index < drive.cancel)
            spawn(self.tasks, work)

    async def _live(self, number: int, drive: Drive, *, cancels: bool) -> None:
        signed_in = {"authorization": f"Bearer {drive.token}"}
        key = {"idempotency-key": f"call-{self.settings.seed}-{number}"}
        body = msgspec.json.encode(_call(number))
        answer = await self.courier.bring("POST", "/external/calls", body, signed_in | key)
        if answer.status != 201:
            self.refused.append({"number": number, "status": answer.status})
            return
        id = decode(answer.body, contract.CallView).id
        self.calls[f"K-{number}"] = id
        path = f"/external/calls/{id}"
        if cancels:
            answer = await self.courier.bring("POST", f"{path}/cancel", b"{}", signed_in)
            if answer.status not in (202, 409):  # the ambulance was quicker
                self.refused.append({"number": number, "status": answer.status})
        if drive.poll:
            await self._follow(id, path, signed_in)

    async def _follow(self, id: str, path: str, signed_in: dict[str, str]) -> None:
        after = 0
        while not {"returned", "cancelled", "refused"} & set(self.asked[id]):
            query = f"{path}/events?after={after}&wait_s=5"
            answer = await self.courier.bring("GET", query, b"", signed_in)
            if answer.status != 200:
                self.refused.append({"id": id, "status": answer.status})
                return
            told = decode(answer.body, contract.Events)
            for event in told.events:
                self._in_order(f"asked {id}", event)
                self.asked[id].append(event.code)
            after = told.next

    def take(self, key: str, signature: str, body: bytes) -> tuple[int, Any]:
        """Take an event of the webhook. Raises BadInput."""
        if not is_signed(self.secret, body, signature, int(time.time())):
            raise BadInput("Signature", "is not good", 401)
        if known := self.ledger.answer_of(key):
            return known
        told = decode(body, contract.Told)
        self._in_order(f"told {told.id}", told.event)
        entry = {"id": told.id, "number": told.number, "event": told.event.number}
        self.ledger.record(key, entry | {"code": told.event.code}, 200, {})
        return 200, {}

    def _in_order(self, lane: str, event: contract.Event) -> None:
        if event.number != self._last[lane] + 1:
            self.disorder.append(f"{lane}: {event.number} after {self._last[lane]}")
        self._last[lane] = event.number

    def report(self) -> dict[str, Any]:
        """Return what is known of each call."""
        told = defaultdict(list)
        for entry in self.ledger.entries:
            told[entry["id"]].append(entry["code"])
        return {
            "calls": [
                {"number": number, "id": id, "told": told[id], "asked": self.asked[id]}
                for number, id in self.calls.items()
            ],
            "entries": self.ledger.entries,
            "repeats": self.ledger.repeats,
            "refused": self.refused,
            "disorder": self.disorder,
            "living": len(self.tasks),
            "posts_repeated": self.courier.repeats,
        }


def _call(number: int) -> dict[str, Any]:
    return {
        "number": f"K-{number}",
        "received_at": datetime.now(UTC),
        "reason": {"code": "1", "system": "1.2.643.5.1.13.13.11.1524"},
        "urgency": 1 + number % 3,
        "address": {"text": f"г. Примерск, ул. {STREET}, д. {number}"},
        "patients": [{"sex": "unknown"}],
    }


def create_app(settings: SimulatorSettings) -> FaultyApp:
    """Return the simulator's ASGI app."""
    platform = Platform(settings)

    async def webhook(request: Request) -> Response:
        key = request.headers.get("idempotency-key", "")
        signature = request.headers.get("signature", "")
        try:
            body = await read_body(request, BYTES_MAX)
            status, answer = platform.take(key, signature, body)
        except BadInput as bad:
            status, answer = bad.status, {"sentence": bad.sentence}
        return Response(msgspec.json.encode(answer), status, media_type="application/json")

    async def drive(request: Request) -> Response:
        platform.drive(decode(await request.body(), Drive))
        return Response(status_code=202)

    async def ledger(_: Request) -> Response:
        return Response(msgspec.json.encode(platform.report()), media_type="application/json")

    routes = [
        Route("/webhook", webhook, methods=["POST"]),
        Route("/drive", drive, methods=["POST"]),
        Route("/ledger", ledger),
    ]
    lifespan = closing(platform.tasks, platform.courier)
    return FaultyApp(Starlette(routes=routes, lifespan=lifespan), settings.faults)
