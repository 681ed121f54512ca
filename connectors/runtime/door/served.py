"""What a connector declares of its door, and the endpoints that follow from it.

The body of "POST /results" becomes messages, which are on the router's disk before it is answered.
A method is named by where it is found from its owner, as in what a connector takes; so is a SOAP
service declared (`connectors.runtime.markup.soap.SoapServed`).
"""

import re
from collections.abc import Mapping
from operator import attrgetter
from typing import Any, Final, NamedTuple, Protocol

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.runtime.door.body import convert, decode, decode_urgent
from connectors.runtime.door.door import Door, Mended
from connectors.runtime.oddities import Odd
from proto.message import Message

_PARAMETER: Final = re.compile(r"\{([A-Za-z0-9_]+)")


class Came(NamedTuple):
    """What came beside its shape: the parameter of the path (None where it has none), the body, the
    same as plain JSON of what is urgent, and the operation."""

    about: str | None
    body: bytes
    raw: dict[str, Any]
    operation: str


class Owner(Protocol):
    """A connector, as far as its endpoints need it."""

    @property
    def door(self) -> Door: ...


class Service(Protocol):
    """What answers at one path."""

    def route(self, owner: Any, method: str, path: str) -> Route:
        """Return the route to put into an app of `owner`."""


class Served(NamedTuple):
    """One endpoint: the shape of what comes (bytes: as it is) and the method that makes messages of
    it, `method(value, came)`; it may raise BadInput. `operation` is its name in the contract, for
    people. What is `urgent` is taken without the characters that no text may have, rather than
    refused."""

    shape: Any
    method: str
    operation: str = ""
    urgent: bool = False

    def route(self, owner: Owner, method: str, path: str) -> Route:
        """See Service."""
        found = _PARAMETER.search(path)
        parameter = found[1] if found else None
        operation = self.operation or self.method

        def make(about: str, body: bytes) -> list[Message]:
            value, raw, odd = self._read(body)
            came = Came(about if parameter else None, body, raw, operation)
            messages: list[Message] = attrgetter(self.method)(owner)(value, came)
            return Mended(messages, odd) if self.urgent else messages

        async def endpoint(request: Request) -> Response:
            return await owner.door.answer(request, operation, make, parameter)

        return Route(path, endpoint, methods=[method])

    def _read(self, body: bytes) -> tuple[Any, dict[str, Any], list[Odd]]:
        """Return the body as its shape, and what `Came` and `Mended` need. Raises BadInput."""
        if self.urgent:
            raw, odd = decode_urgent(body)
            return convert(raw, self.shape), raw, odd
        return body if self.shape is bytes else decode(body, self.shape), {}, []


Serves = Mapping[str, Service]  # "METHOD /path" -> what answers there


def routes_of(owner: Owner, serves: Serves) -> list[Route]:
    """Return the routes of what `owner` serves, in their order."""
    return [served.route(owner, *key.split()) for key, served in serves.items()]
