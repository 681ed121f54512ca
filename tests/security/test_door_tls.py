"""A door that speaks TLS itself, and who is known by the certificate that he shows."""

import contextlib
import http.client
import socket
import ssl
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors.runtime.door.token import make_token
from tests.contract.authority import Authority, Pair
from tests.integration.bus import SMPBUS, RouterProcess
from tests.ports import free_port

PATIENCE_S = 30.0
HEAD_S = 1.0
TABLE = """
[connectors.sys112]
listen = "127.0.0.1:{port}"
http.head_s = {head_s}
[connectors.sys112.partner]
url = "http://127.0.0.1:9"
[connectors.sys112.tls]
certificate_file = "{pair.certificate}"
key_file = "{pair.key}"
client_authority_file = "{region.ca_file}"
[connectors.sys112.callers.system112]
certificates = ["{fingerprint}"]
[connectors.sys112.callers.desk]
token_file = "desk.digests"
"""
PATH = "/112/nothing"
NOTHING_THERE = 404  # is told to those only who are known


def fingerprint(pair: Pair) -> str:
    """Return what an administrator is told by openssl."""
    command = ["openssl", "x509", "-in", str(pair.certificate), "-noout", "-fingerprint", "-sha256"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True, timeout=30)
    return shown.stdout.partition("=")[2].strip()


class Place:
    """A connector's process behind its own TLS."""

    def __init__(self, folder: Path, port: int, token: str, region: Authority) -> None:
        self.folder, self.port, self.token, self.region = folder, port, token, region

    def ask(self, shown: Pair | None = None, token: str = "", method: str = "GET") -> int:
        """Return the status of an answer; a certificate is shown when one is given."""
        context = ssl.create_default_context(cafile=str(self.region.ca_file))
        context.verify_flags &= ~ssl.VERIFY_X509_STRICT  # Python 3.13 has it on, others have not
        if shown is not None:
            context.load_cert_chain(shown.certificate, shown.key)
        line = http.client.HTTPSConnection(
            "127.0.0.1", self.port, timeout=PATIENCE_S, context=context
        )
        with contextlib.closing(line):
            line.request(
                method, PATH, headers={"authorization": f"Bearer {token}"} if token else {}
            )
            return line.getresponse().status


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Place]:
    folder = tmp_path_factory.mktemp("tls")
    region = Authority(folder / "region")
    pair, ours = region.issue("door"), region.issue("system112")
    port = free_port()
    permissions = '[peers.sys112]\npublish = ["*"]\nconsume = ["sys112", "deadlines"]\n'
    routes = "[destinations.sys112]\n[destinations.deadlines]\n"
    with RouterProcess(peers=(), routes=routes, permissions=permissions, curve=False) as router:
        token = make_token(router.folder / "desk.digests", None)
        table = TABLE.format(
            port=port, head_s=HEAD_S, pair=pair, region=region, fingerprint=fingerprint(ours)
        )
        with router.config.open("a") as file:
            file.write(table)
        with (router.folder / "sys112.log").open("wb") as log:
            process = subprocess.Popen(
                [SMPBUS, "connector", "sys112", "--config", router.config], stdout=log, stderr=log
            )
        try:
            router.wait_until("sessions", lambda answer: answer["sessions"])
            yield Place(router.folder, port, token, region)
        finally:
            process.terminate()
            process.wait(PATIENCE_S)


@pytest.mark.fault("S19")
def test_a_certificate_or_a_token_opens_a_door_of_tls(place: Place) -> None:
    """Doors spoke no TLS: secrets and patients went in clear unless somebody put a proxy before
    them. A certificate is known by its fingerprint: one of the same authority is not enough, nor
    one of the same name by another."""
    ours = Pair(*(place.region.ca_file.parent / f"system112.{end}" for end in ("pem", "key")))
    assert place.ask(ours) == NOTHING_THERE
    assert place.ask() == 401
    assert place.ask(token="x" * 43) == 401
    assert place.ask(token=place.token) == NOTHING_THERE
    assert place.ask(place.region.issue("other")) == 401
    assert place.ask(place.region.issue("other"), place.token) == NOTHING_THERE
    namesake = Authority(place.folder / "twin").issue("system112")
    with pytest.raises((ssl.SSLError, OSError, http.client.HTTPException)):
        place.ask(namesake)
    expired = place.region.issue("system112-old", days=-1)
    with pytest.raises((ssl.SSLError, OSError, http.client.HTTPException)):
        place.ask(expired)


@pytest.mark.fault("S19")
def test_what_is_no_tls_gets_nothing(place: Place) -> None:
    """A request in clear is not answered, and its token is in no log."""
    with socket.create_connection(("127.0.0.1", place.port), PATIENCE_S) as line:
        line.sendall(f"GET {PATH} HTTP/1.1\r\nauthorization: Bearer {place.token}\r\n\r\n".encode())
        answer = b""
        with contextlib.suppress(ConnectionError):
            answer = line.recv(100)
    assert not answer.startswith(b"HTTP")
    assert place.token not in (place.folder / "sys112.log").read_text(encoding="utf-8")


@pytest.mark.fault("S19")
def test_who_does_not_finish_the_handshake_is_let_go(place: Place) -> None:
    """The library waits a minute for a handshake, in which silence holds a descriptor; here it is
    as long as for a head."""
    began = time.monotonic()
    with socket.create_connection(("127.0.0.1", place.port), PATIENCE_S) as silent:
        silent.settimeout(PATIENCE_S)
        with contextlib.suppress(ConnectionError):
            assert silent.recv(1) == b""
    assert HEAD_S * 0.5 < time.monotonic() - began < PATIENCE_S
    assert place.ask(token=place.token) == NOTHING_THERE


@pytest.mark.fault("S19")
def test_a_key_that_others_may_read_is_refused(place: Place, tmp_path: Path) -> None:
    """So is one that is not of the certificate; the sentence names the key of the settings."""
    config = (place.folder / "smpbus.toml").read_text(encoding="utf-8")
    pair, other = place.region.issue("second"), place.region.issue("third")
    good = str(place.region.ca_file.parent / "door.key")
    for key, mode, word in ((pair.key, 0o644, str(pair.key)), (other.key, 0o600, "sys112.tls")):
        key.chmod(mode)
        file = place.folder / "wrong.toml"
        file.write_text(config.replace(good, str(key)), encoding="utf-8")
        done = subprocess.run(
            [SMPBUS, "connector", "sys112", "--config", file],
            capture_output=True, text=True, timeout=PATIENCE_S,
        )  # fmt: skip
        assert done.returncode == 78
        assert word in done.stderr
        assert "Traceback" not in done.stderr
