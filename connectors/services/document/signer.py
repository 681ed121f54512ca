"""Who signs documents: any class "MODULE:NAME" that is a `Signer`.

Russian law wants ГОСТ signatures by certified software, which stays outside: a region names its own
class. `RsaSigner` is for tests and for talking to test contours.
"""

import hashlib
import importlib
from dataclasses import dataclass
from typing import Annotated, Final, Protocol

import msgspec
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPrivateKey
from cryptography.hazmat.primitives.serialization import pkcs7

from connectors.runtime.log import LOG
from proto.configuration.declared import ReadFile, SecretFile
from proto.exits import StartError
from proto.ownership import is_open_to_others
from proto.wording import text

_FORMER_MODULE: Final = "connectors.document.signer"  # as settings of version 0.1 may have it
RSA: Final = "connectors.services.document.signer:RsaSigner"


@dataclass(frozen=True)
class Signed:
    """A detached signature (CMS, DER) and the document's SHA-256 in hex."""

    signature: bytes
    digest: str


class SignerSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """`use` is "MODULE:CLASS"; key and certificate are PEM files, the key its owner's alone. A
    signature that takes longer than `timeout_s` is given up, and tried again later."""

    use: str = RSA
    timeout_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 30.0
    key_file: SecretFile | None = None
    certificate_file: ReadFile | None = None


class Signer(Protocol):
    """Made with SignerSettings; raises StartError when these cannot work."""

    def __init__(self, settings: SignerSettings) -> None: ...

    def sign(self, document: bytes) -> Signed:
        """Return the signature of a document."""


class RsaSigner:
    """Detached CMS by RSA and SHA-256."""

    def __init__(self, settings: SignerSettings) -> None:
        if settings.key_file is None or settings.certificate_file is None:
            raise StartError(text("document.no_key"))
        try:
            key = serialization.load_pem_private_key(settings.key_file.read_bytes(), None)
            certificate = x509.load_pem_x509_certificate(settings.certificate_file.read_bytes())
        except (OSError, ValueError, TypeError):
            # What the library says may quote the file.
            raise StartError(text("document.bad_key", file=settings.key_file)) from None
        if is_open_to_others(settings.key_file):
            raise StartError(text("connector.secret_too_open", path=settings.key_file))
        if not isinstance(key, RSAPrivateKey):
            raise StartError(text("document.bad_key", file=settings.key_file))
        self._key = key
        self._certificate = certificate

    def sign(self, document: bytes) -> Signed:
        """See Signer."""
        builder = pkcs7.PKCS7SignatureBuilder().set_data(document)
        builder = builder.add_signer(self._certificate, self._key, hashes.SHA256())
        options = [pkcs7.PKCS7Options.DetachedSignature, pkcs7.PKCS7Options.Binary]
        signature = builder.sign(serialization.Encoding.DER, options)
        return Signed(signature, hashlib.sha256(document).hexdigest())


def load_signer(settings: SignerSettings) -> Signer:
    """Return the signer that the settings name. Raises StartError."""
    module, _, name = settings.use.partition(":")
    if module == _FORMER_MODULE:
        module = __name__
        LOG.warning(text("document.moved_signer", old=settings.use, new=f"{module}:{name}"))
    try:
        shape: type[Signer] = getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError):
        raise StartError(text("document.no_signer", name=settings.use)) from None
    return shape(settings)
