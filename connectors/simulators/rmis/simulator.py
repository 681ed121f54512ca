"""The hospitals' system played by a program: the canonical contract at /tickets, /cards and so on,
РИАМС at / and /api (`connectors.simulators.rmis.riams`), the search service for persons at
/soap/SearchPersonService.

What it is given is checked against the schemas and applied once per idempotency key. Tickets and
cards are confirmed after `pace_s`, visits are done, whoever was announced is admitted. A card whose
notes say REJECT is rejected. Changes lie ready at GET /changes; with a connector's address they are
posted there too, so that each comes twice. A visit whose reason says REFUSE is refused. The health
record of LONG_RECORD is longer than anybody reads.

POST /drive   {"early": true}: what becomes of a thing is told before it is answered
GET  /ledger  what was applied; POST /faults   switches of connectors.simulators.kit.faults
"""

import asyncio
import contextlib
import uuid
from collections import Counter
from datetime import UTC, date, datetime
from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.partners.rmis.contract import Booked, Change, Changes, ChangeType, Taken, Visited
from connectors.runtime.door.body import BadInput, decode, read_body
from connectors.simulators.kit.faults import FaultyApp
from connectors.simulators.kit.ledger import Ledger
from connectors.simulators.kit.people import people
from connectors.simulators.kit.simulation import Courier, SimulatorSettings, closing, spawn
from connectors.simulators.rmis import search
from connectors.simulators.rmis.riams import Riams
from proto import clinical, schemas

BYTES_MAX: Final = 8 * 1024 * 1024
PAGE: Final = 100
BEDS: Final = 12
LONG_RECORD: Final = "p-100003"
PROFILES: Final = {"29": "Кардиология", "112": "Хирургия", "53": "Неврология"}
OPERATIONS: Final[dict[str, type[schemas.Body]]] = {
    "PUT /tickets/{id}": schemas.CallTicket,
    "POST /tickets/{id}/statuses": schemas.StatusEvent,
    "PUT /cards/{id}": clinical.CallCard,
    "POST /bookings": clinical.BedRequest,
    "POST /bookings/{id}/cancel": clinical.BedCancel,
    "POST /arrivals": clinical.ArrivalNotice,
    "POST /visits": clinical.VisitRequest,
}


class Drive(msgspec.Struct):
    """How the system is to behave from now on."""

    early: bool = False


