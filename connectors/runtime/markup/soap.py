"""A SOAP server, one for all connectors: SOAP 1.1 and 1.2, document/literal, one path per service.

A request is read within limits, its body element names the operation, the operation returns the
answer's element. What breaks the contract becomes a Fault of the sender, a bus that is away one of
the receiver; no Fault tells a value or a trace. The WSDL is the one of the package, served as it
is with the address that the caller used.
"""

import math
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass, replace
from functools import partial
from operator import attrgetter
from typing import Any, Final, NamedTuple, TypeVar

import msgspec
from lxml import etree
from starlette.requests import ClientDisconnect, Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.runtime.bus.ingress import NotAccepted
from connectors.runtime.door.body import BadInput, read_body
from connectors.runtime.log import LOG
from connectors.runtime.markup import xml
from connectors.runtime.markup.multiref import follow
from connectors.runtime.partner.partner import EXPLAINED, Answer, BadReply, Partner
from connectors.runtime.statefile import StateAway
from connectors.runtime.words import code_of
from proto.client import Reject, Retry
from proto.note import coded
from proto.wording import text

SOAP11: Final = "http://schemas.xmlsoap.org/soap/envelope/"
SOAP12: Final = "http://www.w3.org/2003/05/soap-envelope"
CONTENT_TYPE: Final = {SOAP11: "text/xml", SOAP12: "application/soap+xml"}
SENDERS: Final = frozenset({"Client", "Sender"})
CODES: Final = {
    SOAP11: {"sender": "Client", "receiver": "Server", "mustUnderstand": "MustUnderstand"},
    SOAP12: {"sender": "Sender", "receiver": "Receiver", "mustUnderstand": "MustUnderstand"},
}
Result = TypeVar("Result")
Shape = TypeVar("Shape", bound=msgspec.Struct)
LANG: Final = "{http://www.w3.org/XML/1998/namespace}lang"
ADDRESS: Final = b"{address}"


class Fault(Exception):
    """The answer is a Fault: `who` is to blame, "sender" or "receiver"; `reason` is for people and
    holds nothing of the request."""

    def __init__(self, who: str, reason: str, retry_after_s: int | None = None) -> None:
        super().__init__(who)
        self.who = who
        self.reason = reason
        self.retry_after_s = retry_after_s


@dataclass(frozen=True)
class Call:
    """A request: its `body` element, what stood in the header, and the whole as it came; `key` is
    the idempotency key of the HTTP request, "" if there was none."""

    version: str
    header: tuple[xml.Element, ...]
    body: xml.Element
    raw: bytes
    key: str = ""


# None: a one-way operation, answered by HTTP alone.
Operation = Callable[[Call], Awaitable[xml.Element | None]]


def envelope(
    body: xml.Element | None, header: Collection[xml.Element] = (), soap: str = SOAP11
) -> bytes:
    """Return the document of an envelope."""
    root = etree.Element(f"{{{soap}}}Envelope", nsmap={"soap": soap})
    if header:
        etree.SubElement(root, f"{{{soap}}}Header").extend(header)
    inner = etree.SubElement(root, f"{{{soap}}}Body")
    if body is not None:
        inner.append(body)
    return xml.render(root)


def read_envelope(raw: bytes) -> Call:
    """Return what is in an envelope. Raises BadInput."""
    root = xml.parse(raw)
    name = etree.QName(root)
    if name.localname != "Envelope" or name.namespace not in CONTENT_TYPE:
        raise BadInput("", "is not a SOAP envelope")
    header = root.find(f"{{{name.namespace}}}Header")
    body = root.find(f"{{{name.namespace}}}Body")
    if body is not None:
        follow(body)
    if body is None or len(body) != 1:
        raise BadInput("Envelope.Body", "has not exactly one element")
    return Call(name.namespace, tuple(header if header is not None else ()), body[0], raw)


def fault(soap: str, who: str, reason: str) -> bytes:
    """Return the document of a Fault."""
    root = etree.Element(f"{{{soap}}}Fault", nsmap={"soap": soap})
    code = f"soap:{CODES[soap][who]}"
    if soap == SOAP11:
        etree.SubElement(root, "faultcode").text = code
        etree.SubElement(root, "faultstring").text = reason
    else:
        value = etree.SubElement(root, f"{{{soap}}}Code")
        etree.SubElement(value, f"{{{soap}}}Value").text = code
        told = etree.SubElement(root, f"{{{soap}}}Reason")
        sentence = etree.SubElement(told, f"{{{soap}}}Text", {LANG: "en"})
        sentence.text = reason
    return envelope(root, soap=soap)


async def ask(
    partner: Partner,
    path: str,
    body: xml.Element,
    key: str,
    read: Callable[[Call], Result],
    *,
    header: Collection[xml.Element] = (),
    soap: str = SOAP12,
    sent: Mapping[str, str] | None = None,
) -> Result:
    """Ask a partner whose WSDL is not to be had, and return what `read` makes of the answer; it may
    raise BadInput. `sent` are headers of the HTTP request. Raises Retry, or Reject for a sender's
    Fault."""
    kind = f"{CONTENT_TYPE[soap]}; charset=utf-8"
    action = {"soapaction": '""'} if soap == SOAP11 else {}
    headers = {**action, **(sent or {}), "content-type": kind, "accept": CONTENT_TYPE[soap]}
    return await send(partner, path, envelope(body, header, soap), key, read, headers)


def read_answer(call: Call, shape: type[Shape]) -> Shape:
    """Return the answer's element as `shape`, of a partner whose WSDL is not to be had: whatever it
    is called, it is a response. Raises BadInput."""
    if not xml.local(call.body).endswith("Response"):
        raise BadInput("Body", "is no response")
    return xml.read(call.body, shape)


