"""НСИ played by a program: passports and pages of data, and a limit of requests a minute.

GET  /passport, /data   see connectors.services.nsi.contract
GET  /ledger            {"requests", "refused": beyond the limit, "per_minute": the most there were}
POST /faults            switches of connectors.simulators.kit.faults
"""

import time
from collections import deque
from pathlib import Path
from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.services.nsi import contract
from connectors.simulators.kit.faults import FaultyApp
from connectors.simulators.kit.simulation import SimulatorSettings

UNKNOWN: Final = {"result": "ERROR", "resultText": "no such list", "resultCode": "UNKNOWN"}
OK: Final = {"result": "OK", "resultText": None, "resultCode": None}


class CodeListSource(msgspec.Struct):
    """The raw answers for one list: its passport, and all of its rows."""

    passport: dict[str, Any]
    rows: list[Any]


def made_up(oid: str, name: str, codes: dict[str, str], key: str = "ID") -> CodeListSource:
    """Return a list of `codes` and their names."""
    fields = [
        {"field": key, "dataType": "INTEGER", "alias": "Код"},
        {"field": "NAME", "dataType": "VARCHAR", "alias": "Наименование"},
    ]
    passport = OK | {
        "oid": oid,
        "version": "1.1",
        "fullName": name,
        "rowsCount": len(codes),
        "fields": fields,
        "keys": [{"field": key, "type": "PRIMARY"}, {"field": "NAME", "type": "VALUE"}],
    }
    rows = [
        [{"column": key, "value": code}, {"column": "NAME", "value": title}]
        for code, title in codes.items()
    ]
    return CodeListSource(passport, rows)


def read_folder(folder: Path) -> list[CodeListSource]:
    """Return the lists of a folder of raw answers, OID_VERSION_passport.json and ..._part1.json."""
    found = []
    for path in sorted(folder.glob("*_passport.json")):
        passport = msgspec.json.decode(path.read_bytes())
        part = path.with_name(path.name.replace("_passport", "_part1"))
        found.append(CodeListSource(passport, msgspec.json.decode(part.read_bytes())["list"]))
    return found


# Codes as the register has them (docs/domain.md 3.2).
LISTS: Final = (
    made_up(
        "1.2.643.5.1.13.13.11.1002",
        "Должности",
        {"98": "врач скорой медицинской помощи", "196": "фельдшер скорой медицинской помощи"}
        | {"207": "водитель скорой медицинской помощи"},
    ),
    made_up("1.2.643.5.1.13.13.11.1066", "Специальности", {"200": "скорая медицинская помощь"}),
    made_up(
        "1.2.643.5.1.13.13.11.1525",
        "Порядок вызова",
        {"1": "первичный", "2": "повторный", "3": "вызов на себя", "4": "в пути"},
        key="Id",
    ),
)


class Nsi:
    """The state of the simulated НСИ; 0 a minute is no limit."""

    def __init__(self, lists: list[CodeListSource], per_minute: int) -> None:
        self.per_minute = per_minute
        self.lists = {one.passport["oid"]: one for one in lists}
        self.requests = 0
        self.refused = 0
        self.most = 0
        self._recent: deque[float] = deque()

    def allows(self, now: float) -> bool:
        """Count a request; return whether it keeps to the limit."""
        while self._recent and self._recent[0] <= now - 60:
            self._recent.popleft()
        self._recent.append(now)
        self.requests += 1
        self.most = max(self.most, len(self._recent))
        if self.per_minute and len(self._recent) > self.per_minute:
            self.refused += 1
            return False
        return True

    def answer(self, operation: str, asked: dict[str, str]) -> dict[str, Any]:
        """Return the answer to one question."""
        source = self.lists.get(asked.get("identifier", ""))
        if (
            source is None
            or asked.get("version", source.passport["version"]) != (source.passport["version"])
        ):
            return UNKNOWN
        if operation == "passport":
            return source.passport
        size = min(int(asked.get("size", "10")), contract.PAGE_ROWS_MAX)
        begin = (int(asked.get("page", "1")) - 1) * size
        return OK | {"total": len(source.rows), "list": source.rows[begin : begin + size]}

    def report(self) -> dict[str, int]:
        """Return the counters."""
        return {"requests": self.requests, "refused": self.refused, "per_minute": self.most}


def create_app(settings: SimulatorSettings, lists: list[CodeListSource] | None = None) -> FaultyApp:
    """Return the simulator's ASGI app: of `lists`, else of some known codes."""
    limit = contract.PER_MINUTE if settings.strict else 0
    nsi = Nsi(list(LISTS) if lists is None else lists, limit)

    async def ask(request: Request) -> Response:
        if not nsi.allows(time.monotonic()):
            return Response(status_code=429, headers={"retry-after": "60"})
        asked = dict(request.query_params)
        return _json(nsi.answer(request.url.path.strip("/"), asked))

    async def ledger(_: Request) -> Response:
        return _json(nsi.report())

    routes = [Route("/passport", ask), Route("/data", ask), Route("/ledger", ledger)]
    return FaultyApp(Starlette(routes=routes), settings.faults)


def _json(content: Any) -> Response:
    return Response(msgspec.json.encode(content), media_type="application/json")
