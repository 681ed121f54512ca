"""РИАМС played by a program, on the people and beds of the canonical simulator.

As the real one it knows no idempotency key: a card is known by its numbers, its day and its
station; a bed and a visit are given as often as they are asked for. It answers JSON as text/html. A
card whose COMM says REJECT is thrown away after `pace_s`. The login is anybody's; a session lasts
SESSION_USES requests.
"""

import asyncio
import itertools
from collections import Counter
from collections.abc import Coroutine
from datetime import date, datetime
from typing import Any, Final
from urllib.parse import parse_qsl

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.partners.rmis.riams.contract import CARD
from connectors.runtime.door.body import read_body
from connectors.simulators.kit.ledger import Ledger
from connectors.simulators.kit.simulation import SimulatorSettings

BYTES_MAX: Final = 1024 * 1024
SESSION_USES: Final = 20
NOBODY: Final = {"success": False, "identity": 0, "Error_Code": "",
                 "Error_Msg": "Пациент не идентифицирован."}  # fmt: skip
GOOD: Final = {"success": True, "Error_Code": 0, "Error_Msg": ""}
WANTED: Final = ("Person_id", "CallProfType_id", "Address_Address", "HomeVisitCallType_id",
                 "HomeVisit_setDT", "HomeVisitWhoCall_id", "HomeVisit_Symptoms",
                 "HomeVisitStatus_id", "HomeVisit_House")  # fmt: skip

Fields = dict[str, str]
Answer = dict[str, Any]


