"""Every HTTP door of the connectors, called in this process as the server would call it."""

import shutil
from base64 import b64encode
from collections.abc import Sequence
from functools import cache
from pathlib import Path
from random import Random
from typing import Any, ClassVar, Final
from urllib.parse import quote

import msgspec
from lxml import etree

from connectors.partners.external import ExternalConnector
from connectors.partners.external.doors import OURS
from connectors.partners.remd import RemdConnector
from connectors.partners.rmis import RmisConnector
from connectors.partners.smp import SmpConnector
from connectors.partners.smp.doors import EXTRA, POSTED
from connectors.partners.sys112 import Sys112Connector, soapdoor
from connectors.partners.vimis import VimisConnector
from connectors.runtime.bus.connector import Connector
from connectors.runtime.door.callers import behind_guard
from connectors.runtime.door.serving import allow_only
from connectors.runtime.door.token import digest_of
from connectors.runtime.markup import soap, xml
from connectors.simulators.demo.signing import make_signer
from connectors.simulators.sys112.samples import day_of_cards
from proto import catalogue
from proto.configuration.questions import BUILT_IN
from tests.fuzz.mutate import NOISE, ODD_TEXT, mutated
from tests.fuzz.target import Taking, Target, Wrong
from tests.settings import settings_of

TOKEN: Final = "fuzz-token"
PARTNER: Final = {"url": "http://127.0.0.1:9", "system": "fuzz"}
BUSY: Final = 503  # the one 5xx that a contract has
Sample = tuple[str, str, bytes]  # method, path, body
Header = tuple[bytes, bytes]
KNOWN: Final = 0.9  # of the requests prove who asks: what is behind the guard is to be reached
_AUTHORIZATION: Final = b"authorization"
PROOFS: Final[tuple[tuple[Header, ...], ...]] = (
    ((_AUTHORIZATION, b"Bearer " + TOKEN.encode()),),
    ((_AUTHORIZATION, b"Basic " + b64encode(b"basic:" + TOKEN.encode())),),
    ((b"x-token", TOKEN.encode()),),
)
STRANGERS: Final[tuple[tuple[Header, ...], ...]] = (
    (), ((_AUTHORIZATION, b"Bearer " + TOKEN[:-1].encode()),), ((_AUTHORIZATION, b"Bearer"),),
    ((_AUTHORIZATION, b"Basic " + b64encode(b"bearer:" + TOKEN.encode())),),
    ((_AUTHORIZATION, b"Basic =" + b"A" * 1001),), ((b"x-token", b"\xff" * 400),),
    *(((_AUTHORIZATION, way + one),) for way in (b"Bearer ", b"Basic ") for one in NOISE),
)  # fmt: skip
RMIS_ASKED: Final = (
    ("transfer.state.v1", "card", "call_id"), ("hospital.booked.v1", "bed", "booking_id"),
    ("hospital.outcome.v1", "card", "call_id"), ("visit.state.v1", "visit", "visit_id"),
)  # fmt: skip
TURNED_AWAY: Final = frozenset({401, 403, 404, 405})


@cache
def signer(folder: Path) -> dict[str, Path]:
    """Return a key and a certificate, the same for all groups."""
    return make_signer(folder)


def _callers(folder: Path) -> dict[str, Any]:
    """Return callers, one for each way of bringing a token but by the path: see tests/security."""
    token = folder / "callers.token"
    token.touch(mode=0o600)
    token.write_text(digest_of(TOKEN) + "\n", encoding="ascii")
    known: dict[str, Any] = {way: {"token_file": token, "by": way} for way in ("bearer", "basic")}
    return known | {"header": {"token_file": token, "by": "header", "header": "X-Token"}}


def _encoded(tree: Any) -> bytes:
    return msgspec.json.encode(tree)


@cache
def cards() -> tuple[Sample, ...]:
    """Return what System-112 sends in a day."""
    paths = {"update": ("PUT", ""), "cancel": ("POST", "/cancel"), "close": ("POST", "/close")}
    return tuple(
        (paths[one.operation][0], f"/112/cards/{one.id112}{paths[one.operation][1]}",
         _encoded(one.body))
        for one in day_of_cards(3, 40)
    )  # fmt: skip


