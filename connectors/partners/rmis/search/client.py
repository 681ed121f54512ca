"""Asks the search service for persons who somebody is."""

from collections.abc import Iterable
from datetime import date
from typing import Final, Literal

import msgspec

from connectors.partners.rmis.patient import patient_of
from connectors.partners.rmis.search import contract
from connectors.runtime.markup.soapclient import SoapClient
from connectors.runtime.partner.partner import Partner, PartnerSettings
from proto import clinical, schemas
from proto.client import Retry
from proto.identifiers import new_id
from proto.note import coded

Outcome = Literal["found", "ambiguous", "not_found"]
SEXES: Final[dict[int | None, schemas.Sex]] = {1: "male", 2: "female"}


class PersonSearch:
    """See `connectors.partners.rmis.dialect.Identifier`."""

    def __init__(self, name: str, settings: PartnerSettings) -> None:
        self.partner = Partner(f"{name}.search", settings)
        self._soap = SoapClient(self.partner, contract.WSDL)

    async def close(self) -> None:
        """Let go of the service."""
        self._soap.close()
        await self.partner.close()

    async def identify(self, asked: clinical.PatientQuestion) -> clinical.PatientAnswer:
        """Ask who it is. Raises Retry, also when a system that knows people cannot answer and no
        other has found anybody: that is not "nobody"."""
        fields = msgspec.to_builtins(question(asked), builtin_types=(date,))
        told = await self._soap.call(contract.OPERATION, contract.Answer, new_id(), fields)
        answers = told.searched_response_services_wrap.search_response_wrap
        found = people(one for answer in answers for one in answer.persons_data)
        if not found and any(answer.rmis_error for answer in answers):
            raise Retry(coded("rmis.search_failed"))
        outcomes: tuple[Outcome, ...] = ("not_found", "found", "ambiguous")
        return clinical.PatientAnswer(outcome=outcomes[min(len(found), 2)], patients=found)


def question(asked: clinical.PatientQuestion) -> contract.Request:
    """Return a question as the service has it. It knows no ages: by an address it asks without."""
    policy = asked.enp or asked.policy_number
    identifiers = contract.Identifiers(
        insurance_document=_document(asked.policy_series, policy),
        snils_document=_document(None, asked.snils),
        documents=_documents(asked.document),
    )
    home = contract.Address(street=asked.street, house=asked.house, apartment=asked.flat)
    person = contract.Person(
        surname=asked.family,
        name=asked.given,
        patronymic=asked.middle,
        birthday=asked.birth_date,
        person_identifiers=identifiers if identifiers != contract.Identifiers() else None,
        addresses=contract.Addresses(residential_address=home) if asked.street else None,
    )
    wrap = contract.Wrap(patient_search_params=person)
    return contract.Request(search_request_services_wrap=wrap)


def people(found: Iterable[contract.Person]) -> list[clinical.Patient]:
    """Return those found, each once: several systems may know the same person."""
    patients = (_patient(one) for one in found)
    return list({patient.id: patient for patient in patients if patient}.values())[:100]


def _patient(one: contract.Person) -> clinical.Patient | None:
    numbers = one.person_identifiers or contract.Identifiers()
    policy = numbers.insurance_document or contract.Document()
    snils = numbers.snils_document or contract.Document()
    homes = one.addresses or contract.Addresses()
    registered = homes.registration_address or contract.Address()
    living = homes.residential_address or contract.Address()
    id = numbers.person_uniq_id or one.id
    if not id:
        return None  # nobody could ask for more of such a one
    return patient_of(
        id=id,
        family=one.surname,
        given=one.name,
        middle=one.patronymic,
        birth_date=one.birthday,
        sex=SEXES.get(one.gender),
        enp=policy.number if policy.number and len(policy.number) == 16 else None,
        policy_series=policy.serial,
        policy_number=policy.number,
        snils=snils.number,
        registered_at=registered.geofull,
        lives_at=living.geofull,
    )


def _document(serial: str | None, number: str | None) -> contract.Document | None:
    return contract.Document(serial=serial, number=number) if number else None


def _documents(given: schemas.IdentityDocument | None) -> list[contract.Document] | None:
    if given is None:
        return None
    return [contract.Document(type=given.type, serial=given.series, number=given.number)]
