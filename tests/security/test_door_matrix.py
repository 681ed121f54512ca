"""Every door and every path against every wrong secret: 401, 403 or 404, and nothing has happened.

The paths are those of the apps themselves, so that a new one cannot be forgotten; the requests are
good ones, and with the right secret do something: the last test sees it.
"""

import asyncio
import contextlib
import hashlib
import sqlite3
from collections.abc import AsyncIterator, Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from starlette.routing import Route

from connectors.runtime.bus.connector import Connector
from connectors.runtime.bus.process import _run
from connectors.runtime.bus.settings import DoorSettings, Loaded, LogSettings
from connectors.runtime.door.callers import NOT_YOURS
from connectors.runtime.door.openapi import DOCUMENT, PAGE
from connectors.runtime.door.token import make_token, new_token
from connectors.runtime.partner.http import HttpAnswer, HttpClient, Unreachable
from proto.keys import KeyPair
from proto.ops import ops_request
from tests.fuzz import doors as good
from tests.integration.bus import RouterProcess
from tests.ports import free_port
from tests.settings import settings_of
from tests.until import until

SHAPES: dict[str, type[Connector]] = {
    point.name: point.load() for point in entry_points(group="smpbus.connectors")
}
DOORS = sorted(name for name, shape in SHAPES.items() if issubclass(shape.Settings, DoorSettings))
TARGETS = [one() for one in good.TARGETS]
SOAP = {"content-type": "text/xml; charset=utf-8"}
ASKED = {"x-asked-by": "dispatcher-7", "x-purpose": "care", "idempotency-key": "matrix-1"}
SHOWN = {DOCUMENT, PAGE}  # describe a door, say nothing of anybody
REFUSED = {401, 403, 404}
NOBODY = "http://127.0.0.1:9"


class Asked(NamedTuple):
    """A request that is good but for its secret."""

    method: str
    path: str
    body: bytes
    headers: dict[str, str]


