"""The federal register of the insured played by a program: two operations, and tokens."""

from collections import Counter
from collections.abc import Callable
from datetime import date
from typing import Final
from uuid import uuid4

import msgspec
from lxml import etree
from starlette.requests import Request
from starlette.responses import Response

from connectors.partners.tfoms.ferzl import TYPES
from connectors.runtime.door.body import BadInput
from connectors.runtime.markup import soap, xml
from connectors.runtime.markup.soap import Call
from connectors.simulators.tfoms.fund import Fund
from proto import schemas

BYTES_MAX: Final = 64 * 1024
PAGE_MAX: Final = 1  # so small that whoever does not ask for the next page is found out
M: Final = f"{{{TYPES}24.1.2/mpiPersonInfoSchema}}"
C: Final = f"{{{TYPES}24.1.2/commonTypes}}"


class Drive(msgspec.Struct, kw_only=True):
    """How the fund is to behave from now on."""

    internal: int = 0
    refuse: str = ""
    expire: bool = False
    hl7_error: str = ""


class SimulatedFerzl:
    """Answers at /ferzl whoever shows a token of /token that is still good."""

    def __init__(self, fund: Fund, asked: Counter[str]) -> None:
        self.drive = Drive()
        self._fund = fund
        self._asked = asked
        self._tokens: set[str] = set()
        operations = {
            "findPersonsByPersCriteriaRequest": self._guarded(self._find),
            "getPersonDataRequest": self._guarded(self._get),
        }
        self.service = _Guarded(self, operations)

    async def token(self, request: Request) -> Response:
        """Give a token to whoever says who he is."""
        if not request.headers.get("authorization", "").startswith("Basic "):
            return Response(status_code=401)
        self._asked["tokens"] += 1
        token = str(uuid4())
        self._tokens.add(token)
        given = {"access_token": token, "token_type": "Bearer", "expires_in": 3600}
        return Response(msgspec.json.encode(given), media_type="application/json")

    def good(self, header: str) -> bool:
        """Whether an Authorization header shows a token that is still good."""
        return header.removeprefix("Bearer ") in self._tokens

    def behave(self, drive: Drive) -> None:
        """Behave so from now on; with `expire` no token of before is good any more."""
        self.drive = drive
        if drive.expire:
            self._tokens.clear()

    def _guarded(self, work: Callable[[Call], xml.Element]) -> soap.Operation:
        async def operation(call: Call) -> xml.Element:
            self._asked["ferzl"] += 1
            name = xml.local(call.body).replace("Request", "Response")
            if self.drive.internal > 0:
                self.drive.internal -= 1
                return _error(name, "INTERNAL_SERVICE_ERROR")
            if self.drive.refuse:
                return _error(name, self.drive.refuse)
            return work(call)

        return operation

    def _find(self, call: Call) -> xml.Element:
        wanted = _one(call.body, "persCriteria")
        born = _said(wanted, "birthDayFrom")
        asked = schemas.InsuranceQuestion(
            on_date=date.max,
            enp=_said(wanted, "personSearchInfo", "pcy", "enp"),
            family=_said(wanted, "fio", "surname"),
            given=_said(wanted, "fio", "firstName"),
            birth_date=date.fromisoformat(born) if born else None,
        )
        found = self._fund.fitting(asked)
        page = int(_said(_one(call.body, "pagination"), "pageNumber") or 1)
        root = _response("findPersonsByPersCriteriaResponse")
        persons = etree.SubElement(root, f"{M}persons")
        pages = etree.SubElement(persons, f"{M}pagination")
        for name, number in (
            ("pageNumber", page),
            ("itemPerPage", PAGE_MAX),
            ("count", len(found)),
        ):
            etree.SubElement(pages, f"{C}{name}").text = str(number)
        for one in found[(page - 1) * PAGE_MAX : page * PAGE_MAX]:
            item = etree.SubElement(persons, f"{M}personDataShortItem")
            _fill(item, M, fio=f"{one['family']} {one['given']}", enp=one["enp"],
                  birthDay=one["birth_date"], gender="1", oip=f"oip-{one['enp']}")  # fmt: skip
        return root

    def _get(self, call: Call) -> xml.Element:
        wanted = _one(call.body, "personDataSearchParams")
        oip = _said(wanted, "personSearchInfo", "oip") or ""
        day = date.fromisoformat(_said(wanted, "dt") or "")
        (person,) = (one for one in self._fund.people if f"oip-{one['enp']}" == oip)
        root = _response("getPersonDataResponse")
        data = etree.SubElement(root, f"{M}pd")
        _fill(data, M, oip=oip)
        policies = etree.SubElement(data, f"{M}policy")
        # The one before, from a time when there was another insurer.
        before = etree.SubElement(policies, f"{M}policyItems")
        _fill(before, C, enp=person["enp"], pcyType="С", pcyDateB="2012-01-01",
              pcyDateT="2019-12-31", insurCode="99002")  # fmt: skip
        if policy := self._fund.policy(person, day):
            item = etree.SubElement(policies, f"{M}policyItems")
            _fill(item, C, enp=person["enp"], pcyType="П", pcyDateB=policy.begins.isoformat(),
                  insurName="СМО", insurCode=policy.insurer, pcyCategory="1")  # fmt: skip
        etree.SubElement(etree.SubElement(data, f"{M}dudl"), f"{M}dudlItems")
        places = etree.SubElement(data, f"{M}attach")
        item = etree.SubElement(places, f"{M}attachItems")
        _fill(item, C, areaType="1", dateAttachB="2021-05-01", moCode="990202")
        return root


class _Guarded(soap.SoapService):
    """The service, for those with a token."""

    def __init__(self, ferzl: SimulatedFerzl, operations: dict[str, soap.Operation]) -> None:
        super().__init__("/ferzl", operations, bytes_max=BYTES_MAX)
        self._ferzl = ferzl

    async def _endpoint(self, request: Request) -> Response:
        if not self._ferzl.good(request.headers.get("authorization", "")):
            return Response(status_code=401)
        return await super()._endpoint(request)


def _response(name: str) -> xml.Element:
    root = etree.Element(f"{M}{name}", nsmap={"ns3": M[1:-1], "ns2": C[1:-1]})
    etree.SubElement(root, f"{C}externalRequestId").text = "1"
    return root


def _error(name: str, code: str) -> xml.Element:
    root = _response(name)
    item = etree.SubElement(etree.SubElement(root, f"{M}errors"), f"{M}errorItem")
    _fill(item, C, code=code, message="words that may quote the question")
    return root


def _fill(parent: xml.Element, space: str, **values: str) -> None:
    for name, value in values.items():
        etree.SubElement(parent, f"{space}{name}").text = value


def _one(parent: xml.Element, name: str) -> xml.Element:
    found = parent.find(f"{{*}}{name}")
    if found is None:
        raise BadInput(name, "is missing")
    return found


def _said(parent: xml.Element, *path: str) -> str | None:
    return parent.findtext("/".join(f"{{*}}{name}" for name in path)) or None
