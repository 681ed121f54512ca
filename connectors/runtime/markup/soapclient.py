"""A SOAP client: zeep makes the envelopes of a package's WSDL, our own client sends them, and our
own reader reads the answers.

An answer is the element that the operation has in the WSDL, with all that the shape requires; a
foreign one, an empty one, one that cannot be read or none at all is a bad reply. What it has beyond
the WSDL is left out, and told once. Nothing is ever loaded from the network, and a document with a
DTD or entities is refused.
"""

import asyncio
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec
from lxml import etree

from connectors.runtime.door.body import BadInput
from connectors.runtime.log import LOG
from connectors.runtime.markup import soap, xml
from connectors.runtime.oddities import fit_path
from connectors.runtime.partner.partner import Partner
from proto.client import Reject
from proto.note import coded
from proto.wording import text

Shape = TypeVar("Shape", bound=msgspec.Struct)
TOLD_MAX: Final = 20
NAME_MAX: Final = 80


class SoapClient:
    """Calls the operations of `wsdl` at `path` of a partner; at most `threads` requests are made
    from their fields at once."""

    def __init__(
        self,
        partner: Partner,
        wsdl: Path,
        *,
        path: str = "",
        port: str | None = None,
        threads: int = 4,
    ) -> None:
        from connectors.runtime.markup.wsdl import Invalid, open_wsdl

        self._partner = partner
        self._path = path
        self._client = open_wsdl(wsdl)
        self._unsendable = (Invalid, TypeError, ValueError)
        self._service = self._client.bind(None, port)
        self._pool = ThreadPoolExecutor(threads, thread_name_prefix="soap")
        self._told: set[str] = set()

    def close(self) -> None:
        """Take no more calls; those under way end by the partner's timeout."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def call(
        self, operation: str, shape: type[Shape], key: str, fields: dict[str, Any]
    ) -> Shape:
        """Return the answer's element as `shape`. Raises Retry or Reject; a Fault of the sender is
        a Reject.

        `fields` are those of the request's element; `key` goes with the HTTP request.
        """
        loop = asyncio.get_running_loop()
        raw = await loop.run_in_executor(self._pool, self._made, operation, fields)
        described = self._service._binding.get(operation)
        sent = {
            "content-type": f"{soap.CONTENT_TYPE[soap.SOAP11]}; charset=utf-8",
            "accept": soap.CONTENT_TYPE[soap.SOAP11],
            "soapaction": f'"{described.soapaction or ""}"',
        }
        wanted = described.output.body

        def read(call: soap.Call) -> Shape:
            if xml.local(call.body) != wanted.qname.localname:
                raise BadInput("Body", "is not the answer of this operation")
            told = xml.read(call.body, shape)
            self._note_strange(operation, call.body, wanted.type)
            return told

        return await soap.send(self._partner, self._path, raw, key, read, sent)

    def _made(self, operation: str, fields: dict[str, Any]) -> bytes:
        """Return the request as it is sent. Raises Reject."""
        try:
            message = self._client.create_message(self._service, operation, **fields)
            return etree.tostring(message, xml_declaration=True, encoding="utf-8")
        except self._unsendable:
            # What the WSDL requires is missing from what we were given, or XML cannot hold it:
            # repeating cannot help.
            raise Reject(coded("connector.bad_body")) from None

    def _note_strange(self, operation: str, answer: xml.Element, kind: Any) -> None:
        """Tell once of each element that the WSDL does not know."""
        for name in _strange(answer, kind, ""):
            if name not in self._told and len(self._told) < TOLD_MAX:
                self._told.add(name)
                system = self._partner.outage.system
                LOG.warning(
                    text("connector.strange_element", system=system, operation=operation, name=name)
                )


def _strange(element: xml.Element, kind: Any, at: str) -> Iterator[str]:
    """Yield the paths of the children of `element` that its type does not have."""
    known = {one.qname.localname: one for _, one in getattr(kind, "elements", ()) if one.qname}
    for child in element:
        name = fit_path(f"{at}{xml.local(child)}"[:NAME_MAX])
        found = known.get(xml.local(child))
        if found is None:
            yield name
        else:
            yield from _strange(child, found.type, f"{name}.")