class DoorTarget(Target):
    """One connector's app behind its guard. A 5xx other than "the bus is away" is a finding."""

    shape: ClassVar[type[Connector]]
    connector: ClassVar[str]
    kind: ClassVar[Any] = "json"
    group = 400
    allowed_5xx: ClassVar[frozenset[int]] = frozenset({BUSY})

    def settings(self, folder: Path) -> dict[str, Any]:
        """Return what the connector is told besides its partner."""
        return {}

    def samples(self) -> Sequence[Sample]:
        """Return requests that are good."""
        raise NotImplementedError

    def headers(self, random: Random, known: bool = True) -> list[tuple[bytes, bytes]]:
        """Return what the requests of somebody `known`, or of a stranger, carry."""
        kind = b"text/xml; charset=utf-8" if self.kind == "xml" else b"application/json"
        proof = PROOFS if known else STRANGERS
        return [(b"content-type", kind), *random.choice(proof)]

    async def open(self, folder: Path) -> None:
        told = {"partner": PARTNER, "listen": "127.0.0.1:1", **self.settings(folder)}
        if not self.shape.knows_callers:
            told["callers"] = _callers(folder)
        settings = settings_of(told, self.shape.Settings)
        self._bus = Taking(self.connector)
        self._connector: Any = self.shape(self.connector, settings, self._bus)
        app = self._connector.app()
        assert app is not None
        guarded = behind_guard(app, self._connector, self.connector, settings, folder / "fuzz.toml")
        assert guarded is not None
        self.app = allow_only(guarded, settings.allow)
        self.requests = self.samples()

    async def close(self) -> None:
        await self._connector.close()

    async def run(self, random: Random) -> str:
        method, path, body = random.choice(self.requests)
        if random.random() < 0.9:
            body = mutated(self.kind, (body,), random)
        query = b""
        if random.random() < 0.1:
            path = _odd_path(path, random)
        if random.random() < 0.05:
            query = random.choice(NOISE) + b"=" + random.choice(NOISE)
        if random.random() < 0.02:
            method = random.choice(("GET", "DELETE", "HEAD", "PATCH", "X"))
        known = random.random() < KNOWN
        headers = self.headers(random, known)
        taken = self._bus.taken
        if random.random() < 0.05:
            headers.append((b"x-odd", random.choice(NOISE)))
            headers[0] = (b"content-type", random.choice(NOISE))
        self.shown = (method, path, query, headers, body)
        status = await call(self.app, method, path, query, headers, body, random)
        if status >= 500 and status not in self.allowed_5xx:
            raise Wrong(f"HTTP {status}")
        if not known and (status not in TURNED_AWAY or self._bus.taken != taken):
            raise Wrong(f"a stranger was answered {status}")
        return str(status)


def _odd_path(path: str, random: Random) -> str:
    parts = path.split("/")
    parts[random.randrange(1, len(parts))] = random.choice(ODD_TEXT)
    return "/".join(parts)


async def call(
    app: Any, method: str, path: str, query: bytes, headers: list[tuple[bytes, bytes]],
    body: bytes, random: Random,
) -> int:  # fmt: skip
    """Return the status of what an app answers; the body comes in one piece or in several."""
    cuts = sorted(random.randrange(len(body) + 1) for _ in range(random.choice((0, 0, 0, 2))))
    pieces = [body[at:to] for at, to in zip([0, *cuts], [*cuts, len(body)], strict=True)]
    status = 0

    async def receive() -> dict[str, Any]:
        if not pieces:
            return {"type": "http.disconnect"}
        return {"type": "http.request", "body": pieces.pop(0), "more_body": bool(pieces)}

    async def send(event: Any) -> None:
        nonlocal status
        if event["type"] == "http.response.start":
            status = int(event["status"])

    raw = quote(path, safe="/%", errors="surrogatepass").encode()
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": method,
        "scheme": "http", "path": path, "raw_path": raw, "query_string": query, "root_path": "",
        "headers": [*headers, (b"host", b"door"), (b"content-length", str(len(body)).encode())],
        "client": ("127.0.0.1", 40000), "server": ("127.0.0.1", 80),
    }  # fmt: skip
    await app(scope, receive, send)
    return status