class Riams:
    """The state of the simulated РИАМС. `people` and `wards` are those of the whole simulator; ids
    are numbers here, so those of the others are spelt without their dashes."""

    def __init__(
        self,
        settings: SimulatorSettings,
        ledger: Ledger,
        people: list[Answer],
        wards: dict[str, str],
        free: Counter[str],
        tasks: set[asyncio.Task[None]],
    ) -> None:
        self._settings = settings
        self._ledger = ledger
        self._people = people
        self._wards = {_number(ward): (ward, name) for ward, name in wards.items()}
        self._free = free
        self._ids = itertools.count(880_001)
        self.cards: dict[str, Fields] = {}
        self.numbers: dict[str, str] = {}
        self.beds: list[Fields] = []
        self.visits: dict[str, Fields] = {}
        self.asked: Counter[str] = Counter()
        self._sessions: dict[str, int] = {}
        self._tasks = tasks

    def report(self) -> Answer:
        """Return cards, beds and visits, as they were asked for."""
        cards = list(self.cards.values())
        visits = list(self.visits.values())
        return {"cards": cards, "beds": self.beds, "visits": visits, "asked": self.asked}

    def routes(self) -> list[Route]:
        """Return what is answered."""
        return [
            Route("/", self._services, methods=["POST"]),
            Route("/api/{controller}/{operation}", self._api, methods=["GET", "POST"]),
        ]

    async def _services(self, request: Request) -> Response:
        operation = request.query_params.get("m", "")
        known = {
            "saveAmbulanceCard": self._save,
            "getAmbulanceCard": self._read,
            "getPersonByPolis": lambda given: self._find(given, "Polis_Num"),
            "getPersonByFIOPolis": lambda given: self._find(
                given, "Person_SurName", "Person_FirName", "Person_BirthDay", "Polis_Num"
            ),
            "getPersonByFIODR": lambda given: self._find(
                given, "Person_SurName", "Person_FirName", "Person_BirthDay"
            ),
            "getPersonByAddress": lambda given: self._find(
                given, "Person_SurName", "Person_FirName", "Person_Age", "KLStreet_Name",
                "Address_House",
            ),
            "getStacList": self._stacs,
            "getProfileList": lambda _: GOOD | {"data": [{"LpuSectionProfile_OMSCode": "29"}]},
            "bookEmergencyBed": self._book,
        }  # fmt: skip
        if operation not in known:
            return Response(status_code=404)
        self.asked[operation] += 1
        return _html(known[operation](await _form(request)))

    # -- cards ----------------------------------------------------------------------------------

    def _save(self, given: Fields) -> Answer:
        said = {name: value for name, value in given.items() if value}
        for name in ("NUMV", "NGOD"):
            if not said.get(name):
                return _wrong(f"Поле {name} обязательно для заполнения")
        for name, value in said.items():
            if not _fits(CARD.get(name), value):
                return _wrong(f"Поле {name}: неверный формат")
        station = "-".join(said.get(name, "") for name in ("SMPB", "SMPT", "STBR", "STAN"))
        day = said.get("DPRM", "")[:10]
        key = f"{said['NUMV']}/{said['NGOD']}/{day}/{station}"
        old = self.cards.get(key)
        if old is not None and old | said == old:
            self._ledger.repeats += 1
            return {"success": False, "exists": True}
        self.cards[key] = (old or {}) | said
        if old is None:
            self.numbers[key] = str(next(self._ids))
            entry = {"operation": "saveAmbulanceCard", "number": self.numbers[key]}
            self._ledger.record(key, entry, 200, self.numbers[key])
        if "REJECT" in said.get("COMM", ""):
            self._later(self._throw_away(key))
        number = int(self.numbers[key])
        return GOOD | {"CmpCallCard_id": number, "exists": old is not None}

    def _later(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _throw_away(self, key: str) -> None:
        await asyncio.sleep(self._settings.pace_s)
        self.numbers.pop(key, None)

    def _read(self, given: Fields) -> Answer | list[Answer]:
        wanted = given.get("AmbulanceCard_id", "")
        if not wanted.isdigit():
            return _wrong("Идентификатор карты: неверный формат")
        keys = [key for key, number in self.numbers.items() if number == wanted]
        return [{"AmbulanceCard_id": wanted, **self.cards[key]} for key in keys]

    # -- people and beds ------------------------------------------------------------------------

    def _find(self, given: Fields, *required: str) -> Answer:
        for name in required:
            if not given.get(name):
                return _wrong(f"Поле {name} обязательно для заполнения")
        fit = [one for one in self._people if _matches(one, given)]
        if len(fit) != 1:  # of several it names nobody
            return NOBODY
        one = fit[0]
        return GOOD | {
            "identity": int(_number(one["id"])),
            "person_SurName": one["family"],
            "person_FirName": one["given"],
            "person_SecName": "",
            "person_BirthDay": one["birth_date"],
            "person_EdNum": one["enp"],
            "orgSmo_Code": "99001",
            "polis_Ser": "",
            "polis_Num": one["enp"],
            "uAddress_Address": f"{one['street']}, {one['house']}",
            "pAddress_Address": "",
        }

    def _stacs(self, given: Fields) -> Answer:
        profile = given.get("LpuSectionProfile_Code", "")
        data = [
            {
                "Lpu_id": number.removesuffix(profile),
                "Lpu_Name": f"Больница {number.removesuffix(profile)}",
                "LpuSection_id": number,
                "LpuSection_Name": name,
                "Address_Address": "",
                "EmergencyBedTotal": "12",
                "EmergencyBedFree": str(max(0, self._free[ward])),
            }
            for number, (ward, name) in self._wards.items()
            if ward.endswith(f"-{profile}")
        ]
        return GOOD | {"data": data}

    def _book(self, given: Fields) -> Answer:
        for name in ("Person_id", "Lpu_id", "LpuSection_id", "emergencyBedCount"):
            if not given.get(name, "").isdigit():
                return _wrong(f"Поле {name} обязательно для заполнения")
        ward = self._wards.get(given["LpuSection_id"])
        if ward is None or self._free[ward[0]] <= 0:
            said = "Ошибка при получении свободных экстренных коек"
            return {"success": False, "Error_Code": -1, "Error_Msg": said}
        self._free[ward[0]] -= 1
        self.beds.append(given)
        return GOOD

    # -- with a session -------------------------------------------------------------------------

    async def _api(self, request: Request) -> Response:
        operation = str(request.path_params["operation"])
        self.asked[operation] += 1
        given = dict(request.query_params) | await _form(request)
        if operation == "mlogin":
            return _html(self._login(given, request.method))
        session = given.get("sess_id", "")
        if not self._sessions.get(session):
            return Response(status_code=401)
        self._sessions[session] -= 1
        match request.method, operation:
            case "POST", "HomeVisit":
                return _html(self._visit(given))
            case "GET", "HomeVisitById":
                return self._visited(given)
        return Response(status_code=404)

    def _login(self, given: Fields, method: str) -> Answer:
        if method != "POST" or not (given.get("login") and given.get("password")):
            return {"error_code": 100, "error_msg": "Неверный логин или пароль"}
        session = f"s{next(self._ids)}"
        self._sessions[session] = SESSION_USES
        return {"error_code": 0, "sess_id": session}

    def _visit(self, given: Fields) -> Answer:
        for name in WANTED:
            if not given.get(name):
                return {"error_code": 3, "error_msg": f"Не указан параметр {name}", "data": ""}
        if not given.get("HomeVisit_StreetGUID"):
            said = "Не возможно получить улицу."
            return {"error_code": "6", "error_msg": said, "data": ""}
        id = str(next(self._ids))
        self.visits[id] = given
        self._later(self._treat(id))
        return {"error_code": 0, "data": {"HomeVisit_id": int(id)}}

    async def _treat(self, id: str) -> None:
        for state in ("6", "4"):
            await asyncio.sleep(self._settings.pace_s)
            self.visits[id]["HomeVisitStatus_id"] = state

    def _visited(self, given: Fields) -> Response:
        visit = self.visits.get(given.get("HomeVisit_id", ""))
        return (
            Response(status_code=500)
            if visit is None
            else _html({"error_code": 0, "data": [visit]})
        )


def _matches(one: Answer, given: Fields) -> bool:
    wanted = {
        "Polis_Num": one["enp"],
        "Person_SurName": one["family"],
        "Person_FirName": one["given"],
        "Person_BirthDay": f"{date.fromisoformat(one['birth_date']):%d.%m.%Y}",
        "KLStreet_Name": one["street"].upper(),
        "Address_House": one["house"],
    }
    return all(given.get(name, "").upper() in ("", value) for name, value in wanted.items())


def _fits(kind: str | None, value: str) -> bool:
    try:
        match kind:
            case "int":
                int(value)
            case "float":
                float(value)
            case "time":
                datetime.strptime(value, "%d.%m.%Y %H:%M")
            case None:
                return False
    except ValueError:
        return False
    return True


def _number(value: str) -> str:
    return "".join(letter for letter in value if letter.isdigit())


def _wrong(sentence: str) -> Answer:
    return {"success": False, "Error_Code": 1, "Error_Msg": sentence}


async def _form(request: Request) -> Fields:
    body = await read_body(request, BYTES_MAX)
    return {name: value.strip() for name, value in parse_qsl(body.decode())}


def _html(answer: object) -> Response:
    return Response(msgspec.json.encode(answer), media_type="text/html")