class Town:
    """A router, and every connector that has a door, with two callers each."""

    def __init__(self, folder: Path, router: RouterProcess) -> None:
        self.folder = folder
        self.router = router
        self.connectors: dict[str, Connector] = {}
        self.tokens: dict[tuple[str, str], str] = {}  # by connector and caller
        self.http: dict[str, HttpClient] = {}

    def settings(self, name: str) -> dict[str, Any]:
        """Return what a connector is told."""
        shape = SHAPES[name]
        folder = self.folder / name
        folder.mkdir()
        table: dict[str, Any] = {
            "partner": {"url": NOBODY, "breaker": {"open_s": 60.0}},
            "listen": f"127.0.0.1:{free_port()}",
            "stop_s": 0.0,
            "accept_timeout_s": 5.0,
        }
        for target in TARGETS:
            if target.connector == name:
                table |= target.settings(folder)
        if name == "replication":
            key = KeyPair.new().save(folder, "far")
            assert key is None or key
            there = {"url": "tcp://127.0.0.1:9", "name": "far", "key": folder / "far.key"}
            table["partner"] = there | {"server_key": folder / "far.pub"}
            table["destination"] = "replication"
        if name in ("rmr", "tfoms"):
            kept = {"rmr": "state_file", "tfoms": "store_file"}[name]
            table[kept] = folder / "state.db"
        if name == "smpsql":
            table["partner"] = {"url": "postgresql://127.0.0.1:9/smp"}
        if name == "external":
            del table["clients"]
            table["clients"] = {
                who: {"token_file": self._token(name, who), "requests_per_minute": 60_000}
                for who in ("all", "other")
            }
            return table
        scopes = sorted(set(shape.door_scopes.values()))
        table["callers"] = {"all": {"token_file": self._token(name, "all")}}
        for scope in [*scopes, ""]:
            who = scope or "none"
            held = [scope] if scope else []
            table["callers"][who] = {"token_file": self._token(name, who), "scopes": held}
        return table

    def _token(self, name: str, who: str) -> Path:
        file = self.folder / name / f"{who}.digests"
        self.tokens[name, who] = make_token(file, None)
        return file

    async def run(self, name: str) -> None:
        """Run a connector by the code of its process."""
        town, shape = self, SHAPES[name]

        class Watched(shape):  # type: ignore[misc, valid-type]
            """The connector, kept for its routes; it asks nobody by itself."""

            poll_s = None

            def __init__(self, *given: Any) -> None:
                super().__init__(*given)
                town.connectors[name] = self

        settings = settings_of(self.settings(name), shape.Settings)
        self.http[name] = HttpClient(f"http://{settings.listen}")
        loaded = Loaded(
            self.folder, settings, self.router.address, None, None, LogSettings(language="en")
        )
        await _run(name, Watched, loaded)

    def requests(self, name: str) -> list[Asked]:
        """Return requests for every path that the app of a connector has."""
        found: list[Asked] = []
        for target in TARGETS:
            if target.connector == name:
                kind = SOAP if target.kind == "xml" else {"content-type": "application/json"}
                found += [Asked(*one, headers=kind | ASKED) for one in target.samples()]
        app: Any = self.connectors[name].app()
        routes: list[Route] = app.routes
        assert routes
        for route in routes:
            assert isinstance(route, Route), f"{name}: {route} has no path that could be asked"
            if route.path in SHOWN:
                assert route.path in SHAPES[name].door_public or SHAPES[name].knows_callers
                continue
            if not any(route.path_regex.match(one.path) for one in found):
                path = route.path.replace(":path}", "}").replace("{", "").replace("}", "")
                methods = sorted(route.methods or {"GET"})
                found += [Asked(one, path, b"{}", ASKED) for one in methods]
        elsewhere = [Asked("GET", path, b"", ASKED) for path in ("/", "/nowhere", "/figures/x")]
        return thinned(found) + elsewhere

    def wrong(self, name: str, asked: Asked) -> Iterator[tuple[str, dict[str, str], str]]:
        """Yield every proof that is not good for a request: what it is, headers and path."""
        yield "no secret", {}, asked.path
        yield "wrong secret", {"authorization": f"Bearer {new_token()}"}, asked.path
        yield "wrong password", {"authorization": "Basic YWxsOmFsbA=="}, asked.path
        yield "wrong first part", {}, f"/{new_token()}{asked.path}"
        yield "a certificate told by nobody", {"x-client-certificate": "x"}, asked.path
        for (whose, who), token in self.tokens.items():
            bearing = {"authorization": f"Bearer {token}"}
            if whose == name and (who == "all" or who == self.scope(name, asked.path)):
                continue
            if whose == name == "external":
                continue  # its rows are each client's own: see test_call_owner
            if whose == name or (who == "all" and whose == self.neighbour(name)):
                yield f"{who} of {whose}", bearing, asked.path
        yield "right secret elsewhere", {"x-api-key": self.tokens[name, "all"]}, asked.path
        query = f"{asked.path}?token={self.tokens[name, 'all']}"
        yield "right secret in the query", {}, query

    def neighbour(self, name: str) -> str:
        """Return another connector, a different one for each."""
        return DOORS[DOORS.index(name) - 1]

    def scope(self, name: str, path: str) -> str:
        """Return the scope that a path needs, by its longest prefix."""
        scopes = SHAPES[name].door_scopes
        fitting = [one for one in scopes if path == one or path.startswith(f"{one}/")]
        return scopes[max(fitting, key=len)] if fitting else ""

    async def ledger(self) -> dict[str, Any]:
        """Return what would tell of a side effect: counts of the router, rows of every file."""
        status = await asyncio.to_thread(ops_request, self.router.ops, "status", 10.0)
        names = ("accepted", "duplicates", "refused", "settled", "delivered", "dead")
        counts = {name: status["counters"].get(name) for name in names}
        files = sorted(self.folder.rglob("*.db"))
        assert files
        waiting = {name: one.waiting() for name, one in self.connectors.items()}
        rows = {str(file): rows_of(file) for file in files}
        return {"counts": counts, "waiting": waiting, "rows": rows}


def thinned(found: list[Asked]) -> list[Asked]:
    """Return one request of each shape of a path."""
    kept: dict[tuple[str, str, str], list[Asked]] = {}
    for one in found:
        parts = one.path.split("/")
        kept.setdefault((one.method, parts[1], parts[-1] if len(parts) > 3 else ""), []).append(one)
    few = [one for same in kept.values() for one in same[:1]]
    every = {one.path: one for one in found if one.path.startswith(("/bus/", "/queue/"))}
    return [*few, *(one for one in every.values() if one not in few)]


