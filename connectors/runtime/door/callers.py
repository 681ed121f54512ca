"""Who may come in at a connector's door, and how they prove who they are.

The runtime puts this before every app, so that no connector can forget it. A caller proves itself
by a token (as a bearer, as the password of HTTP Basic, in a header of its own, or as the first part
of the path), or by a certificate: shown to us over TLS, or to a proxy that proves itself. Whatever
is wrong, nothing of the app runs.
"""

import hashlib
import hmac
import re
from base64 import b64decode
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import unquote_to_bytes

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from connectors.runtime.bus.settings import DoorSettings
from connectors.runtime.door.doorsettings import ANYTHING, CallerSettings
from connectors.runtime.door.gate import membership
from connectors.runtime.door.refusals import REFUSED
from connectors.runtime.door.token import TokenFile
from connectors.runtime.log import LOG
from connectors.runtime.secretfile import read_secret
from proto.exits import StartError
from proto.wording import text

ANYBODY: Final = "-"  # the caller of an open door
PROXY_SECRET: Final = b"x-smpbus-proxy"
CERTIFICATE: Final = b"x-client-certificate"  # PEM, percent-encoded, as nginx has it
PROXY_SECRET_BYTES_MIN: Final = 32
UNAUTHORIZED: Final = b'{"code":401,"sentence":"this door asks who you are"}'
NOT_YOURS: Final = b'{"code":403,"sentence":"this is not yours to ask"}'
BEARER: Final = "Bearer"
BASIC: Final = 'Basic realm="smpbus"'


class DoorShape(Protocol):
    """What a connector says of its door: see Connector."""

    @property
    def door_scopes(self) -> Mapping[str, str]: ...
    @property
    def door_public(self) -> frozenset[str]: ...
    @property
    def knows_callers(self) -> bool: ...


class _Caller:
    def __init__(self, name: str, settings: CallerSettings, where: str) -> None:
        if settings.token_file is None and not settings.certificates:
            raise StartError(text("callers.no_proof", where=where))
        if (settings.by == "header") != bool(settings.header):
            raise StartError(text("callers.header", where=where))
        self.name = name
        self.settings = settings
        self.tokens = TokenFile(settings.token_file) if settings.token_file else None
        self.header = settings.header.lower().encode()
        self.certificates = [one.replace(":", "").lower() for one in settings.certificates]
        try:
            self.is_near = membership(settings.networks)
        except ValueError as error:
            raise StartError(text("callers.network", where=where, problem=error)) from None

    def brings(self, shown: "_Shown") -> bool:
        """Whether a token of this caller came; takes as long whatever the answer is."""
        return self.tokens is not None and self.tokens.admits(shown.token(self))

    def shows(self, shown: "_Shown") -> bool:
        """Whether a certificate of this caller came; takes as long whatever the answer is."""
        good = False
        for known in self.certificates:
            good |= hmac.compare_digest(known, shown.certificate)
        return good

    def may(self, scope: str) -> bool:
        return ANYTHING in self.settings.scopes or scope in self.settings.scopes


class _Shown:
    """What a request brings to prove who asks: digests, and the fingerprint of a certificate."""

    def __init__(self, scope: Scope, certificate: str) -> None:
        self.headers = dict(scope["headers"])
        self.certificate = certificate
        self.path, self.rest = _first_part(scope["path"])
        kind, _, given = self.headers.get(b"authorization", b"").partition(b" ")
        self._digests: dict[bytes, str] = {}
        self._bearer = given.strip() if kind.lower() == b"bearer" else b""
        self._user, self._password = _basic(given) if kind.lower() == b"basic" else (b"", b"")

    def token(self, caller: _Caller) -> str:
        """Return the digest of the token that came where this caller's is to be."""
        by = caller.settings.by
        if by == "bearer":
            token = self._bearer
        elif by == "basic":
            token = self._password if self._user == caller.name.encode() else b""
        elif by == "header":
            token = self.headers.get(caller.header, b"")
        else:
            token = self.path
        if token not in self._digests:
            self._digests[token] = hashlib.sha256(token).hexdigest()
        return self._digests[token]


class Callers:
    """All who may come in at one door."""

    def __init__(
        self,
        settings: Mapping[str, CallerSettings],
        scopes: Iterable[str],
        where: str,
        proxy_secret: bytes = b"",
    ) -> None:
        """`scopes` are those of the door; `where` names the settings. Raises StartError."""
        known = {ANYTHING, *scopes}
        self._callers = []
        for name, one in settings.items():
            unknown = sorted(set(one.scopes) - known)
            here = f"{where}.{name}"
            if unknown:
                told = ", ".join(sorted(known))
                raise StartError(text("callers.scope", where=here, scope=unknown[0], known=told))
            self._callers.append(_Caller(name, one, here))
        self._proxy_secret = proxy_secret
        ways = {one.by for one in settings.values()}
        asked = [word for way, word in (("bearer", BEARER), ("basic", BASIC)) if way in ways]
        self.challenge = {"www-authenticate": ", ".join(asked or [BEARER])}

    def find(self, scope: Scope) -> tuple[_Caller | None, str | None]:
        """Return who asks, None for nobody that we know; and the path without the secret when that
        is where it was."""
        certificate = scope.get("smpbus.certificate", "")
        headers = dict(scope["headers"])
        if self._proxy_secret:
            shown = headers.get(PROXY_SECRET, b"")
            if not hmac.compare_digest(shown, self._proxy_secret):
                return None, None
            certificate = fingerprint_of(headers.get(CERTIFICATE, b"")) or certificate
        shown_all = _Shown(scope, certificate)
        found: _Caller | None = None
        rest: str | None = None
        for one in self._callers:  # all of them: the time tells nothing
            brought, showed = one.brings(shown_all), one.shows(shown_all)
            if brought or showed:
                found = one
                rest = shown_all.rest if brought and one.settings.by == "path" else None
        return found, rest


