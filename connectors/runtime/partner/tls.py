"""TLS towards a partner: whose certificate is trusted, and which one we show.

Without `ca_file` what the machine trusts is trusted. With one, only what is in it, root or not: a
region's own authority vouches for its systems, and no other can. The decision is the same whatever
Python's own defaults are: newer ones want of each certificate all that RFC 5280 has, and many a
region's authority is older than that; `strict_x509` asks for it.
"""

import ssl
from pathlib import Path
from typing import Final, Protocol
from urllib.parse import urlsplit

from proto.exits import StartError
from proto.ownership import is_open_to_others
from proto.wording import text

SCHEMES: Final = frozenset({"https", "tls"})
ELSEWHERE: Final = frozenset({"postgresql"})  # its own library speaks TLS, with the same files
CERTIFICATE, TLS = "certificate", "tls"  # kinds of a failure


class _Settings(Protocol):
    @property
    def url(self) -> str: ...
    @property
    def ca_file(self) -> Path | None: ...
    @property
    def client_certificate_file(self) -> Path | None: ...
    @property
    def client_key_file(self) -> Path | None: ...
    @property
    def strict_x509(self) -> bool: ...


def make_context(settings: _Settings) -> ssl.SSLContext | None:
    """Return how to speak to a partner, None when its address is a plain one. Raises StartError for
    files that cannot be used, and for files that would never be."""
    pair = (settings.client_certificate_file, settings.client_key_file)
    scheme = urlsplit(settings.url).scheme
    if scheme not in SCHEMES:
        if scheme not in ELSEWHERE and (settings.ca_file or any(pair)):
            raise StartError(text("tls.plain", url=_place(settings.url)))
        return None
    context = client_context(_readable(settings.ca_file), strict=settings.strict_x509)
    certificate, key = pair
    if certificate and key:
        _show(context, certificate, key)
    elif certificate or key:
        raise StartError(text("tls.half_pair", path=certificate or key))
    return context


def client_context(ca_file: Path | None = None, *, strict: bool = False) -> ssl.SSLContext:
    """Return how to speak to a server whose certificate is to be trusted."""
    context = ssl.create_default_context(cafile=ca_file)
    context.verify_flags &= ~(ssl.VERIFY_X509_STRICT | ssl.VERIFY_X509_PARTIAL_CHAIN)
    if strict:
        context.verify_flags |= ssl.VERIFY_X509_STRICT
    if ca_file is not None:
        context.verify_flags |= ssl.VERIFY_X509_PARTIAL_CHAIN
    # A server may want our certificate for some of its paths only, and ask when it knows the path.
    context.post_handshake_auth = True
    return context


def kind_of(error: BaseException | None) -> str | None:
    """Return "certificate" when the other side's is not trusted, "tls" when TLS was not agreed on,
    None when it is no matter of TLS."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return CERTIFICATE
        if isinstance(error, ssl.SSLError):
            return TLS
        error = error.__cause__ or error.__context__
    return None


def lack_of(error: BaseException | None) -> str:
    """Return what is wrong with the other side's certificate, as OpenSSL names it; "" when it is
    not about that."""
    while error is not None:
        if isinstance(error, ssl.SSLCertVerificationError):
            return str(error.verify_message)[:200]
        error = error.__cause__ or error.__context__
    return ""


def sentence_of(kind: str, lack: str = "") -> str:
    """Return what the administrator reads of a kind of failure and of what the certificate lacks,
    "" when it is none of TLS."""
    if kind == CERTIFICATE:
        return text("tls.certificate", lack=lack or "-")
    return text("tls.refused") if kind == TLS else ""


def _place(url: str) -> str:
    """Return a URL as far as no secret can be in it."""
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc.rpartition('@')[2]}"


def _readable(ca_file: Path | None) -> Path | None:
    """Raises StartError for a file without a certificate: the library would not say which."""
    if ca_file is None:
        return None
    try:
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_verify_locations(cafile=ca_file)
    except ssl.SSLError:
        raise StartError(text("tls.no_authority", path=ca_file)) from None
    except OSError as error:
        raise StartError(f"{ca_file}: {error.strerror}") from None
    return ca_file


def _show(context: ssl.SSLContext, certificate: Path, key: Path) -> None:
    try:
        open_to_others = is_open_to_others(key)
        certificate.stat()
    except OSError as error:
        raise StartError(f"{error.filename}: {error.strerror}") from None
    if open_to_others:
        raise StartError(text("connector.secret_too_open", path=key))
    try:
        # A key with a password would be asked for on the terminal, where nobody sits.
        context.load_cert_chain(certificate, key, password="")
    except (OSError, ValueError):
        raise StartError(text("tls.bad_pair", certificate=certificate, key=key)) from None
