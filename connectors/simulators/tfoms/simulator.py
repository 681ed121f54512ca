"""The insurance fund played by a program, with made-up people; it speaks every dialect.

POST /insured     whose policy, canonical; POST /ferzl  by SOAP, POST /token  the token for it;
POST /hl7         by HL7 v2 in XML
POST /registers   a register (zip) -> the fund's answer (XML); ?stage=flk or mek, &refuse=SHARE
POST /drive       {"internal": 2, "expire": true, "hl7_error": "207"}: errors to come; no token of
                  before is good any more
GET  /ledger      how often it was asked, and who there is
POST /faults      switches of connectors.simulators.kit.faults
"""

import io
from collections import Counter
from typing import Any, Final

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.billing.answer import BadAnswer
from connectors.runtime.door.body import BadInput, decode, read_body
from connectors.simulators.kit.faults import FaultyApp
from connectors.simulators.kit.simulation import SimulatorSettings
from connectors.simulators.tfoms.examination import examine
from connectors.simulators.tfoms.ferzl import Drive, SimulatedFerzl
from connectors.simulators.tfoms.fund import Fund
from connectors.simulators.tfoms.hl7 import SimulatedHl7
from proto import schemas

BYTES_MAX: Final = 64 * 1024
REGISTER_BYTES_MAX: Final = 256 * 1024 * 1024


def create_app(settings: SimulatorSettings) -> FaultyApp:
    """Return the simulator's app."""
    fund = Fund(settings.seed)
    asked_count: Counter[str] = Counter()
    ferzl, hl7 = SimulatedFerzl(fund, asked_count), SimulatedHl7(fund, asked_count)

    async def insured(request: Request) -> Response:
        asked_count["asked"] += 1
        try:
            body = await read_body(request, BYTES_MAX)
            asked = decode(body, schemas.InsuranceQuestion)
        except BadInput as bad:
            return Response(bad.sentence, 400)
        persons = [
            {"enp": one["enp"], "policy_kind": 3, "policy_number": one["enp"],
             "insurer": policy.insurer, "region": policy.okato, "begins": policy.begins}
            for one, policy in fund.insured(asked)
        ]  # fmt: skip
        outcome = ("not_found", "found", "ambiguous")[min(len(persons), 2)]
        answer = {"outcome": outcome, "persons": persons}
        return Response(msgspec.json.encode(answer), media_type="application/json")

    async def registers(request: Request) -> Response:
        body = await read_body(request, REGISTER_BYTES_MAX)
        stage = request.query_params.get("stage", "mek")
        refuse = float(request.query_params.get("refuse", "0"))
        try:
            answered = b"".join(examine(io.BytesIO(body), stage, refuse))
        except BadAnswer as bad:
            return Response(str(bad), 400)
        return Response(answered, media_type="application/xml")

    async def drive(request: Request) -> Response:
        hl7.drive = decode(await read_body(request, BYTES_MAX), Drive)
        ferzl.behave(hl7.drive)
        return Response(status_code=202)

    async def ledger(_: Request) -> Response:
        told: dict[str, Any] = {"asked": 0, **asked_count, "people": fund.people}
        return Response(msgspec.json.encode(told), media_type="application/json")

    routes = [
        Route("/insured", insured, methods=["POST"]),
        ferzl.service.route(),
        Route("/token", ferzl.token, methods=["POST"]),
        Route("/hl7", hl7.endpoint, methods=["POST"]),
        Route("/registers", registers, methods=["POST"]),
        Route("/drive", drive, methods=["POST"]),
        Route("/ledger", ledger),
    ]
    return FaultyApp(Starlette(routes=routes), settings.faults)
