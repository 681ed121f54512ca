"""What is said to the search service for persons: SOAP 1.1, document/literal, search.wsdl.

    searchPersonServices  Request -> Answers

The structures have what an ambulance asks for and wants to know; the order of fields is that of the
service's schema. Every field may be missing.
"""

from datetime import date
from pathlib import Path
from typing import Final

import msgspec

WSDL: Final = Path(__file__).with_name("search.wsdl")
NAMESPACE: Final = "http://endpoints.rmis.web.git.com/"
OPERATION: Final = "searchPersonServices"


class Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Ground of the structures."""


class Document(Part, frozen=True, kw_only=True):
    """A policy, a СНИЛС, a passport."""

    type: int | None = None
    serial: str | None = None
    number: str | None = None


class Identifiers(Part, frozen=True, kw_only=True):
    """Numbers of a person; `person_uniq_id` is the one that every system of the region uses."""

    person_uniq_id: str | None = msgspec.field(default=None, name="personUniqID")
    documents: list[Document] | None = None
    insurance_document: Document | None = None
    snils_document: Document | None = None


class Address(Part, frozen=True, kw_only=True):
    """Where somebody is registered, or lives."""

    street: str | None = None
    geofull: str | None = None
    house: str | None = None
    apartment: str | None = None


class Addresses(Part, frozen=True, kw_only=True):
    """Both of them."""

    registration_address: Address | None = None
    residential_address: Address | None = None


class Person(Part, frozen=True, kw_only=True):
    """Somebody, as asked for or as found; `gender` is 1 for men, 2 for women."""

    id: str | None = None
    surname: str | None = None
    name: str | None = None
    patronymic: str | None = None
    gender: int | None = None
    birthday: date | None = None
    person_identifiers: Identifiers | None = None
    addresses: Addresses | None = None


class Wrap(Part, frozen=True, kw_only=True):
    """A question."""

    patient_search_params: Person


class Request(Part, frozen=True, kw_only=True):
    """The request's element."""

    search_request_services_wrap: Wrap


class Wrong(Part, frozen=True, kw_only=True):
    """One of the systems asked could not answer; its words are for people."""

    display_text: str | None = None


class Found(Part, frozen=True, kw_only=True):
    """What one of the systems asked has found."""

    persons_data: list[Person] = []
    rmis_error: Wrong | None = None


class Answers(Part, frozen=True, kw_only=True):
    """What they all have found."""

    search_response_wrap: list[Found] = []


class Answer(Part, frozen=True, kw_only=True):
    """The answer's element; without the wrap it says neither who it is nor that it is nobody."""

    searched_response_services_wrap: Answers
