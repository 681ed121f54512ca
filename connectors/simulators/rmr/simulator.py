"""The register of medical workers played by a program.

The contract is connectors.partners.rmr.contract.

GET  /workers, /workers/changes   pages; POST /workers/find   one worker
GET  /ledger                      how often what was asked, how many workers and changes there are
POST /drive                       {"put": [record...], "remove": [id...], "forget": true}: change
                                  workers, remove some, or forget the history of changes (410)
POST /faults                      switches of connectors.simulators.kit.faults
"""

import re
from collections import Counter
from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.runtime.door.body import BadInput, decode, read_body
from connectors.simulators.kit.faults import FaultyApp
from connectors.simulators.kit.simulation import SimulatorSettings
from connectors.simulators.rmr import samples

BYTES_MAX: Final = 64 * 1024 * 1024
WORKERS: Final = 300


class Drive(msgspec.Struct, frozen=True):
    """What is to change."""

    put: list[dict[str, Any]] = []
    remove: list[str] = []
    forget: bool = False


class Register:
    """The state of the simulated register: workers by id, and the history of changes."""

    def __init__(self, workers: list[dict[str, Any]]) -> None:
        self.workers = {worker["id"]: worker for worker in workers}
        self.history: list[str] = []
        self.forgotten = 0
        self.asked: Counter[str] = Counter()

    def drive(self, wish: Drive) -> None:
        """Change workers."""
        for record in wish.put:
            self.workers[record["id"]] = record
            self.history.append(record["id"])
        for id in wish.remove:
            self.workers.pop(id, None)
            self.history.append(id)
        if wish.forget:
            self.forgotten = len(self.history) + 1
            self.history.append("")

    def page(self, after: str | None, size: int) -> dict[str, Any]:
        """Return the workers after an id, in the order of ids."""
        self.asked["page"] += 1
        ids = sorted(id for id in self.workers if after is None or id > after)
        found = ids[:size]
        page: dict[str, Any] = {
            "total": len(self.workers),
            "workers": [self.workers[id] for id in found],
            "since": self._cursor(len(self.history)),
        }
        if len(ids) > size:
            page["next"] = found[-1]
        return page

    def changes(self, since: str, size: int) -> dict[str, Any] | None:
        """Return what changed after a cursor, None when that is too long ago."""
        self.asked["changes"] += 1
        begin = int(since.removeprefix("c"))
        if begin < self.forgotten:
            return None
        ids = self.history[begin : begin + size]
        end = begin + len(ids)
        found = [self.workers.get(id, {"id": id, "removed": True}) for id in ids]
        return {
            "changes": found,
            "next": self._cursor(end),
            "more": end < len(self.history),
        }

    def find(self, question: dict[str, str]) -> dict[str, Any] | None:
        """Return a worker by id or СНИЛС."""
        self.asked["find"] += 1
        if "id" in question:
            return self.workers.get(question["id"])
        for worker in self.workers.values():
            if re.sub(r"\D", "", worker["snils"]) == question.get("snils"):
                return worker
        return None

    def report(self) -> dict[str, Any]:
        """Return the counters."""
        return {"asked": self.asked, "workers": len(self.workers), "changes": len(self.history)}

    def _cursor(self, place: int) -> str:
        return f"c{place}"


def create_app(
    settings: SimulatorSettings, workers: list[dict[str, Any]] | None = None
) -> FaultyApp:
    """Return the simulator's ASGI app: of `workers`, else of some made up by the seed."""
    given = samples.workers(settings.seed, WORKERS) if workers is None else workers
    register = Register(given)

    async def page(request: Request) -> Response:
        asked = request.query_params
        return _json(register.page(asked.get("after"), int(asked.get("size", "100"))))

    async def changes(request: Request) -> Response:
        asked = request.query_params
        found = register.changes(asked["since"], int(asked.get("size", "100")))
        return Response(status_code=410) if found is None else _json(found)

    async def find(request: Request) -> Response:
        try:
            question = decode(await read_body(request, BYTES_MAX), dict[str, str])
        except BadInput as bad:
            return Response(bad.sentence, 400)
        found = register.find(question)
        return Response(status_code=404) if found is None else _json(found)

    async def ledger(_: Request) -> Response:
        return _json(register.report())

    async def drive(request: Request) -> Response:
        try:
            register.drive(decode(await read_body(request, BYTES_MAX), Drive))
        except BadInput as bad:
            return Response(bad.sentence, 400)
        return Response(status_code=204)

    routes = [
        Route("/workers", page),
        Route("/workers/changes", changes),
        Route("/workers/find", find, methods=["POST"]),
        Route("/ledger", ledger),
        Route("/drive", drive, methods=["POST"]),
    ]
    return FaultyApp(Starlette(routes=routes), settings.faults)


def _json(content: Any) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json")