def rows_of(file: Path) -> str:
    """Return a digest of everything that a file holds."""
    with contextlib.closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True)) as database:
        return hashlib.sha256("\n".join(database.iterdump()).encode()).hexdigest()


@contextlib.asynccontextmanager
async def at_work(folder: Path) -> AsyncIterator[Town]:
    names = [*DOORS]
    sink = "".join(f'[peers.{one}]\npublish = ["*"]\nconsume = ["{one}"]\n' for one in names)
    asks = sink.replace("consume", 'ask = ["nobody"]\nconsume')
    routes = "[destinations.sink]\n[destinations.nobody]\n" + "".join(
        f"[destinations.{one}]\n" for one in names
    )
    routes += '[destinations.deadlines]\n[[routes]]\ntype = "*"\nto = ["sink"]\n'
    permissions = asks.replace('consume = ["sys112"]', 'consume = ["sys112", "deadlines"]')
    with RouterProcess(peers=(), routes=routes, permissions=permissions, curve=False) as router:
        town = Town(folder, router)
        running = [asyncio.create_task(town.run(name)) for name in names]
        try:
            for name in names:
                await answering(town, name, running)
            yield town
        finally:
            for task in running:
                task.cancel()
            await asyncio.gather(*running, return_exceptions=True)
            for client in town.http.values():
                await client.close()


async def answering(town: Town, name: str, running: list[asyncio.Task[None]]) -> None:
    async def answers() -> bool:
        for task in running:
            if task.done():
                task.result()
        with contextlib.suppress(Unreachable, KeyError):
            await town.http[name].request("GET", "/")
            return True
        return False

    await until(answers, f"{name} to answer")


async def send(town: Town, name: str, asked: Asked, proof: dict[str, str], path: str) -> HttpAnswer:
    return await town.http[name].request(asked.method, path, asked.body, asked.headers | proof)


@pytest.mark.fault("S1")
@pytest.mark.fault("S2")
@pytest.mark.fault("S3")
@pytest.mark.fault("S4")
def test_no_wrong_secret_opens_any_path_of_any_door(tmp_path: Path) -> None:
    """Signed documents, words about documents, beds and calls, questions about anybody's illness:
    every local user had them for the asking. A right secret does what it is for: else it would
    prove nothing that a wrong one does not."""

    async def whole() -> None:
        async with at_work(tmp_path) as town:
            for connector in town.connectors.values():
                connector.refusals._slow_s = 0.0
            before = await town.ledger()
            asked_for = {name: town.requests(name) for name in DOORS}
            for name in DOORS:
                for asked in asked_for[name]:
                    for what, proof, path in town.wrong(name, asked):
                        status = (await send(town, name, asked, proof, path)).status
                        assert status in REFUSED, (name, asked.method, asked.path, what, status)
            assert await town.ledger() == before
            accepted: dict[str, int] = {}
            for name in DOORS:
                right = {"authorization": f"Bearer {town.tokens[name, 'all']}"}
                start = (await town.ledger())["counts"]["accepted"]
                for asked in asked_for[name]:
                    answer = await send(town, name, asked, right, asked.path)
                    refused = answer.status == 401 or answer.body == NOT_YOURS
                    assert not refused, (name, asked.method, asked.path)
                accepted[name] = (await town.ledger())["counts"]["accepted"] - start
            assert all(accepted[name] for name in ("sys112", "smp", "rmis", "external")), accepted
            assert (await town.ledger())["rows"] != before["rows"]

    asyncio.run(whole())


@pytest.mark.fault("S4")
@pytest.mark.parametrize("name", DOORS)
def test_every_path_of_a_door_has_a_scope(name: str) -> None:
    """A path that nobody has given a scope would be for those only who may do everything; one
    that is for everybody describes the door, and nothing else."""
    shape = SHAPES[name]
    assert shape.knows_callers or shape.door_scopes
    assert set(shape.door_public) <= SHOWN
