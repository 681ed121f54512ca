"""TLS with servers that are not ours, and the same decision about a certificate on every Python."""

import asyncio
import ssl
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Any

import msgspec
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from connectors.runtime.partner.partner import Partner, PartnerSettings
from connectors.runtime.partner.tls import client_context, make_context
from proto.client import Retry
from tests.contract.authority import HOST, Authority, Pair
from tests.faults.neighbours import apache, nginx
from tests.faults.partnerhouse import Side


@pytest.fixture
def region(tmp_path: Path) -> Authority:
    tmp_path.chmod(0o755)
    return Authority(tmp_path / "tls")


async def _asked(port: int, paths: list[str], **settings: Any) -> list[int]:
    """Return the statuses that a partner at this port answers to requests of 10 KB."""
    url = f"https://127.0.0.1:{port}"
    partner = Partner("test", msgspec.convert({"url": url} | settings, PartnerSettings))
    try:
        return [
            (await partner.send("POST", path, b"x" * 10_000, f"{n}", None, (403,))).status
            for n, path in enumerate(paths)
        ]
    finally:
        await partner.close()


@pytest.mark.fault("C5")
@pytest.mark.parametrize("protocol", ["TLSv1.3", "TLSv1.2"])
def test_apache_may_want_a_certificate_for_one_path(region: Authority, protocol: str) -> None:
    """Apache with SSLVerifyClient for one Location, under TLS 1.3, asked for our certificate after
    the handshake and did not get it: 403."""
    us = region.issue("us")
    settings = {
        "ca_file": region.ca_file,
        "client_certificate_file": us.certificate,
        "client_key_file": us.key,
    }
    side = Side()

    async def act() -> list[int]:
        async with side.listening() as url:
            behind = int(url.rpartition(":")[2])
            with apache(region.issue("server"), region.ca_file, behind, protocol) as port:
                return await _asked(port, ["/open", "/private/a", "/private/b"], **settings)

    assert asyncio.run(act()) == [200, 200, 200]
    assert [(one.path, len(one.body)) for one in side.asked] == [
        ("/open", 10_000),
        ("/private/a", 10_000),
        ("/private/b", 10_000),
    ]


@pytest.mark.fault("C5")
def test_without_a_certificate_the_open_path_is_open_and_the_other_is_not(
    region: Authority,
) -> None:
    """And nothing hangs."""
    side = Side()

    async def act(path: str) -> list[int]:
        async with side.listening() as url:
            behind = int(url.rpartition(":")[2])
            with apache(region.issue("server"), region.ca_file, behind) as port:
                return await _asked(port, [path], ca_file=region.ca_file)

    assert asyncio.run(act("/open")) == [200]
    with pytest.raises(Retry):
        asyncio.run(act("/private"))
    assert len(side.asked) == 1


@pytest.mark.fault("C5")
def test_the_authority_that_issues_is_enough(tmp_path: Path) -> None:
    """A `ca_file` with only the issuing authority was "not trusted" on Python 3.11, as the root is
    not in it; nginx shows its certificate alone, or with the issuer's."""
    tmp_path.chmod(0o755)
    chain = _Chain(tmp_path)
    us = chain.pair
    side = Side()

    async def act(ca_file: Path) -> list[int]:
        settings = {
            "ca_file": ca_file,
            "client_certificate_file": us.certificate,
            "client_key_file": us.key,
        }
        async with side.listening() as url:
            behind = int(url.rpartition(":")[2])
            with nginx(chain.pair, chain.both, behind) as port:
                return await _asked(port, ["/a", "/b"], **settings)

    assert asyncio.run(act(chain.issuing)) == [200, 200]
    other = Authority(tmp_path / "other", "other").ca_file
    with pytest.raises(Retry, match="certificate"):
        asyncio.run(act(other))


