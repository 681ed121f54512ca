"""What is said between us and ВИМИС: SOAP 1.1, receiver.wsdl for what we call.

We call it:   sendDocument  SendDocument -> MessageId;   checkStatus  MessageId -> Status
It calls us, at /vimis, one way:   sendResult  Result;   sendInterimMsg  Interim
"""

from pathlib import Path
from typing import Annotated, Final

import msgspec

from proto import clinical
from proto.configuration.typed import read_table

WSDL: Final = Path(__file__).with_name("receiver.wsdl")
SERVICE: Final = "http://vimis.rosminzdrav.ru/"
CALLBACK: Final = "http://callback.mis.vimis.rosminzdrav.ru/"
FILE: Final = "vimis.toml"


class Terms(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """config/vimis.toml: which cards are wanted, as what, and what a status means."""

    vmcl: int
    doc_type: int
    doc_type_version: int
    trigger_point: int
    diagnoses: tuple[str, ...]
    success: frozenset[int]
    working: frozenset[int]

    def wants(self, card: clinical.CallCard) -> bool:
        """Whether one of the card's diagnoses is among those wanted."""
        return any(one.code.startswith(self.diagnoses) for one in card.diagnoses)


class SendDocument(msgspec.Struct, frozen=True, rename="camel"):
    """A document, base64."""

    vmcl: int
    doc_type: int
    doc_type_version: int
    trigger_point: int
    document: bytes
    interim_msg: int | None = None


class MessageId(msgspec.Struct, frozen=True):
    """The number under which a document is looked at."""

    msg_id: Annotated[str, msgspec.Meta(min_length=1)]


class Status(msgspec.Struct, frozen=True):
    """What has become of it."""

    status: int
    description: str | None = None


class Result(msgspec.Struct, frozen=True):
    """The same, told by ВИМИС itself."""

    msg_id: str
    status: int
    description: str = ""


class Interim(msgspec.Struct, frozen=True):
    """A remark that changes nothing."""

    msg_id: str
    description: str = ""


def load_terms(file: Path | None = None) -> Terms:
    """Read the table. Raises StartError."""
    return read_table(Terms, FILE, file)[0]