class Sys112Door(DoorTarget):
    """Cards of System-112 as JSON."""

    name = "door.sys112"
    weight = 3.0
    shape, connector = Sys112Connector, "sys112"

    def settings(self, folder: Path) -> dict[str, Any]:
        return {"state_file": folder / "cards.db"}

    def samples(self) -> Sequence[Sample]:
        return cards()


class Sys112Soap(Sys112Door):
    """The same by SOAP."""

    name = "door.sys112.soap"
    weight = 2.0
    kind = "xml"
    allowed_5xx = frozenset({500, BUSY})  # SOAP 1.1 tells every Fault with 500; the log tells more

    def samples(self) -> Sequence[Sample]:
        return _soap_cards()


@cache
def _soap_cards() -> tuple[Sample, ...]:
    operations = {"update": "UpdateCard", "cancel": "CancelCard", "close": "CloseCard"}
    found = []
    for version in (soap.SOAP11, soap.SOAP12):
        for one in day_of_cards(4, 15):
            root = etree.Element(operations[one.operation])
            xml._write_fields(root, one.body, None, "")
            found.append(("POST", soapdoor.PATH, soap.envelope(root, soap=version)))
    return tuple(found)


class SmpDoor(DoorTarget):
    """What the ambulance system posts, asks and sends by the queue."""

    name = "door.smp"
    weight = 3.0
    shape, connector = SmpConnector, "smp"

    def settings(self, folder: Path) -> dict[str, Any]:
        return {"mode": "queue"}

    def samples(self) -> Sequence[Sample]:
        found = [
            ("POST", path, _encoded(catalogue.entry(type).example | EXTRA.get(type, {})))
            for path, type in POSTED.items()
        ]
        found += [
            ("POST", f"/bus/questions/{type}", _encoded(catalogue.entry(type).example))
            for type in BUILT_IN
        ]
        sent = [
            {"id": str(number), "type": type, "payload": catalogue.entry(type).example,
             "subject": "s", "priority": 1, "expires": "2099-01-01T00:00:00Z"}
            for number, type in enumerate(POSTED.values())
        ]  # fmt: skip
        found += [
            ("POST", "/queue/send", _encoded({"messages": sent[:3]})),
            ("POST", "/queue/send", _encoded({"messages": sent[3:]})),
            ("POST", "/queue/receive", _encoded({"max": 10, "wait_s": 0})),
            ("POST", "/queue/commit", _encoded({"refs": ["bus-1", "x"], "outcome": "ack"})),
            (
                "POST",
                "/queue/commit",
                _encoded({"refs": ["1"], "outcome": "reject", "reason": "r"}),
            ),
        ]
        return found


class RmisDoor(DoorTarget):
    """Changes of the hospitals' system, of things that it was asked for."""

    name = "door.rmis"
    weight = 2.0
    shape, connector = RmisConnector, "rmis"

    def settings(self, folder: Path) -> dict[str, Any]:
        return {"state_file": folder / "numbers.db"}

    async def open(self, folder: Path) -> None:
        await super().open(folder)
        for type, kind, key in RMIS_ASKED:
            told = catalogue.entry(type).example
            call = told["call_id"]
            self._connector.memory.note_asked(kind, told.get(key, call), call, call)

    def samples(self) -> Sequence[Sample]:
        types = ("transfer.state.v1", "hospital.booked.v1", "hospital.outcome.v1", "visit.state.v1")
        changes = [
            {"id": f"c{number}", "type": type,
             "body": {k: v for k, v in catalogue.entry(type).example.items() if k != "event_id"}}
            for number, type in enumerate(types)
        ]  # fmt: skip
        every = [_encoded({"changes": [one], "cursor": "1"}) for one in changes]
        return [("POST", "/rmis/changes", one) for one in (*every, _encoded({"changes": changes}))]


