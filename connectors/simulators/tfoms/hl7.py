"""The central register of HL7 v2 in XML played by a program: QBP^ZP1 -> RSP^ZK1."""

from collections import Counter
from datetime import date
from typing import Final

from lxml import etree
from starlette.requests import Request
from starlette.responses import Response

from connectors.partners.tfoms.hl7 import CONTENT_TYPE, ENCODING, NAMESPACE
from connectors.runtime.door.body import BadInput, read_body
from connectors.runtime.markup import xml
from connectors.simulators.tfoms.ferzl import Drive
from connectors.simulators.tfoms.fund import Fund
from proto import schemas

BYTES_MAX: Final = 64 * 1024


class SimulatedHl7:
    """Answers at /hl7."""

    def __init__(self, fund: Fund, asked: Counter[str]) -> None:
        self.drive = Drive()
        self._fund = fund
        self._asked = asked

    async def endpoint(self, request: Request) -> Response:
        """Take a batch and answer with one."""
        self._asked["hl7"] += 1
        try:
            batch = xml.parse(await read_body(request, BYTES_MAX))
            (message,) = batch.findall(f"{{{NAMESPACE}}}QBP_ZP1")
            answered = self._answer(message)
        except (BadInput, ValueError):
            return Response(status_code=400)
        return Response(answered, media_type=CONTENT_TYPE)

    def _answer(self, message: xml.Element) -> bytes:
        """Raises ValueError."""
        number = _said(message, "MSH/MSH.10")
        identities = message.findall(f"{{{NAMESPACE}}}QPD/{{{NAMESPACE}}}QPD.5")
        numbers = {_said(one, "CX.5"): _said(one, "CX.1") for one in identities}
        born = _said(message, "QPD/QPD.7")
        asked = schemas.InsuranceQuestion(
            on_date=date.fromisoformat(_said(message, "QPD/QPD.4")),
            enp=numbers.get("NI"),
            family=_said(message, "QPD/QPD.6/XPN.1/FN.1"),
            given=_said(message, "QPD/QPD.6/XPN.2"),
            birth_date=date.fromisoformat(born) if born else None,
        )
        batch = etree.Element(f"{{{NAMESPACE}}}UPRMessageBatch", nsmap={None: NAMESPACE})
        _add(batch, "BHS", "BHS.1")
        answer = _add(batch, "RSP_ZK1")
        _add(answer, "MSH", "MSH.12", "VID.1").text = "2.6"
        said = _add(answer, "MSA")
        _add(said, "MSA.1").text = "AE" if self.drive.hl7_error else "AA"
        _add(said, "MSA.2").text = number
        if self.drive.hl7_error:
            _add(answer, "ERR", "ERR.3", "CWE.1").text = self.drive.hl7_error
        else:
            self._persons(answer, asked)
        _add(batch, "BTS", "BTS.1").text = "1"
        return etree.tostring(batch, xml_declaration=True, encoding=ENCODING)

    def _persons(self, answer: xml.Element, asked: schemas.InsuranceQuestion) -> None:
        for person in self._fund.fitting(asked):
            found = _add(answer, "RSP_ZK1.QUERY_RESPONSE")
            known = _add(found, "PID")
            _add(known, "PID.3", "CX.1").text = "UIN-1"  # the register's own, no ЕНП
            _add(known, "PID.3", "CX.1").text = person["enp"]
            _add(known, "PID.7").text = person["birth_date"]
            policy = self._fund.policy(person, asked.on_date)
            ends = "" if policy else "2024-12-31"
            policy = policy or self._fund.policy(person, date(2023, 1, 1))
            if policy is None:
                continue
            one = _add(found, "IN1")
            _add(one, "IN1.3", "CX.1").text = policy.ogrn
            _add(one, "IN1.12").text = policy.begins.isoformat()
            _add(one, "IN1.13").text = ends
            _add(one, "IN1.15").text = policy.okato
            _add(one, "IN1.35").text = "П"
            _add(one, "IN1.36").text = person["enp"]


def _add(parent: xml.Element, *path: str) -> xml.Element:
    for name in path:
        parent = etree.SubElement(parent, f"{{{NAMESPACE}}}{name}")
    return parent


def _said(element: xml.Element, path: str) -> str:
    names = "/".join(f"{{{NAMESPACE}}}{name}" for name in path.split("/"))
    return element.findtext(names) or ""