class _Chain:
    """A root, an authority that it vouches for, and a certificate that this one has issued."""

    def __init__(self, folder: Path) -> None:
        root_key, issuing_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(3))
        root = _signed("root", root_key, "root", root_key, is_authority=True)
        issuing = _signed("issuing", issuing_key, "root", root_key, is_authority=True)
        leaf = _signed("leaf", key, "issuing", issuing_key, is_authority=False)
        self.issuing, self.both = folder / "issuing.pem", folder / "both.pem"
        self.issuing.write_bytes(_pem(issuing))
        self.both.write_bytes(_pem(issuing) + _pem(root))
        self.pair = Pair(folder / "leaf.pem", folder / "leaf.key")
        self.pair.certificate.write_bytes(_pem(leaf))
        self.pair.key.touch(mode=0o600)
        plain = serialization.NoEncryption()
        form = serialization.PrivateFormat.PKCS8
        self.pair.key.write_bytes(key.private_bytes(serialization.Encoding.PEM, form, plain))


def _signed(
    name: str,
    key: ec.EllipticCurvePrivateKey,
    issuer: str,
    issuer_key: ec.EllipticCurvePrivateKey,
    *,
    is_authority: bool,
) -> x509.Certificate:
    now = datetime.now(UTC)
    made = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)]))
        .issuer_name(x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, issuer)]))
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(is_authority, None), critical=True)
    )
    if not is_authority:
        hosts = x509.SubjectAlternativeName([x509.IPAddress(ip_address(HOST))])
        made = made.add_extension(hosts, critical=False)
    return made.sign(issuer_key, hashes.SHA256())


def _pem(certificate: x509.Certificate) -> bytes:
    return certificate.public_bytes(serialization.Encoding.PEM)


@pytest.mark.fault("G2")
def test_the_decision_does_not_rest_on_pythons_defaults(region: Authority) -> None:
    """Since Python 3.13 the default is strict about X.509: a regional authority without the
    extensions that RFC 5280 wants would fall silent with an upgrade."""
    for context in (client_context(), client_context(region.ca_file)):
        assert not context.verify_flags & ssl.VERIFY_X509_STRICT
        assert context.verify_mode is ssl.CERT_REQUIRED
        assert context.check_hostname
    settings = PartnerSettings("https://127.0.0.1:1", ca_file=region.ca_file, strict_x509=True)
    strict = make_context(settings)
    assert strict is not None
    assert strict.verify_flags & ssl.VERIFY_X509_STRICT


@pytest.mark.fault("G2")
@pytest.mark.parametrize("strict", [False, True])
def test_what_a_certificate_lacks_is_named(
    region: Authority, strict: bool, caplog: pytest.LogCaptureFixture
) -> None:
    """Asked to be strict, the line says what is missing; what is trusted otherwise is so here, too.
    Sibling: "not trusted" was said alike of another host, another authority and an expired one."""
    us = region.issue("us")
    settings = {
        "client_certificate_file": us.certificate,
        "client_key_file": us.key,
        "strict_x509": strict,
    }

    async def act(pair: Pair, ca_file: Path) -> str:
        side = Side()
        async with side.listening() as url:
            behind = int(url.rpartition(":")[2])
            with nginx(pair, region.ca_file, behind) as port:
                try:
                    told = await _asked(port, ["/"], ca_file=ca_file, **settings)
                except Retry as retry:
                    return str(retry)
                return str(told[0])

    told = asyncio.run(act(region.issue("server"), region.ca_file))
    if strict:
        assert told == "connector.no_answer why=certificate"
        assert "Key Identifier" in caplog.text or "key usage" in caplog.text
        return
    assert told == "200"
    asyncio.run(act(region.issue("elsewhere", host="10.0.0.1"), region.ca_file))
    assert "10.0.0.1" not in caplog.text
    assert "address mismatch" in caplog.text
    asyncio.run(act(region.issue("old", days=-1), region.ca_file))
    assert "expired" in caplog.text
