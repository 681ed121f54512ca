"""The insurance fund played by a program, with made-up people.

POST /insured   whose policy; GET /ledger   how often it was asked, and who there is
POST /faults    switches of connectors.runtime.faults
"""

from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.runtime.body import BadInput, decode, read_body
from connectors.runtime.faults import FaultyApp
from connectors.runtime.people import people
from connectors.runtime.simulation import SimulatorSettings
from proto import schemas

BYTES_MAX: Final = 64 * 1024


def _fits(person: dict[str, Any], asked: schemas.InsuranceQuestion) -> bool:
    if asked.enp:
        return bool(person["enp"] == asked.enp)
    if asked.policy_number:
        return bool(person["enp"] == asked.policy_number)
    born = asked.birth_date.isoformat() if asked.birth_date else ""
    named = (person["family"], person["given"], person["birth_date"])
    return named == ((asked.family or "").upper(), (asked.given or "").upper(), born)


def create_app(settings: SimulatorSettings) -> FaultyApp:
    """Return the simulator's app."""
    known = people(settings.seed)
    asked_count = 0

    async def insured(request: Request) -> Response:
        nonlocal asked_count
        asked_count += 1
        try:
            body = await read_body(request, BYTES_MAX)
            asked = decode(body, schemas.InsuranceQuestion)
        except BadInput as bad:
            return Response(bad.sentence, 400)
        persons = [_person(one) for one in known if _fits(one, asked)]
        outcome = ("not_found", "found", "ambiguous")[min(len(persons), 2)]
        answer = {"outcome": outcome, "persons": persons}
        return Response(msgspec.json.encode(answer), media_type="application/json")

    async def ledger(_: Request) -> Response:
        told = {"asked": asked_count, "people": known}
        return Response(msgspec.json.encode(told), media_type="application/json")

    routes = [Route("/insured", insured, methods=["POST"]), Route("/ledger", ledger)]
    return FaultyApp(Starlette(routes=routes), settings.faults)


def _person(one: dict[str, Any]) -> dict[str, Any]:
    return {"enp": one["enp"], "policy_kind": 3, "policy_number": one["enp"], "insurer": "99001",
            "begins": "2020-01-01"}  # fmt: skip
