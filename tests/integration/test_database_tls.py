"""A database on another machine: it proves who it is before it is told a password or a row."""

import asyncio
import shutil
import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors.partners.smpsql.connector import PostgresSettings, _address
from connectors.partners.smpsql.database import Address, Database, DatabaseAway
from proto.note import coded
from proto.wording import text
from tests.contract.authority import Authority
from tests.integration.postgres import BUS, PASSWORD, Postgres
from tests.ports import free_port

# A name of another machine; hostaddr says where it is in the test. Documentation only, RFC 5737.
ELSEWHERE = "192.0.2.7"
SSL_REQUEST_BYTES = 8

pytestmark = pytest.mark.fault("S11")


@pytest.fixture(scope="module")
def region(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def server(region: Authority) -> Iterator[Postgres]:
    with Postgres() as running:
        running.stop()
        pair = region.issue("database", host=ELSEWHERE)
        for source, name in ((pair.certificate, "server.crt"), (pair.key, "server.key")):
            made = shutil.copy(source, running.data / name)
            shutil.chown(made, running.data.owner())
            Path(made).chmod(0o600)
        with (running.data / "postgresql.conf").open("a") as settings:
            settings.write("ssl = on\n")
        running.start()
        yield running


@pytest.fixture
def login(tmp_path: Path) -> Path:
    file = tmp_path / "password"
    file.write_text(f"{BUS}:{PASSWORD}\n")
    file.chmod(0o600)
    return file


def url(port: int, more: str = "") -> str:
    return f"postgresql://{ELSEWHERE}:{port}/postgres?hostaddr=127.0.0.1{more}"


def asked(address: Address) -> tuple[bool, str]:
    """Return whether the connection is encrypted, or raise DatabaseAway."""

    async def ask() -> tuple[bool, str]:
        database = Database(address, 20.0)
        query = "SELECT ssl, current_user FROM pg_stat_ssl WHERE pid = pg_backend_pid()"
        try:
            [(ssl, user)] = await database.fetch(query)
        finally:
            await database.close()
        return bool(ssl), str(user)

    return asyncio.run(ask())


def test_it_is_believed_by_its_certificate(
    server: Postgres, region: Authority, login: Path
) -> None:
    address = Address(url(server.port), login, connect_s=5, ca_file=region.ca_file)
    assert address.unverified is None
    assert asked(address) == (True, BUS)


def test_another_authority_does_not_vouch_for_it(
    server: Postgres, login: Path, tmp_path: Path
) -> None:
    other = Authority(tmp_path / "other", "other")
    for ca_file in (other.ca_file, None):  # None: those that this machine trusts
        with pytest.raises(DatabaseAway) as away:
            asked(Address(url(server.port), login, connect_s=5, ca_file=ca_file))
        assert away.value.answer == coded("smpsql.untrusted")


@pytest.mark.parametrize(
    "environment", [{}, {"PGSSLMODE": "disable", "PGSSLROOTCERT": "/dev/null"}]
)
def test_one_that_speaks_no_tls_hears_nothing(
    environment: dict[str, str], login: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It says "no TLS" and would then ask for the password in clear."""
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    heard: list[bytes] = []
    port = free_port()
    with socket.create_server(("127.0.0.1", port)) as listener:

        def serve() -> None:
            wire, _ = listener.accept()
            with wire:
                heard.append(wire.recv(1024))
                wire.sendall(b"N")
                while more := wire.recv(1024):
                    heard.append(more)

        thread = threading.Thread(target=serve)
        thread.start()
        with pytest.raises(DatabaseAway) as away:
            asked(Address(url(port), login, connect_s=5))
        thread.join(10)
    assert [len(one) for one in heard] == [SSL_REQUEST_BYTES]
    assert away.value.answer == coded("smpsql.untrusted")


def test_what_the_url_asks_for_counts_and_is_warned_of(
    server: Postgres, login: Path, caplog: pytest.LogCaptureFixture
) -> None:
    partner = PostgresSettings(url=url(server.port, "&sslmode=require"), credentials_file=login)
    assert asked(_address(partner, partner.url)) == (True, BUS)
    assert (
        text("smpsql.unverified", place=f"{ELSEWHERE}:{server.port}", mode="require") in caplog.text
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "[::1]", ""])
def test_this_machine_needs_no_certificate(host: str) -> None:
    address = Address(f"postgresql://{host}/postgres", None, connect_s=5)
    assert address.unverified is None
    assert "sslmode=prefer" in address.conninfo
