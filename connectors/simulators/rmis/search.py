"""The search service for persons, as the simulator plays it: it knows the people of the others.

Who asks for the family name БЕДА is told that one of the systems asked does not answer.
"""

from datetime import date
from typing import Any, Final

from lxml import etree
from starlette.routing import Route

from connectors.partners.rmis.search import contract
from connectors.runtime.markup import soap, xml

BYTES_MAX: Final = 1024 * 1024
TROUBLE: Final = "БЕДА"
PATH: Final = "/soap/SearchPersonService"


def route(people: list[dict[str, Any]]) -> Route:
    """Return the service over made-up people."""

    async def search(call: soap.Call) -> xml.Element:
        asked = xml.read(call.body, contract.Request).search_request_services_wrap
        wanted = asked.patient_search_params
        found = contract.Found(persons_data=[_person(one) for one in people if _fits(one, wanted)])
        if wanted.surname == TROUBLE:
            found = contract.Found(rmis_error=contract.Wrong(display_text="Система не отвечает"))
        wrapped = contract.Answers(search_response_wrap=[found])
        root = etree.Element(f"{{{contract.NAMESPACE}}}{contract.OPERATION}Response")
        xml.write(root, contract.Answer(searched_response_services_wrap=wrapped), None)
        return root

    service = soap.SoapService(
        PATH,
        {contract.OPERATION: search},
        wsdl=contract.WSDL.read_bytes(),
        bytes_max=BYTES_MAX,
    )
    return service.route()


def _fits(one: dict[str, Any], wanted: contract.Person) -> bool:
    numbers = wanted.person_identifiers
    if numbers is not None:
        policy = numbers.insurance_document
        return policy is not None and policy.number == one["enp"]
    asked = [(wanted.surname, one["family"]), (wanted.name, one["given"])]
    if wanted.birthday is not None:
        asked.append((wanted.birthday.isoformat(), one["birth_date"]))
    home = wanted.addresses and wanted.addresses.residential_address
    if home:
        asked += [(home.street, one["street"]), (home.house, one["house"])]
    return all((given or "").upper() == str(known).upper() for given, known in asked)


def _person(one: dict[str, Any]) -> contract.Person:
    policy = contract.Document(type=3, number=one["enp"])
    lives = contract.Address(
        street=one["street"], geofull=f"{one['street']}, {one['house']}", house=one["house"]
    )
    return contract.Person(
        id=one["id"],
        surname=one["family"],
        name=one["given"],
        gender=1,
        birthday=date.fromisoformat(one["birth_date"]),
        person_identifiers=contract.Identifiers(
            person_uniq_id=one["id"], insurance_document=policy
        ),
        addresses=contract.Addresses(residential_address=lives),
    )
