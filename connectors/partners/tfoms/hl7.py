"""The dialect of HL7 v2 in XML: a batch with one question QBP^ZP1, by HTTP POST, and a batch back
with its answer RSP^ZK1. The same documents travel elsewhere as files (*.uprmes).

What the answer says of errors is table 0357 of HL7: 204 knows nobody, 206 and 207 may pass.
"""

from datetime import UTC, date, datetime
from typing import Annotated, Final

import msgspec
from lxml import etree

from connectors.partners.tfoms.dialect import KINDS, PERSONS_MAX, answer_of, sound
from connectors.runtime import checks
from connectors.runtime.door.body import BadInput
from connectors.runtime.markup import xml
from connectors.runtime.partner.partner import Answer, BadReply, Partner
from proto import schemas
from proto.client import Reject, Retry
from proto.identifiers import new_id
from proto.note import coded

NAMESPACE: Final = "urn:hl7-org:v2xml"
ENCODING: Final = "windows-1251"
OIDS: Final = "1.2.643.2.40.3.3.1.0"  # of the territories' registers
QUERY: Final = ("СП", "1.2.643.2.40.1.9")  # whose insurance it is
NUMBER_ENP, NUMBER_SNILS = "NI", "PEN"  # CX.5 of a number that is no document
NOBODY: Final = "204"
PASSING: Final = frozenset({"206", "207"})
CONTENT_TYPE: Final = f"application/xml; charset={ENCODING}"


