"""What goes to other machines unprotected is told; what must not go so at all is refused."""

import asyncio
import hashlib
import subprocess
from pathlib import Path

import pytest

from connectors.partners.ats.ami import Packet, Parser
from connectors.partners.ats.session import AmiSession, LoginRefused
from connectors.partners.smpsql import SmpSqlConnector
from connectors.runtime.bus.settings import load
from proto.exits import StartError
from proto.inclear import in_clear, is_here
from tests.integration.bus import SMPBUS

ELSEWHERE = "192.0.2.7"  # of documentation: nobody's
TABLES = """
[connectors.smp]
listen = "127.0.0.1:1"
[connectors.smp.partner]
url = "http://{host}:8103"
connect_timeout_s = 0.1
[connectors.ats.partner]
url = "tcp://{host}:5038"
credentials_file = "ats.password"
[connectors.external]
listen = "127.0.0.1:1"
[connectors.external.clients.med]
token_file = "med.token"
[connectors.external.clients.med.webhook]
url = "http://{host}/hook"
secret_file = "med.secret"
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("routes.toml", "permissions.toml"):
        (tmp_path / name).touch()
    return tmp_path


def written(folder: Path, host: str) -> Path:
    config = folder / "smpbus.toml"
    bus = f'[bus]\ncurve = false\nlisten = "ipc://{folder}/bus.sock"\n[log]\nlanguage = "en"\n'
    config.write_text(
        bus.replace('"ipc', '["ipc').replace('sock"', 'sock"]') + TABLES.format(host=host)
    )
    return config


def told(*arguments: str | Path) -> str:
    done = subprocess.run(
        [SMPBUS, *arguments], capture_output=True, text=True, timeout=30, check=False
    )
    return done.stdout + done.stderr


@pytest.mark.fault("S19")
def test_a_plain_address_of_another_machine_is_told_by_the_check(folder: Path) -> None:
    """http:// with a password to another machine, and the secret of the exchange in clear, were
    taken without a word."""
    shown = told("--lang", "en", "config", "check", "--config", written(folder, ELSEWHERE))
    lines = [line for line in shown.splitlines() if ELSEWHERE in line]
    keys = [
        "connectors.smp.partner.url",
        "connectors.ats.partner.url",
        "connectors.external.clients.med.webhook.url",
    ]
    assert [next(key for key in keys if key in line) for line in lines] == keys
    assert ["password" in line for line in lines] == [False, True, True]
    assert "tls://" in lines[1]
    assert all("https://" in line for line in (lines[0], lines[2]))
    assert all("WARNING" in line for line in lines)
    quiet = told("--lang", "en", "config", "check", "--config", written(folder, "127.0.0.1"))
    assert "in clear" not in quiet


@pytest.mark.fault("S19")
def test_a_connector_tells_of_it_before_it_is_let_loose_and_at_its_start(folder: Path) -> None:
    """Both ways by which an administrator meets a connector; here is nobody to talk to."""
    config = written(folder, ELSEWHERE)
    checked = subprocess.Popen(
        [SMPBUS, "--lang", "en", "connector", "smp", "--config", config],
        stderr=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        text=True,
    )
    try:
        assert checked.stderr is not None
        first = next(line for line in checked.stderr if "WARNING" in line)
        assert ELSEWHERE in first
        assert "connectors.smp.partner.url" in first
    finally:
        checked.kill()
        checked.communicate()
    shown = told("--lang", "en", "connector", "smp", "--check", "--config", config)
    assert sum(ELSEWHERE in line and "WARNING" in line for line in shown.splitlines()) == 1


@pytest.mark.fault("S19")
def test_what_is_protected_or_stays_here_is_not_told() -> None:
    """A warning that says nothing new is read by nobody."""
    quiet = {
        "partner": {"url": "https://192.0.2.7/x", "credentials_file": "p"},
        "socket": {"url": "http://[::1]:8080"},
        "named": {"url": "http://localhost:8080"},
        "other_bus": {"url": "tcp://192.0.2.7:5570", "server_key": "other.pub"},
        "exchange": {"url": "tls://192.0.2.7:5039"},
        "bus": "tcp://192.0.2.7:5570",
        "note": "http://192.0.2.7",
    }
    assert list(in_clear(quiet, "connectors")) == []
    loud = {"list": [{"url": "HTTP://ats.example.org"}], "listen_url": "http://192.0.2.7"}
    assert [one.split(":")[0] for one in in_clear(loud, "c")] == ["c.list[0].url", "c.listen_url"]
    assert is_here("/run/postgresql")
    assert not is_here("10.0.0.1")


@pytest.mark.fault("S19")
@pytest.mark.parametrize("hidden", ["?password=Url-Secret-1", "?a=b&sslpassword=Url-Secret-1"])
def test_a_password_at_the_end_of_an_address_is_refused(folder: Path, hidden: str) -> None:
    """Where libpq takes one, too: the address is told in errors, and settings are read by many."""
    config = folder / "smpbus.toml"
    table = f'[connectors.smpsql.partner]\nurl = "postgresql://10.1.2.3/smp{hidden}"\n'
    config.write_text(f"[bus]\ncurve = false\n{table}")
    with pytest.raises(StartError, match="credentials_file") as caught:
        load("smpsql", SmpSqlConnector.Settings, config)
    assert "connectors.smpsql.partner.url" in caught.value.sentence
    assert "Url-Secret-1" not in caught.value.sentence


class Recorder:
    """An exchange that keeps what it is sent, with or without a challenge."""

    def __init__(self, offers: bool) -> None:
        self.offers = offers
        self.said = b""
        self.packets: list[Packet] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        parser = Parser()
        list(parser.feed(b"Asterisk Call Manager/7.0.3\r\n"))
        writer.write(b"Asterisk Call Manager/7.0.3\r\n")
        while data := await reader.read(4096):
            self.said += data
            for packet in parser.feed(data):
                self.packets.append(packet)
                good = packet["Action"] != "Challenge" or self.offers
                more = "Challenge: 4711\r\n" if packet["Action"] == "Challenge" and good else ""
                head = f"Response: {'Success' if good else 'Error'}\r\n"
                writer.write(f"{head}{more}ActionID: {packet['ActionID']}\r\n\r\n".encode())
        writer.close()


def login(exchange: Recorder, **how: bool) -> bool | type[Exception]:
    """Log in there; return whether the secret was hidden, or how it ended."""

    async def scene() -> bool | type[Exception]:
        server = await asyncio.start_server(exchange.serve, "127.0.0.1", 0)
        session = AmiSession(lambda _: asyncio.sleep(0), 5.0)
        await session.open("127.0.0.1", server.sockets[0].getsockname()[1], None)
        reading = asyncio.create_task(session.run())
        try:
            return await session.login("smpbus", "Ami-Secret-1", **how)
        except LoginRefused as refused:
            return type(refused)
        finally:
            session.close()
            await asyncio.gather(reading, return_exceptions=True)
            server.close()
            await server.wait_closed()

    return asyncio.run(scene())


@pytest.mark.fault("S19")
def test_the_secret_of_the_exchange_is_not_said_where_others_listen() -> None:
    """`Secret: Ami-Secret-1` went over the network. It is hidden by the challenge that the protocol
    has; where none is offered, it is said only to one that it may be said to."""
    offering = Recorder(offers=True)
    assert login(offering, hidden=True) is True
    assert b"Ami-Secret-1" not in offering.said
    expected = hashlib.md5(b"4711Ami-Secret-1", usedforsecurity=False).hexdigest()
    assert offering.packets[-1]["Key"] == expected
    old = Recorder(offers=False)
    assert login(old, hidden=True, must_hide=True) is LoginRefused
    assert b"Ami-Secret-1" not in old.said
    assert login(old, hidden=True) is False
    assert b"Ami-Secret-1" in old.said
    assert login(Recorder(offers=True)) is False
