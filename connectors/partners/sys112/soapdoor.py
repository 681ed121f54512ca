"""The five operations as SOAP 1.1, the protocol's own form (ПИТВ ГИС ЦПГ, section on messages).

Element names are those of the protocol; a request is answered in its own namespace. The protocol
knows the codes 200, 403, 404, 500 and 503 only: what breaks the contract is 500 with the field and
the rule, what the bus cannot take now is 503, and System-112 repeats it.
"""

from collections.abc import Mapping
from typing import Any, Final, Protocol

import msgspec
from lxml import etree
from starlette.routing import Route

from connectors.partners.sys112 import contract
from connectors.runtime.door.body import refuse
from connectors.runtime.door.door import ACCEPTED, Door, Mended
from connectors.runtime.door.served import Came, Served
from connectors.runtime.markup import soap, xml
from connectors.runtime.oddities import mended, odd_times, oddities
from proto.message import Message

PATH: Final = "/112/soap"
NAMESPACE: Final = "http://system112.ru/112/integration"
PROTOCOL_CODES: Final = frozenset({200, 403, 404, 500, 503})


class CardReply(msgspec.Struct, frozen=True):
    """The answer to UpdateCard."""

    Id112: str
    Code: str
    CodeDescr: str | None = None


class PlainReply(msgspec.Struct, frozen=True):
    """The answer to the other operations."""

    Code: str
    CodeDescr: str | None = None


class Owner(Protocol):
    """The connector whose operations these are."""

    @property
    def serves(self) -> Mapping[str, Any]: ...
    @property
    def door(self) -> Door: ...


def service(owner: Owner, bytes_max: int) -> Route:
    """Return the route of the service, for all that `owner` serves as JSON, too."""
    operations = {
        f"{one.operation}Request": _operation(owner, one) for one in owner.serves.values()
    }
    return soap.SoapService(PATH, operations, bytes_max=bytes_max).route()


def _operation(owner: Owner, served: Served) -> soap.Operation:
    name, shape, make = served.operation, served.shape, getattr(owner, served.method)

    async def operation(call: soap.Call) -> xml.Element:
        about = _card_of(call.body)

        def messages() -> list[Message]:
            raw = xml.plain(call.body, shape)
            odd = list(oddities(raw))
            raw = mended(raw)
            typed = xml.typed(raw, shape)
            refuse(odd_times(typed))
            return Mended(make(typed, Came(None, call.raw, raw, name)), odd)

        verdict = await owner.door.take(name, about, call.raw, messages)
        code = verdict.status if verdict.status in PROTOCOL_CODES else 500
        told = None if code == 200 and verdict.sentence == ACCEPTED else verdict.sentence
        return answer(name, about, code, told, etree.QName(call.body).namespace)

    return operation


def _card_of(body: xml.Element) -> str:
    """Return the Id112 of a request, wherever it stands; "" when there is none."""
    found = body.findtext("{*}Card/{*}Id112") or body.findtext("{*}Id112") or ""
    return found.strip()[:200]


def answer(
    name: str, id112: str, code: int, told: str | None, namespace: str | None
) -> xml.Element:
    """Return the element of an answer."""
    space = namespace or NAMESPACE
    root = etree.Element(f"{{{space}}}{name}Response", nsmap={None: space})
    reply: msgspec.Struct = PlainReply(str(code), told)
    if name == "UpdateCard":
        reply = CardReply(id112, str(code), told)
    xml.write(root, reply, space)
    return root


def request(name: str, value: contract.Part | dict[str, Any]) -> xml.Element:
    """Return the element of a request; a dict is one with fields beyond the contract."""
    root = etree.Element(f"{{{NAMESPACE}}}{name}Request", nsmap={None: NAMESPACE})
    xml.write(root, value, NAMESPACE)
    return root


def code_of(reply: soap.Call) -> str:
    """Return the Code of an answer. Raises BadInput."""
    return soap.read_answer(reply, PlainReply).Code