class Hl7Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[connectors.tfoms.hl7]. Who asks, as the central register knows it: `application` and the
    number of the `territory`; `insurers` gives the code (F002) of an insurer by its ОГРН, which is
    all that the answer tells."""

    application: Annotated[str, msgspec.Meta(min_length=1, max_length=50)] = "СРЗ 99"
    territory: Annotated[str, msgspec.Meta(min_length=1, max_length=10)] = "99"
    receiver: Annotated[str, msgspec.Meta(min_length=1, max_length=50)] = "ЦК ЕРП"
    insurers: dict[str, str] = {}


class Hl7:
    """See `connectors.partners.tfoms.dialect.Dialect`."""

    def __init__(self, partner: Partner, settings: Hl7Settings) -> None:
        self._partner = partner
        self._settings = settings

    async def close(self) -> None:
        """Nothing is held."""

    async def insured(self, asked: schemas.InsuranceQuestion) -> schemas.InsuranceAnswer:
        """Ask whose policy it is."""
        number = new_id()
        body = question(asked, number, self._settings)
        sent = {"content-type": CONTENT_TYPE, "accept": "*/*"}

        def read(reply: Answer) -> schemas.InsuranceAnswer:
            if reply.status >= 300:
                raise Reject(f"HTTP {reply.status}")
            try:
                return sound(self._read(reply.body, number, asked.on_date), reply.status)
            except (BadInput, ValueError):  # their texts may quote the body
                raise BadReply(coded("connector.bad_reply", status=reply.status)) from None

        return await self._partner.ask("POST", "", body, number, read, sent)

    def _read(self, body: bytes, number: str, day: date) -> schemas.InsuranceAnswer:
        batch = xml.parse(body)
        answer = batch.find("{*}RSP_ZK1")
        if xml.local(batch) != "UPRMessageBatch" or answer is None:
            raise BadInput("", "is no batch with an answer")
        if _said(answer, "MSA", "MSA.2") != number:
            raise BadInput("MSA.2", "answers another question")
        if _said(answer, "MSA", "MSA.1") not in ("AA", "CA"):
            return _refused(answer)
        persons = [
            person
            for found in answer.findall("{*}RSP_ZK1.QUERY_RESPONSE")[:PERSONS_MAX]
            if (person := self._person(found, day)) is not None
        ]
        return answer_of(persons)

    def _person(self, found: xml.Element, day: date) -> schemas.InsuredPerson | None:
        """Return somebody with the policy on `day`; None for whoever has none then."""
        enp = next((one for one in _numbers(found) if checks.enp_problem(one) is None), "")
        begun: list[tuple[date, xml.Element]] = []
        for policy in found.findall("{*}IN1"):
            first = _date(_said(policy, "IN1.12")) or date.min
            if first <= day <= (_date(_said(policy, "IN1.13")) or date.max):
                begun.append((first, policy))
        if not begun:
            return None
        _, policy = max(begun, key=lambda one: one[0])
        return msgspec.convert(
            {
                "enp": enp,
                "policy_kind": KINDS.get(_said(policy, "IN1.35"), 3),
                "policy_number": _said(policy, "IN1.36") or enp,
                "insurer": self._settings.insurers.get(_said(policy, "IN1.3", "CX.1")),
                "region": _said(policy, "IN1.15") or None,
                "begins": _date(_said(policy, "IN1.12")),
                "ends": _date(_said(policy, "IN1.13")),
            },
            schemas.InsuredPerson,
        )


def _refused(answer: xml.Element) -> schemas.InsuranceAnswer:
    """Return that nobody is known, if that is the error. Raises Retry or Reject."""
    code = _said(answer, "ERR", "ERR.3", "CWE.1")
    if code == NOBODY:
        return answer_of([])
    shown = code if code.isascii() and code.isdigit() and len(code) < 5 else ""
    note = coded("tfoms.dialect", code=shown)
    raise Retry(note) if code in PASSING else Reject(note)


def _said(element: xml.Element, *path: str) -> str:
    return (element.findtext("/".join(f"{{*}}{name}" for name in path)) or "").strip()


def _numbers(found: xml.Element) -> list[str]:
    return [_said(one, "CX.1") for one in found.findall("{*}PID/{*}PID.3")]


def _date(value: str) -> date | None:
    """Raises ValueError."""
    return date.fromisoformat(value[:10]) if value else None


# -- the question -------------------------------------------------------------------------------


def question(asked: schemas.InsuranceQuestion, number: str, settings: Hl7Settings) -> bytes:
    """Return the batch with one question. Raises Reject."""
    now = datetime.now(UTC).astimezone().isoformat(timespec="seconds")
    batch = etree.Element(f"{{{NAMESPACE}}}UPRMessageBatch", nsmap={None: NAMESPACE})
    _head(_add(batch, "BHS"), "BHS", now, settings)
    _add(batch[0], "BHS.11", number)
    message = _add(batch, "QBP_ZP1")
    _message_head(_add(message, "MSH"), now, number, settings)
    try:
        _query(_add(message, "QPD"), asked)
    except ValueError:  # a character that XML cannot hold is in nobody's name
        raise Reject(coded("connector.bad_body")) from None
    _add(_add(batch, "BTS"), "BTS.1", "1")
    return etree.tostring(batch, xml_declaration=True, encoding=ENCODING)


def _head(head: xml.Element, segment: str, now: str, settings: Hl7Settings) -> None:
    """Add what heads of batches and of messages have in common: from whom, to whom, when."""
    _add(head, f"{segment}.1", "|")
    _add(head, f"{segment}.2", "^~\\&")
    _add(_add(head, f"{segment}.3"), "HD.1", settings.application)
    _place(_add(head, f"{segment}.4"), settings.territory)
    _add(_add(head, f"{segment}.5"), "HD.1", settings.receiver)
    _place(_add(head, f"{segment}.6"), "00")
    _add(head, f"{segment}.7", now)


def _message_head(head: xml.Element, now: str, number: str, settings: Hl7Settings) -> None:
    _head(head, "MSH", now, settings)
    kind = _add(head, "MSH.9")
    for name, value in (("MSG.1", "QBP"), ("MSG.2", "ZP1"), ("MSG.3", "QBP_ZP1")):
        _add(kind, name, value)
    _add(head, "MSH.10", number)
    _add(_add(head, "MSH.11"), "PT.1", "P")
    _add(_add(head, "MSH.12"), "VID.1", "2.6")
    _add(head, "MSH.15", "AL")
    _add(head, "MSH.16", "AL")


def _query(query: xml.Element, asked: schemas.InsuranceQuestion) -> None:
    name = _add(query, "QPD.1")
    _add(name, "CWE.1", QUERY[0])
    _add(name, "CWE.3", QUERY[1])
    _add(query, "QPD.3", "У")
    _add(query, "QPD.4", asked.on_date.isoformat())
    for number, kind in _identities(asked):
        one = _add(query, "QPD.5")
        _add(one, "CX.1", number)
        _add(one, "CX.5", kind)
    if asked.family or asked.given or asked.middle:
        names = _add(query, "QPD.6")
        _add(_add(names, "XPN.1"), "FN.1", asked.family or "")
        _add(names, "XPN.2", asked.given or "")
        _add(names, "XPN.3", asked.middle or "")
        _add(names, "XPN.7", "L")
    if asked.birth_date:
        _add(query, "QPD.7", asked.birth_date.isoformat())


def _identities(asked: schemas.InsuranceQuestion) -> list[tuple[str, str]]:
    found = []
    if number := asked.enp or asked.policy_number:
        found.append((number, NUMBER_ENP))
    if asked.snils:
        found.append((asked.snils, NUMBER_SNILS))
    if document := asked.document:
        number = f"{document.series} № {document.number}" if document.series else document.number
        found.append((number, str(document.type)))
    return found


def _place(parent: xml.Element, territory: str) -> None:
    for name, value in (("HD.1", territory), ("HD.2", OIDS), ("HD.3", "ISO")):
        _add(parent, name, value)


def _add(parent: xml.Element, name: str, value: str | None = None) -> xml.Element:
    child = etree.SubElement(parent, f"{{{NAMESPACE}}}{name}")
    try:
        child.text = value
    except ValueError:  # a character that XML cannot hold is in nobody's name
        raise Reject(coded("connector.bad_body")) from None
    return child