class Hospitals:
    """The state of the simulated hospitals' system."""

    def __init__(self, settings: SimulatorSettings) -> None:
        self.settings = settings
        self.ledger = Ledger(settings.ledger)
        self.courier = Courier(settings)
        self.people = people(settings.seed)
        self.life = uuid.uuid4().hex[:8]
        self.changes: list[Change] = []
        self.free: Counter[str] = Counter({ward.ward: BEDS for ward in wards()})
        self.booked: dict[str, str] = {}
        self.asked: Counter[str] = Counter()
        self.drive = Drive()
        self.tasks: set[asyncio.Task[None]] = set()
        named = {ward.ward: ward.ward_name or "" for ward in wards()}
        self.riams = Riams(settings, self.ledger, self.people, named, self.free, self.tasks)

    # -- what is handed over --------------------------------------------------------------------

    def apply(self, key: str, given: schemas.Body) -> tuple[int, Any]:
        """Apply once per key; return status and answer. Raises BadInput."""
        if not key:
            raise BadInput("Idempotency-Key", "is required")
        if known := self.ledger.answer_of(key):
            return known
        number = f"R-{len(self.ledger.entries) + 1}"
        answer: Any = Taken(number=number)
        match given:
            case clinical.CallCard():
                self._later(self._confirm("card", given, number))
            case schemas.CallTicket():
                self._later(self._confirm("ticket", given, number))
            case clinical.BedRequest():
                answer = self._book(given, number)
            case clinical.BedCancel():
                answer = self._give_back(given)
            case clinical.ArrivalNotice():
                self._later(self._admit(given, number))
            case clinical.VisitRequest() if "REFUSE" in (given.reason or ""):
                answer = Visited(state="refused", reason="Адрес не обслуживается")
            case clinical.VisitRequest():
                self._later(self._visit(given, number))
        plain = msgspec.to_builtins(answer)
        entry = {"operation": type(given).__name__, "call": _call_of(given), "number": number}
        if isinstance(given, schemas.StatusEvent):
            entry |= {"event_id": given.event_id, "code": given.code}
        self.ledger.record(key, entry, 200, plain)
        return 200, plain

    def _book(self, bed: clinical.BedRequest, number: str) -> Booked:
        if bed.booking_id in self.booked:
            return Booked(state="booked", number=number)
        if self.free[bed.ward] <= 0:
            return Booked(state="refused", reason="Свободных коек нет")
        self.free[bed.ward] -= 1
        self.booked[bed.booking_id] = bed.ward
        return Booked(state="booked", number=number)

    def _give_back(self, cancelled: clinical.BedCancel) -> Booked:
        ward = self.booked.pop(cancelled.booking_id, None)
        if ward is not None:
            self.free[ward] += 1
        return Booked(state="cancelled")

    # -- what becomes of it ---------------------------------------------------------------------

    async def _confirm(self, kind: str, given: schemas.CallTicket, number: str) -> None:
        rejected = isinstance(given, clinical.CallCard) and "REJECT" in (given.notes or "")
        body = {"kind": kind, "call_id": given.id, "version": given.version, "number": number}
        body["state"] = "rejected" if rejected else "confirmed"
        if rejected:
            body["reason"] = "Не заполнено обязательное поле"
        await self._tell("transfer.state.v1", body)

    async def _admit(self, notice: clinical.ArrivalNotice, number: str) -> None:
        body = {"call_id": notice.call_id, "hospital": notice.hospital, "admitted": True}
        await self._tell("hospital.outcome.v1", body | {"number": number})
        ward = self.booked.pop(notice.booking_id or "", None)
        if ward is not None:
            self.free[ward] += 1  # in this play nobody stays for long

    async def _visit(self, wanted: clinical.VisitRequest, number: str) -> None:
        body = {"visit_id": wanted.visit_id, "call_id": wanted.call_id, "number": number}
        await self._tell("visit.state.v1", body | {"state": "assigned", "doctor": "Участковый 1"})
        await asyncio.sleep(self.settings.pace_s)
        await self._tell("visit.state.v1", body | {"state": "done"})

    async def _tell(self, type: ChangeType, body: dict[str, Any]) -> None:
        full = {**body, "at": datetime.now(UTC).isoformat()}
        change = Change(id=f"c-{self.life}-{len(self.changes) + 1}", type=type, body=full)
        self.changes.append(change)
        if self.settings.connector_url:
            told = msgspec.json.encode(Changes(changes=[change]))
            await self.courier.bring("POST", "/rmis/changes", told)

    def _later(self, work: Any) -> None:
        async def run() -> None:
            with contextlib.closing(work):
                await asyncio.sleep(self.settings.pace_s)
                await work

        spawn(self.tasks, run())

    # -- what is asked --------------------------------------------------------------------------

    def identify(self, asked: clinical.PatientQuestion) -> clinical.PatientAnswer:
        """Return who fits."""
        self.asked["identify"] += 1
        found = [_patient(one) for one in self.people if _fits(one, asked)]
        outcomes: Final = ("not_found", "found", "ambiguous")
        return msgspec.convert(
            {"outcome": outcomes[min(len(found), 2)], "patients": msgspec.to_builtins(found)},
            clinical.PatientAnswer,
        )

    def summary(self, patient: str) -> clinical.PatientSummary | None:
        """Return the extract of a record; None for nobody."""
        self.asked["summary"] += 1
        if not any(one["id"] == patient for one in self.people):
            return None
        times = 500 if patient == LONG_RECORD else 1
        return clinical.PatientSummary(
            patient=patient,
            known=True,
            allergies=[clinical.Allergy(substance="Пенициллин")] * times,
            diagnoses=[clinical.Diagnosis(code="I10", text="Гипертоническая болезнь")] * times,
            discharges=[clinical.Discharge(hospital="99-0101", ends=date(2026, 3, 1))] * times,
        )

    def hospitals(self, profile: str) -> clinical.HospitalAnswer:
        """Return the wards of a profile, the emptiest first."""
        self.asked["hospitals"] += 1
        fit = [
            msgspec.structs.replace(ward, free=max(0, self.free[ward.ward]))
            for ward in wards()
            if ward.ward.endswith(f"-{profile}")
        ]
        fit.sort(key=lambda ward: -ward.free)
        return clinical.HospitalAnswer(hospitals=fit)

    def after(self, cursor: str) -> Changes:
        """Return the changes after a cursor; one of an earlier life of this program means all.
        Raises BadInput."""
        life, _, index = cursor.rpartition("-")
        if cursor and not (life and index.isascii() and index.isdigit()):
            raise BadInput("after", "is not a cursor of this system")
        begin = int(index) if life == self.life else 0
        page = self.changes[begin : begin + PAGE]
        end = begin + len(page)
        return Changes(changes=page, cursor=f"{self.life}-{end}", more=end < len(self.changes))

    def report(self) -> dict[str, Any]:
        """Return what was applied, and counters."""
        return {
            "entries": self.ledger.entries,
            "repeats": self.ledger.repeats,
            "changes": self.changes,
            "asked": self.asked,
            "free": self.free,
            "booked": self.booked,
            "people": self.people,
            "living": len(self.tasks),
            "riams": self.riams.report(),
        }