async def send(
    partner: Partner,
    path: str,
    raw: bytes,
    key: str,
    read: Callable[[Call], Result],
    headers: Mapping[str, str],
) -> Result:
    """Send an envelope as `ask` does."""

    def told(answer: Answer) -> Result:
        try:
            call = read_envelope(answer.body)
            if xml.local(call.body) == "Fault":
                raise _refused(call)
            if answer.status >= 300:
                raise BadInput("", "is no answer")
            return read(call)
        except BadInput:
            raise BadReply(coded("connector.bad_reply", status=answer.status)) from None

    return await partner.ask("POST", path, raw, key, told, headers, EXPLAINED | {500})


def _refused(call: Call) -> Retry | Reject:
    code = call.body.findtext("faultcode") or call.body.findtext("{*}Code/{*}Value") or ""
    code = code.rpartition(":")[2]
    note = coded("connector.fault", code=code_of(code))
    return Reject(note) if code.partition(".")[0] in SENDERS else Retry(note)


class SoapService:
    """One address and its operations, by the local name of the body's element. `understands` are
    the namespaces of header blocks that may be marked mustUnderstand."""

    def __init__(
        self,
        path: str,
        operations: Mapping[str, Operation],
        *,
        wsdl: bytes = b"",
        bytes_max: int,
        understands: Collection[str] = (),
    ) -> None:
        self._path = path
        self._operations = operations
        self._wsdl = wsdl
        self._bytes_max = bytes_max
        self._understands = frozenset(understands)

    def route(self) -> Route:
        """Return the route to put into an app."""
        return Route(self._path, self._endpoint, methods=["GET", "POST"])

    async def _endpoint(self, request: Request) -> Response:
        if request.method != "POST":
            return self._description(request)
        soap = SOAP12 if "soap+xml" in request.headers.get("content-type", "") else SOAP11
        try:
            call = read_envelope(await read_body(request, self._bytes_max))
            soap = call.version
            call = replace(call, key=request.headers.get("idempotency-key", ""))
            answer = await self._operation(call)(call)
        except BadInput as bad:
            return _fault(soap, Fault("sender", bad.sentence))
        except NotAccepted as error:
            return _fault(soap, Fault("receiver", error.sentence, error.retry_after_s))
        except Fault as told:
            return _fault(soap, told)
        except StateAway as away:
            busy = "The service bus is busy; please repeat."
            return _fault(soap, Fault("receiver", busy, math.ceil(away.wait_s)))
        except ClientDisconnect:
            raise  # it hung up before it had said everything: nobody's mistake, nobody to answer
        except Exception as error:  # its text may hold personal data
            LOG.error(text("connector.mistake", id=self._path, kind=type(error).__name__))
            return _fault(soap, Fault("receiver", "The service bus made a mistake."))
        if answer is None:
            return Response(status_code=202)
        return Response(envelope(answer, soap=soap), media_type=CONTENT_TYPE[soap])

    def _operation(self, call: Call) -> Operation:
        for block in call.header:
            wanted = block.get(f"{{{call.version}}}mustUnderstand") in ("1", "true")
            if wanted and etree.QName(block).namespace not in self._understands:
                raise Fault("mustUnderstand", f"Header.{xml.local(block)}: is not understood")
        operation = self._operations.get(xml.local(call.body))
        if operation is None:
            known = ", ".join(sorted(self._operations))
            raise Fault("sender", f"There is no such operation here; there are: {known}.")
        return operation

    def _description(self, request: Request) -> Response:
        if not self._wsdl or "wsdl" not in {key.lower() for key in request.query_params}:
            return Response("POST a SOAP request; ?wsdl describes it.\n", 405, {"allow": "POST"})
        address = str(request.url.replace(query="")).encode("ascii", "xmlcharrefreplace")
        address = address.replace(b"&", b"&amp;").replace(b'"', b"&quot;")
        return Response(self._wsdl.replace(ADDRESS, address), media_type="text/xml")


class SoapServed(NamedTuple):
    """A SOAP service as a connector declares it: shape and method by operation. The method gets the
    body and the call and returns the answer's element. `admit` is the method that looks at every
    call first and may raise Fault; `understands` the attribute that has those namespaces."""

    operations: Mapping[str, tuple[type[msgspec.Struct], str]]
    admit: str = ""
    understands: str = ""

    def route(self, owner: Any, method: str, path: str) -> Route:
        """Return the route to put into the app of connector `owner`; its bodies are as long as its
        settings let them be."""
        operations = {
            name: partial(self._answer, owner, *declared)
            for name, declared in self.operations.items()
        }
        understands = getattr(owner, self.understands) if self.understands else ()
        bytes_max = owner.settings.body_bytes_max
        return SoapService(path, operations, bytes_max=bytes_max, understands=understands).route()

    async def _answer(
        self, owner: Any, shape: type[msgspec.Struct], method: str, call: Call
    ) -> xml.Element | None:
        if self.admit:
            await attrgetter(self.admit)(owner)(call)
        answer: xml.Element | None
        answer = await attrgetter(method)(owner)(xml.read(call.body, shape), call)
        return answer


def _fault(soap: str, told: Fault) -> Response:
    # SOAP 1.2 gives 400 to a Fault of the sender; SOAP 1.1 knows only 500.
    status = 400 if soap == SOAP12 and told.who == "sender" else 500
    headers = {} if told.retry_after_s is None else {"retry-after": str(told.retry_after_s)}
    return Response(
        fault(soap, told.who, told.reason), status, headers, media_type=CONTENT_TYPE[soap]
    )
