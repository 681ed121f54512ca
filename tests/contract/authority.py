"""A certificate authority of a test's own: for servers that are trusted, and for those not."""

import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import NamedTuple

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

HOST = "127.0.0.1"


class Pair(NamedTuple):
    """PEM files of a certificate and its key."""

    certificate: Path
    key: Path


class Authority:
    """Issues certificates; its own is `ca_file`."""

    def __init__(self, folder: Path, name: str = "region") -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._folder = folder
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} authority")])
        self._key = ec.generate_private_key(ec.SECP256R1())
        self.ca_file = folder / f"{name}-ca.pem"
        basic = x509.BasicConstraints(ca=True, path_length=0)
        made = self._certificate(self._name, self._key, days=1).add_extension(basic, critical=True)
        signed = made.sign(self._key, hashes.SHA256())
        self.ca_file.write_bytes(signed.public_bytes(serialization.Encoding.PEM))

    def issue(self, name: str, host: str = HOST, days: int = 1, password: bytes = b"") -> Pair:
        """Return files of a certificate for `host`; with `days` below 0 it has expired."""
        key = ec.generate_private_key(ec.SECP256R1())
        about = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
        hosts = x509.SubjectAlternativeName([x509.IPAddress(ip_address(host))])
        made = self._certificate(about, key, days).add_extension(hosts, critical=False)
        signed = made.sign(self._key, hashes.SHA256())
        pair = Pair(self._folder / f"{name}.pem", self._folder / f"{name}.key")
        pair.certificate.write_bytes(signed.public_bytes(serialization.Encoding.PEM))
        pair.key.touch(mode=0o600)
        locked = serialization.BestAvailableEncryption(password) if password else None
        pair.key.write_bytes(
            key.private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.PKCS8,
                locked or serialization.NoEncryption(),
            )
        )
        return pair

    def _certificate(
        self, about: x509.Name, key: ec.EllipticCurvePrivateKey, days: int
    ) -> x509.CertificateBuilder:
        now = datetime.now(UTC)
        return (
            x509.CertificateBuilder()
            .subject_name(about)
            .issuer_name(self._name)
            .public_key(key.public_key())
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(days=9))
            .not_valid_after(now + timedelta(days=days))
        )


def serving(pair: Pair, clients_of: Authority | None = None) -> ssl.SSLContext:
    """Return how a server shows `pair`; with `clients_of` it wants a certificate of its caller."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pair.certificate, pair.key)
    if clients_of is not None:
        context.verify_mode = ssl.CERT_REQUIRED
        context.load_verify_locations(clients_of.ca_file)
        # By TLS 1.3 the refusal comes after the handshake, and may be overtaken by the hanging up.
        context.maximum_version = ssl.TLSVersion.TLSv1_2
    return context