def wards() -> list[clinical.Hospital]:
    """Return the made-up wards of two hospitals."""
    return [
        clinical.Hospital(
            id=hospital,
            name=f"Больница {hospital}",
            ward=f"{hospital}-{profile}",
            ward_name=name,
            beds=BEDS,
            free=BEDS,
        )
        for hospital in ("99-0101", "99-0102")
        for profile, name in PROFILES.items()
    ]


def _call_of(given: Any) -> str:
    return str(getattr(given, "call_id", None) or getattr(given, "id", ""))


def _fits(person: dict[str, Any], asked: clinical.PatientQuestion) -> bool:
    number = asked.enp or asked.policy_number
    if number:
        return bool(person["enp"] == number)
    named = (person["family"], person["given"])
    if named != ((asked.family or "").upper(), (asked.given or "").upper()):
        return False
    if asked.birth_date is not None:
        return bool(person["birth_date"] == asked.birth_date.isoformat())
    home = (person["street"].upper(), person["house"])
    return home == ((asked.street or "").upper(), asked.house)


def _patient(one: dict[str, Any]) -> clinical.Patient:
    return clinical.Patient(
        id=one["id"],
        family=one["family"],
        given=one["given"],
        birth_date=date.fromisoformat(one["birth_date"]),
        sex=one["sex"],
        enp=one["enp"],
        policy_number=one["enp"],
        insurer="99001",
    )


def _json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


def create_app(settings: SimulatorSettings) -> FaultyApp:
    """Return the simulator's ASGI app."""
    system = Hospitals(settings)

    def taking(operation: str, shape: type[schemas.Body]) -> Route:
        method, path = operation.split()

        async def take(request: Request) -> Response:
            key = request.headers.get("idempotency-key", "")
            try:
                given = decode(await read_body(request, BYTES_MAX), shape)
                status, answer = system.apply(key, given)
                if system.drive.early:
                    await asyncio.gather(*system.tasks)
            except BadInput as bad:
                return _json({"path": bad.path, "sentence": bad.sentence}, 400)
            return _json(answer, status)

        return Route(path, take, methods=[method])

    async def identify(request: Request) -> Response:
        try:
            body = await read_body(request, BYTES_MAX)
            return _json(system.identify(decode(body, clinical.PatientQuestion)))
        except BadInput as bad:
            return _json({"path": bad.path, "sentence": bad.sentence}, 400)

    async def summary(request: Request) -> Response:
        found = system.summary(str(request.path_params["id"]))
        return Response(status_code=404) if found is None else _json(found)

    async def hospitals(request: Request) -> Response:
        return _json(system.hospitals(request.query_params.get("profile", "")))

    async def changes(request: Request) -> Response:
        try:
            return _json(system.after(request.query_params.get("after", "")))
        except BadInput as bad:
            return _json({"path": bad.path, "sentence": bad.sentence}, 400)

    async def drive(request: Request) -> Response:
        try:
            system.drive = decode(await read_body(request, BYTES_MAX), Drive)
        except BadInput as bad:
            return _json({"path": bad.path, "sentence": bad.sentence}, 400)
        return Response(status_code=202)

    async def ledger(_: Request) -> Response:
        return _json(system.report())

    routes = [
        *(taking(operation, shape) for operation, shape in OPERATIONS.items()),
        Route("/patients/identify", identify, methods=["POST"]),
        Route("/patients/{id}/summary", summary),
        Route("/hospitals", hospitals),
        Route("/changes", changes),
        Route("/ledger", ledger),
        *system.riams.routes(),
        search.route(system.people),
        Route("/drive", drive, methods=["POST"]),
        system.ledger.page(),
    ]
    lifespan = closing(system.tasks, system.courier)
    return FaultyApp(Starlette(routes=routes, lifespan=lifespan), settings.faults)
