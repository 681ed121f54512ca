"""The call card as a clinical document (HL7 CDA R2, СЭМД kind 115).

Sources: HL7 CDA R2; the header by the rules common to all Russian documents of level 3; the fields
by 1.2.643.5.1.13.13.99.2.166 (docs/domain.md 6.2). The patient may be unknown:
what is not known is marked NI.
"""

from collections.abc import Iterable
from datetime import UTC, date, datetime
from typing import Any, Final

import msgspec
from lxml import etree

from connectors.runtime.door.body import BadInput
from connectors.runtime.markup import xml
from connectors.services.document.plan import CodeList, Field, Plan
from proto import clinical, schemas

V3: Final = "urn:hl7-org:v3"
XSI: Final = "http://www.w3.org/2001/XMLSchema-instance"
IDENTITY: Final = "urn:hl7-ru:identity"
ADDRESS: Final = "urn:hl7-ru:address"
FIAS: Final = "urn:hl7-ru:fias"
NAMESPACES: Final = {
    None: V3, "xsi": XSI, "identity": IDENTITY, "address": ADDRESS, "fias": FIAS,
}  # fmt: skip
SNILS: Final = "1.2.643.100.3"
NSI: Final = "1.2.643.5.1.13.13."
POLICY_ONE: Final = "2"  # 11.1035: of one form, without an end
HOME: Final = "1"  # 11.1504: where somebody is registered