class ExternalDoor(DoorTarget):
    """Calls of outside services, and questions about them with a query."""

    name = "door.external"
    weight = 2.0
    shape, connector = ExternalConnector, "external"

    def settings(self, folder: Path) -> dict[str, Any]:
        token = folder / "platform.token"
        token.write_text(digest_of(TOKEN) + "\n", encoding="ascii")
        client = {"token_file": token, "requests_per_minute": 60_000}
        return {"state_file": folder / "calls.db", "clients": {"platform": client}}

    def headers(self, random: Random, known: bool = True) -> list[tuple[bytes, bytes]]:
        key = random.choice((b"key-%d" % random.randrange(1000), *NOISE[:20]))
        kind, *shown = super().headers(random, known)
        proof = [(b"authorization", b"Bearer " + TOKEN.encode())] if known else shown
        return [kind, *proof, (b"idempotency-key", key)]

    def samples(self) -> Sequence[Sample]:
        example = catalogue.entry("external.call.v1").example
        call = {name: value for name, value in example.items() if name not in OURS}
        one = "/external/calls/0123456789abcdef0123456789abcdef"
        return [
            *[("POST", "/external/calls", _encoded(call))] * 4,
            ("GET", one, b""),
            ("GET", f"{one}/events", b""),
            ("POST", f"{one}/cancel", _encoded({"reason": "not needed"})),
        ]


class SoapDoor(DoorTarget):
    """A door whose contract is SOAP."""

    kind = "xml"
    allowed_5xx = frozenset({500, BUSY})
    bodies: ClassVar[tuple[str, ...]]
    path: ClassVar[str]

    def settings(self, folder: Path) -> dict[str, Any]:
        document = {
            "organisation": {"oid": "1.2.643.5.1.13.13.12.2.99.9999", "name": "Станция"},
            "archive_file": folder / "documents.db",
            "signer": signer(folder.parent / "signing"),
        }
        return {"document": document}

    def samples(self) -> Sequence[Sample]:
        spaces = {soap.SOAP11: "soap", soap.SOAP12: "s"}
        return [
            ("POST", self.path,
             f'<?xml version="1.0"?><{tag}:Envelope xmlns:{tag}="{space}"><{tag}:Body>{body}'
             f"</{tag}:Body></{tag}:Envelope>".encode())
            for space, tag in spaces.items()
            for body in self.bodies
        ]  # fmt: skip


class RemdDoor(SoapDoor):
    """What РЭМД calls back."""

    name = "door.remd"
    weight = 0.5
    shape, connector = RemdConnector, "remd"
    path = "/remd"
    bodies = (
        '<r:getDocumentFileRequest xmlns:r="http://egisz.rosminzdrav.ru/iehr/emdr/callback/">'
        "<r:localUid>u-1</r:localUid></r:getDocumentFileRequest>",
        '<r:sendRegisterDocumentResultRequest xmlns:r="http://egisz.rosminzdrav.ru/iehr/emdr/'
        'callback/"><r:relatesToMessage>m-1</r:relatesToMessage><r:localUid>u-1</r:localUid>'
        "<r:status>success</r:status><r:registryItem><r:emdrId>77.1</r:emdrId>"
        "<r:registrationDateTime>2026-11-24T10:00:00+03:00</r:registrationDateTime>"
        "</r:registryItem></r:sendRegisterDocumentResultRequest>",
        "<sendRegisterDocumentResultRequest><localUid>u</localUid><status>error</status>"
        "<errors><item><code>DOCUMENT_ALREADY</code><message>m</message></item></errors>"
        "</sendRegisterDocumentResultRequest>",
    )

    def settings(self, folder: Path) -> dict[str, Any]:
        return super().settings(folder) | {"client": "c", "reply_to": "http://127.0.0.1/remd"}


class VimisDoor(SoapDoor):
    """What ВИМИС calls back."""

    name = "door.vimis"
    weight = 0.5
    shape, connector = VimisConnector, "vimis"
    path = "/vimis"
    bodies = (
        '<v:sendResult xmlns:v="http://callback.mis.vimis.rosminzdrav.ru/"><msg_id>m-1</msg_id>'
        "<status>1</status><description>ok</description></v:sendResult>",
        "<sendInterimMsg><msg_id>m-1</msg_id><description>d</description></sendInterimMsg>",
    )


def clear(folder: Path) -> None:
    """Forget what a group has left."""
    shutil.rmtree(folder, ignore_errors=True)


TARGETS: Final = (
    Sys112Door, Sys112Soap, SmpDoor, RmisDoor, ExternalDoor, RemdDoor, VimisDoor,
)  # fmt: skip
