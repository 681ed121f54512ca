"""What is said between us and РЭМД: SOAP 1.2, the fields by the names of its services.

We call it:
    registerDocument            RegisterDocument   -> Accepted (coarse check only: not registered)
It calls us, at /remd:
    getDocumentFile             GetDocumentFile    -> DocumentFile
    sendRegisterDocumentResult  RegisterResult     -> Taken

Each request of ours has a WS-Addressing header and the transport header with our client's id. The
register's own WSDL is not public: names are those that its clients use. WS-Security by ГОСТ is the
work of a gateway before us, or of a signer's.
"""

import uuid
from datetime import date, datetime
from typing import Final, Literal

import msgspec
from lxml import etree

from connectors.runtime.markup import xml

SERVICE: Final = "http://egisz.rosminzdrav.ru/iehr/emdr/service/"
CALLBACK: Final = "http://egisz.rosminzdrav.ru/iehr/emdr/callback/"
TRANSPORT: Final = "http://egisz.rosminzdrav.ru"
ADDRESSING: Final = "http://www.w3.org/2005/08/addressing"


class Shape(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Ground of the shapes."""


class Patient(Shape, frozen=True, kw_only=True):
    """The patient as the ambulance knows it; kind 115 allows that nothing is known."""

    local_id: str | None = None
    surname: str | None = None
    name: str | None = None
    patr_name: str | None = None
    birth_date: date | None = None
    snils: str | None = None
    gender: str | None = None


class Personal(Shape, frozen=True, kw_only=True):
    """Who signed: `role` is 1.2.643.5.1.13.13.99.2.368, `position` 1.2.643.5.1.13.13.11.1002."""

    local_id: str | None = None
    surname: str | None = None
    name: str | None = None
    patr_name: str | None = None
    snils: str | None = None
    role: str
    position: str | None = None


class Personals(Shape, frozen=True, kw_only=True):
    """All who signed."""

    item: list[Personal]


class RegisterDocument(Shape, frozen=True, kw_only=True):
    """Register a document; its file is asked for afterwards. `checksum` is SHA-256, hex."""

    local_uid: str
    kind: str
    document_number: str
    document_version: int
    creation_date_time: datetime
    organization: str
    patient: Patient | None = None
    personals: Personals | None = None
    checksum: str
    store_till_date: date


class ErrorItem(Shape, frozen=True, kw_only=True):
    """An error by its code of 1.2.643.5.1.13.13.99.2.305; its words may hold personal data."""

    code: str
    message: str = ""


class Errors(Shape, frozen=True, kw_only=True):
    """Why not."""

    item: list[ErrorItem] = []


class Accepted(Shape, frozen=True, kw_only=True):
    """The coarse check."""

    status: Literal["success", "error"]
    local_uid: str | None = None
    errors: Errors | None = None


class GetDocumentFile(Shape, frozen=True, kw_only=True):
    """The register wants the file."""

    local_uid: str


class DocumentFile(Shape, frozen=True, kw_only=True):
    """The file and its signatures, base64."""

    local_uid: str
    checksum: str
    content: bytes
    signature: list[bytes]


class RegistryItem(Shape, frozen=True, kw_only=True):
    """The place in the register."""

    emdr_id: str
    registration_date_time: datetime | None = None
    creation_date_time: datetime | None = None


class RegisterResult(Shape, frozen=True, kw_only=True):
    """The full check has ended."""

    relates_to_message: str | None = None
    local_uid: str | None = None
    status: Literal["success", "error"]
    kind: str | None = None
    organization: str | None = None
    registry_item: RegistryItem | None = None
    errors: Errors | None = None


class Taken(Shape, frozen=True, kw_only=True):
    """We have it."""

    status: Literal["success"] = "success"


def element(name: str, value: Shape, namespace: str = SERVICE) -> xml.Element:
    """Return the body's element of an operation or of its answer."""
    root = etree.Element(f"{{{namespace}}}{name}", nsmap={None: namespace})
    xml.write(root, value, namespace)
    return root


def header(action: str, to: str, reply_to: str, client: str, message: str) -> list[xml.Element]:
    """Return the header blocks of a request; `message` is its id, a UUID."""
    transport = etree.Element(f"{{{TRANSPORT}}}transportHeader", nsmap={"egisz": TRANSPORT})
    auth = etree.SubElement(transport, f"{{{TRANSPORT}}}authInfo")
    etree.SubElement(auth, f"{{{TRANSPORT}}}clientEntityId").text = client
    blocks = [transport]
    told = {"MessageID": f"urn:uuid:{message}", "Action": action, "To": to}
    for name, value in told.items():
        block = etree.Element(f"{{{ADDRESSING}}}{name}", nsmap={"wsa": ADDRESSING})
        block.text = value
        blocks.append(block)
    answer_to = etree.Element(f"{{{ADDRESSING}}}ReplyTo", nsmap={"wsa": ADDRESSING})
    etree.SubElement(answer_to, f"{{{ADDRESSING}}}Address").text = reply_to
    return [*blocks, answer_to]


def message_of(blocks: tuple[xml.Element, ...], name: str = "MessageID") -> str:
    """Return an id of a WS-Addressing header, "" if there is none."""
    for block in blocks:
        if etree.QName(block).namespace == ADDRESSING and xml.local(block) == name:
            return (block.text or "").strip().removeprefix("urn:uuid:")
    return ""


def new_message() -> str:
    """Return the id of an exchange."""
    return str(uuid.uuid4())