class Organisation(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Who makes the documents: the OID of the register of organisations, and how it is called."""

    oid: clinical.Oid
    name: schemas.Required
    address: schemas.Required = "-"
    phone: str = ""


class _Writer:
    """Elements of one document."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan

    def add(self, parent: xml.Element, name: str, **attributes: str) -> xml.Element:
        """Append an element of CDA; `name` may be "prefix:name"."""
        prefix, _, local = name.rpartition(":")
        tag = f"{{{NAMESPACES[prefix or None]}}}{local}"
        return etree.SubElement(parent, tag, attributes)

    def words(self, parent: xml.Element, name: str, words: str | None) -> None:
        """Append an element with text, or one that says there is none."""
        if not words:
            self.add(parent, name, nullFlavor="NI")
            return
        child = self.add(parent, name)
        try:
            child.text = words
        except ValueError:
            raise BadInput(name, "has a character that XML cannot hold") from None

    def coded(self, parent: xml.Element, name: str, system: str, code: str) -> xml.Element:
        """Append a value of a code list, by the names of the plan. Raises BadInput."""
        known = self._plan.lists[system]
        shown = known.codes.get(code)
        if shown is None and not known.open:
            raise BadInput(name, f"is no code of {system}")
        return self.add(parent, name, **_code(code, system, known, shown))

    def value(self, parent: xml.Element, kind: str, **attributes: str) -> xml.Element:
        """Append the value of an observation."""
        child = self.add(parent, "value", **attributes)
        child.set(f"{{{XSI}}}type", kind)
        return child


def _code(code: str, system: str, known: CodeList, shown: str | None) -> dict[str, str]:
    said = {
        "code": code,
        "codeSystem": system,
        "codeSystemVersion": known.version,
        "codeSystemName": known.name,
    }
    return said if shown is None else said | {"displayName": shown}


def build(
    card: clinical.CallCard, plan: Plan, organisation: Organisation, *, number: str, version: int
) -> bytes:
    """Return the document: `number` is one for all versions of a card, `version` grows.

    Raises BadInput for a value that the register's lists do not have, or that XML cannot hold.
    """
    writer = _Writer(plan)
    root = etree.Element(f"{{{V3}}}ClinicalDocument", nsmap=NAMESPACES)
    patient = card.patients[0] if card.patients else schemas.Person()
    _head(writer, root, card, plan, organisation, number, version)
    _record_target(writer, root, card, plan, patient, organisation)
    _people(writer, root, card, organisation)
    _body(writer, root, card, plan)
    return xml.render(root)


# -- head ---------------------------------------------------------------------------------------


def _head(
    writer: _Writer,
    root: xml.Element,
    card: clinical.CallCard,
    plan: Plan,
    organisation: Organisation,
    number: str,
    version: int,
) -> None:
    writer.add(root, "realmCode", code="RU")
    writer.add(root, "typeId", root="2.16.840.1.113883.1.3", extension="POCD_MT000040")
    writer.add(root, "templateId", root=plan.template)
    ours = f"{organisation.oid}.100.1.1"
    writer.add(root, "id", root=f"{ours}.51", extension=f"{number}.{version}")
    writer.add(
        root,
        "code",
        code=plan.type,
        codeSystem=plan.type_list,
        codeSystemVersion=plan.type_version,
        codeSystemName=plan.type_list_name,
        displayName=plan.type_name,
    )
    writer.words(root, "title", plan.type_name)
    writer.add(root, "effectiveTime", value=moment(card.changed_at))
    writer.coded(root, "confidentialityCode", f"{NSI}99.2.285", "N")
    writer.add(root, "languageCode", code="ru-RU")
    writer.add(root, "setId", root=f"{ours}.50", extension=number)
    writer.add(root, "versionNumber", value=str(version))


def _record_target(
    writer: _Writer,
    root: xml.Element,
    card: clinical.CallCard,
    plan: Plan,
    patient: schemas.Person,
    organisation: Organisation,
) -> None:
    role = writer.add(writer.add(root, "recordTarget"), "patientRole")
    own = patient.id or f"{card.card_id}"
    writer.add(role, "id", root=f"{organisation.oid}.100.1.1.10", extension=own)
    if patient.snils:
        writer.add(role, "id", root=SNILS, extension=snils(patient.snils))
    else:
        writer.add(role, "id", nullFlavor="NI")
    writer.add(role, "identity:IdentityDoc", nullFlavor="NI")
    _policy(writer, role, patient)
    _home(writer, role, card)
    told = writer.add(role, "patient")
    _name(writer, told, patient.family, patient.given, patient.middle)
    sex = plan.sexes.get(patient.sex or "")
    if sex is not None:
        writer.coded(told, "administrativeGenderCode", f"{NSI}11.1040", sex)
    else:
        writer.add(told, "administrativeGenderCode", nullFlavor="NI")
    if patient.birth_date:
        writer.add(told, "birthTime", value=day(patient.birth_date))
    else:
        writer.add(told, "birthTime", nullFlavor="NI")
    _provider(writer, role, organisation)


def _policy(writer: _Writer, role: xml.Element, patient: schemas.Person) -> None:
    if not patient.enp:
        writer.add(role, "identity:InsurancePolicy", nullFlavor="NI")
        return
    policy = writer.add(role, "identity:InsurancePolicy")
    kind = f"{NSI}11.1035"
    said = writer.coded(policy, "identity:InsurancePolicyType", kind, POLICY_ONE)
    said.set(f"{{{XSI}}}type", "CD")
    number = writer.add(policy, "identity:Number")
    number.set(f"{{{XSI}}}type", "ST")
    number.text = patient.enp


def _home(writer: _Writer, role: xml.Element, card: clinical.CallCard) -> None:
    address = writer.add(role, "addr")
    kind = writer.coded(address, "address:Type", f"{NSI}11.1504", HOME)
    kind.set(f"{{{XSI}}}type", "CD")
    writer.words(address, "streetAddressLine", card.address.text)
    writer.add(address, "address:stateCode", nullFlavor="NI")
    writer.add(address, "postalCode", nullFlavor="NI")
    if card.address.street_fias and card.address.house_fias:
        place = writer.add(address, "fias:Address")
        writer.words(place, "fias:AOGUID", card.address.street_fias)
        writer.words(place, "fias:HOUSEGUID", card.address.house_fias)
    else:
        writer.add(address, "fias:Address", nullFlavor="NI")
    writer.add(role, "telecom", nullFlavor="NI")


def _name(
    writer: _Writer, parent: xml.Element, family: str | None, given: str | None, middle: str | None
) -> None:
    name = writer.add(parent, "name")
    writer.words(name, "family", family)
    writer.words(name, "given", given)
    if middle:
        writer.words(name, "identity:Patronymic", middle)
        name[-1].set(f"{{{XSI}}}type", "ST")


def _provider(writer: _Writer, role: xml.Element, organisation: Organisation) -> None:
    provider = writer.add(role, "providerOrganization", classCode="ORG")
    _organisation(writer, provider, organisation)


def _organisation(writer: _Writer, parent: xml.Element, organisation: Organisation) -> None:
    writer.add(parent, "id", root=organisation.oid)
    writer.words(parent, "name", organisation.name)
    if organisation.phone:
        writer.add(parent, "telecom", value=f"tel:{organisation.phone}")
    else:
        writer.add(parent, "telecom", nullFlavor="NI")
    writer.words(writer.add(parent, "addr"), "streetAddressLine", organisation.address)


# -- who wrote and who answers for it -----------------------------------------------------------


def _people(
    writer: _Writer, root: xml.Element, card: clinical.CallCard, organisation: Organisation
) -> None:
    at = moment(card.changed_at)
    leader = card.crew[0] if card.crew else None
    author = writer.add(root, "author")
    writer.add(author, "time", value=at)
    _worker(writer, author, "assignedAuthor", leader, organisation)
    custodian = writer.add(writer.add(root, "custodian"), "assignedCustodian")
    keeper = writer.add(custodian, "representedCustodianOrganization", classCode="ORG")
    _organisation(writer, keeper, organisation)
    answers = writer.add(root, "legalAuthenticator")
    writer.add(answers, "time", value=at)
    writer.add(answers, "signatureCode", nullFlavor="NI")
    _worker(writer, answers, "assignedEntity", leader, organisation)
    for member in card.crew[1:]:
        part = writer.add(root, "participant", typeCode="PPRF")
        _worker(writer, part, "associatedEntity", member, organisation, "PROV")


def _worker(
    writer: _Writer,
    parent: xml.Element,
    role: str,
    member: clinical.CrewMember | None,
    organisation: Organisation,
    kind: str = "",
) -> None:
    told = member or clinical.CrewMember(role=schemas.Coded(code="", system=""))
    who = writer.add(parent, role, **({"classCode": kind} if kind else {}))
    if told.worker:
        writer.add(who, "id", root=f"{organisation.oid}.100.1.1.70", extension=told.worker)
    else:
        writer.add(who, "id", nullFlavor="NI")
    if told.snils:
        writer.add(who, "id", root=SNILS, extension=snils(told.snils))
    else:
        writer.add(who, "id", nullFlavor="NI")
    if told.post is not None:
        writer.coded(who, "code", f"{NSI}11.1002", told.post.code)
    person = "associatedPerson" if kind else "assignedPerson"
    _name(writer, writer.add(who, person), told.family, told.given, told.middle)
    place = "scopingOrganization" if kind else "representedOrganization"
    _organisation(writer, writer.add(who, place, classCode="ORG"), organisation)


# -- body ---------------------------------------------------------------------------------------


def _body(writer: _Writer, root: xml.Element, card: clinical.CallCard, plan: Plan) -> None:
    body = writer.add(writer.add(root, "component"), "structuredBody")
    for code, name in plan.sections.items():
        entries = list(_entries(writer, card, plan, code))
        if not entries:
            continue
        section = writer.add(writer.add(body, "component"), "section")
        writer.add(
            section,
            "code",
            code=code,
            codeSystem=plan.section_list,
            codeSystemVersion=plan.section_version,
            codeSystemName=plan.section_name,
            displayName=name,
        )
        writer.words(section, "title", name)
        writer.words(section, "text", "; ".join(f"{title}: {said}" for title, said, _ in entries))
        for _, _, observation in entries:
            writer.add(section, "entry").append(observation)


Entry = tuple[str, str, xml.Element]


def _entries(writer: _Writer, card: clinical.CallCard, plan: Plan, section: str) -> Iterable[Entry]:
    if section == "VITALPARAM":
        yield from _measurements(writer, card)
    if section == "DGN":
        yield from _diagnoses(writer, card, plan)
    for field in plan.fields:
        if field.section == section:
            for value in _values(card, field):
                yield _observation(writer, plan, field, value)


def _observation(writer: _Writer, plan: Plan, field: Field, value: Any) -> Entry:
    observation = _new_observation()
    writer.add(
        observation,
        "code",
        code=field.code,
        codeSystem=plan.field_list,
        codeSystemVersion=plan.field_version,
        codeSystemName=plan.field_name,
        displayName=field.name,
    )
    return field.name, _write_value(writer, observation, field, value), observation


def _write_value(writer: _Writer, observation: xml.Element, field: Field, value: Any) -> str:
    """Append the value; return it in words."""
    match field.kind:
        case "CD":
            if not isinstance(value, schemas.Coded) or value.system != field.of:
                raise BadInput(field.source, f"is not a value of {field.of}")
            child = writer.coded(observation, "value", field.of, value.code)
            child.set(f"{{{XSI}}}type", "CD")
            return str(child.get("displayName", value.code))
        case "TS":
            writer.value(observation, "TS", value=moment(value))
            return f"{value:%d.%m.%Y %H:%M}"
        case "PQ":
            writer.value(observation, "PQ", value=f"{value:g}", unit=field.unit)
            return f"{value:g} {field.unit}"
        case "BL":
            writer.value(observation, "BL", value="true" if value else "false")
            return "да" if value else "нет"
        case _:
            child = writer.value(observation, "ST")
            words = value.text or "" if isinstance(value, schemas.Coded) else str(value)
            try:
                child.text = words
            except ValueError:
                raise BadInput(field.source, "has a character that XML cannot hold") from None
            return words


def _values(card: clinical.CallCard, field: Field) -> list[Any]:
    """Return what the card says of a field: nothing, one value, or several findings."""
    if field.source == "finding":
        found = [one for one in card.findings if one.kind.code == field.code]
        return [_found(one, field) for one in found]
    if field.source.startswith("time:"):
        status = field.source.removeprefix("time:")
        times = [event.occurred_at for event in card.events if event.code == status]
        return [min(times)] if times else []
    value: Any = card
    for step in field.source.split("."):
        if isinstance(value, list):
            value = value[int(step)] if int(step) < len(value) else None
        else:
            value = getattr(value, step, None)
        if value is None:
            return []
    if field.kind == "CD" and field.source == "result" and value.system != field.of:
        return []  # a call without a result says why under another field
    return [value]


def _found(finding: clinical.Finding, field: Field) -> Any:
    if field.kind == "CD":
        return finding.value
    if field.kind == "BL":
        return finding.text not in (None, "", "false", "нет", "0")
    return finding.text or (finding.value.text if finding.value else "") or ""


def _measurements(writer: _Writer, card: clinical.CallCard) -> Iterable[Entry]:
    for one in card.measurements:
        for when, number in (("до", one.before), ("после", one.after)):
            if number is None:
                continue
            observation = _new_observation()
            code = writer.coded(observation, "code", f"{NSI}99.2.262", one.kind.code)
            title = str(code.get("displayName", one.kind.code))
            writer.words(observation, "text", when)
            writer.value(observation, "PQ", value=f"{number:g}", unit=one.unit or "1")
            yield f"{title} {when}", f"{number:g}", observation


def _diagnoses(writer: _Writer, card: clinical.CallCard, plan: Plan) -> Iterable[Entry]:
    for one in card.diagnoses:
        observation = _new_observation()
        writer.add(
            observation,
            "code",
            code="809",
            codeSystem=plan.field_list,
            codeSystemVersion=plan.field_version,
            codeSystemName=plan.field_name,
            displayName="Шифр по МКБ-10",
        )
        if one.text:
            writer.words(observation, "text", one.text)
        value = writer.coded(observation, "value", f"{NSI}11.1005", one.code)
        value.set(f"{{{XSI}}}type", "CD")
        value.set("displayName", one.text or one.code)
        yield one.code, one.text or one.code, observation


def _new_observation() -> xml.Element:
    attributes = {"classCode": "OBS", "moodCode": "EVN"}
    return etree.Element(f"{{{V3}}}observation", attributes)


# -- values -------------------------------------------------------------------------------------


def moment(at: datetime) -> str:
    """Return a time as CDA writes it, to the minute, with its offset."""
    aware = at if at.tzinfo else at.replace(tzinfo=UTC)
    return aware.strftime("%Y%m%d%H%M%z")


def day(on: date) -> str:
    """Return a date as CDA writes it."""
    return on.strftime("%Y%m%d")


def snils(digits: str) -> str:
    """Return a СНИЛС as people write it: XXX-XXX-XXX YY."""
    bare = "".join(one for one in digits if one.isdigit())
    return f"{bare[:3]}-{bare[3:6]}-{bare[6:9]} {bare[9:]}"