class Guard:
    """ASGI middleware: nobody comes in but the callers, each where its scopes let it; the `public`
    paths describe the door, and are for everybody whom `allow` lets in."""

    def __init__(
        self,
        app: ASGIApp,
        callers: Callers | None,
        scope_of: Callable[[str], str],
        public: Iterable[str],
    ) -> None:
        """`callers` None: the door is open to whoever reaches it."""
        self._app = app
        self._callers = callers
        self._scope_of = scope_of
        self._public = frozenset(public)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or answer 401 or 403."""
        if scope["type"] != "http" or scope["path"] in self._public:
            await self._app(scope, receive, send)
            return
        if self._callers is None:
            scope["smpbus.caller"] = ANYBODY
            await self._app(scope, receive, send)
            return
        caller, rest = self._callers.find(scope)
        refused = None
        if caller is None:
            refused = Response(UNAUTHORIZED, 401, self._callers.challenge, "application/json")
        else:
            if rest is not None:
                # In place: whoever wrote the path down from here on would write the secret down.
                scope["path"], scope["raw_path"] = rest, rest.encode()
            near = caller.is_near((scope.get("client") or ("", 0))[0])
            if not near or not caller.may(self._scope_of(scope["path"])):
                scope[REFUSED] = "scope" if near else "address"
                refused = Response(NOT_YOURS, 403, None, "application/json")
            scope["smpbus.caller"] = caller.name
        await (refused or self._app)(scope, receive, send)


def scope_by(prefixes: Mapping[str, str]) -> Callable[[str], str]:
    """Return what tells the scope of a path: that of the longest of `prefixes`, else "" ."""
    longest = sorted(prefixes.items(), key=lambda one: -len(one[0]))

    def scope_of(path: str) -> str:
        return next((scope for prefix, scope in longest if _is_under(path, prefix)), "")

    return scope_of


def _is_under(path: str, prefix: str) -> bool:
    return path == prefix or path.startswith(prefix.rstrip("/") + "/")


def caller_of(scope: Scope) -> str:
    """Return the name of who asks, as the settings have it; "-" where the door is open."""
    return str(scope.get("smpbus.caller", ANYBODY))


def make_callers(
    shape: DoorShape | type[DoorShape], name: str, settings: DoorSettings, file: Path
) -> Callers | None:
    """Return who may come in at the door of connector `name`; None for everybody, if the settings
    say so, or for nobody, when nothing but figures is behind it. Raises StartError."""
    where = f"{file}, connectors.{name}"
    if settings.callers and settings.open:
        raise StartError(text("callers.open_and_callers", where=where))
    scopes: Mapping[str, str] = shape.door_scopes  # type: ignore[assignment]
    if settings.callers:
        secret = proxy_secret(settings.http.proxy_secret_file)
        return Callers(settings.callers, set(scopes.values()), f"{where}.callers", secret)
    if not settings.open and set(scopes) != {"/figures"}:
        raise StartError(text("callers.none", where=where, name=name))
    return None


def behind_guard(
    app: ASGIApp, shape: DoorShape, name: str, settings: DoorSettings, file: Path
) -> ASGIApp | None:
    """Return `app` behind the guard that the settings of connector `name` ask for. They have to
    name who may come in, or to say that the door is open: else None when nothing but figures is
    behind it, which stay away then. Raises StartError."""
    if shape.knows_callers:
        return app
    callers = make_callers(shape, name, settings, file)
    if callers is None and not settings.open:
        LOG.info(text("callers.shut", name=name, listen=settings.listen))
        return None
    if callers is None:
        LOG.warning(told_open(name, settings, shape.door_scopes))
    return Guard(app, callers, scope_by(shape.door_scopes), shape.door_public)


def told_open(name: str, settings: DoorSettings, scopes: Mapping[str, str]) -> str:
    """Return the warning of an open door: who can do what."""
    from_where = ", ".join(settings.allow)
    what = ", ".join(sorted(scopes)) or "/"
    return text("callers.open", name=name, listen=settings.listen, allow=from_where, what=what)


def proxy_secret(path: Path | None) -> bytes:
    """Return the secret by which a proxy proves itself, b"" when none is set. Raises StartError."""
    if path is None:
        return b""
    secret = read_secret(path)
    if len(secret) < PROXY_SECRET_BYTES_MIN:
        raise StartError(text("callers.short_secret", path=path, count=PROXY_SECRET_BYTES_MIN))
    return secret


def fingerprint_of(told: bytes) -> str:
    """Return the SHA-256 of a certificate that a proxy tells (PEM, percent-encoded), "" if none."""
    try:
        certificate = x509.load_pem_x509_certificate(unquote_to_bytes(told))
    except ValueError:
        return ""
    return hashlib.sha256(certificate.public_bytes(Encoding.DER)).hexdigest()


def _first_part(path: str) -> tuple[bytes, str]:
    first, slash, rest = path.removeprefix("/").partition("/")
    return first.encode(), f"{slash}{rest}" or "/"


_BASIC: Final = re.compile(rb"([^:]*):(.*)", re.DOTALL)


def _basic(given: bytes) -> tuple[bytes, bytes]:
    try:
        found = _BASIC.fullmatch(b64decode(given.strip(), validate=True))
    except ValueError:
        return b"", b""
    return (found[1], found[2]) if found else (b"", b"")
