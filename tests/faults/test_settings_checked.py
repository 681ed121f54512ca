"""What the checks call good, starts: of connectors, too."""

import os
import shutil
import socket
import subprocess
from pathlib import Path

import pytest

from proto import wording
from proto.configuration.shipped import shipped_folder
from proto.keys import KeyPair
from router.commands import main
from tests.integration.bus import SMPBUS
from tests.ports import free_port

MAIN = """
[bus]
listen = ["ipc://bus.sock"]
keys_dir = "keys"
[ops]
listen = "ipc://ops.sock"
events = "ipc://events.sock"
[connectors.smp]
mode = "push"
[connectors.smp.partner]
url = "http://127.0.0.1:8103"
"""
RMR = """
[connectors.rmr]
open = true
listen = "{listen}"
[connectors.rmr.partner]
url = "http://127.0.0.1:8116"
connect_timeout_s = 0.2
"""


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(wording, "_chosen", None)
    monkeypatch.delenv("SMPBUS_LANG", raising=False)
    for name in ("routes.toml", "permissions.toml"):
        shutil.copy(shipped_folder() / name, tmp_path)
    for name in ("router", "rmr"):
        KeyPair.new().save(tmp_path / "keys", name)
    monkeypatch.setenv("SMPBUS_CONFIG", str(tmp_path / "smpbus.toml"))
    return tmp_path


def checked(folder: Path, capsys: pytest.CaptureFixture[str], content: str) -> tuple[int, str]:
    (folder / "smpbus.toml").write_text(content, encoding="utf-8")
    status = main(["config", "check"])
    return status, capsys.readouterr().err


@pytest.mark.fault("B2")
@pytest.mark.parametrize(
    ("old", "new", "line", "named"),
    [
        ('mode = "push"', 'mod = "push"', 9, "connectors.smp.mod; вероятно, имелось в виду mode"),
        ('mode = "push"', "mode = 5", 9, "connectors.smp.mode: ожидается строка"),
        ('mode = "push"', "callers.x.by = 'air'", 9, "connectors.smp.callers.x.by: нужно одно"),
        ("url = ", "ulr = ", 11, "connectors.smp.partner.ulr; вероятно, имелось в виду url"),
        ("http://", "http://user:pass@", 11, "имя и пароль в адресе не пишут"),
        ("http://", "", 11, "connectors.smp.partner.url: нужно вида http://"),
    ],
)
def test_a_mistake_in_a_connectors_table_is_found_by_the_check(
    folder: Path, capsys: pytest.CaptureFixture[str], old: str, new: str, line: int, named: str
) -> None:
    """`config check` said that the settings were good, and the connector did not start."""
    status, told = checked(folder, capsys, MAIN.replace(old, new))
    assert status == 78
    assert f"{folder / 'smpbus.toml'}, строка {line}: " in told
    assert named in told
    assert "user:pass" not in told


@pytest.mark.fault("B2")
def test_the_connector_says_the_same_sentence(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, told = checked(folder, capsys, MAIN.replace("mode", "mod"))
    command = [SMPBUS, "connector", "smp"]
    started = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (started.returncode, started.stderr.splitlines()[-1]) == (78, told.splitlines()[-1])


@pytest.mark.fault("B2")
def test_what_was_not_looked_at_is_said_in_one_line(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A table of no kind that is installed may be an integrator's, or misspelt."""
    status, told = checked(folder, capsys, MAIN.replace("connectors.smp", "connectors.smpp"))
    assert status == 0
    (line,) = [line for line in told.splitlines() if "[connectors.smpp]" in line]
    assert 'имелось в виду "smp"' in line
    assert "не проверена" in line


@pytest.mark.fault("B2")
def test_a_table_says_of_which_kind_it_is(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """One that is started with --kind is told by what it has; with `kind` it is checked as that."""
    table = MAIN.replace("http:", "postgresql:").replace('mode = "push"', "batch_rows = 5")
    status, told = checked(folder, capsys, table)
    assert (status, told.count('впишите в [connectors.smp] kind = "smpsql"')) == (0, 1)
    assert "connectors.smp.batch_rows" in told
    said = table.replace("batch_rows", 'kind = "smpsql"\nbatch_rows')
    assert "smpsql" not in checked(folder, capsys, said)[1]
    status, told = checked(folder, capsys, said.replace("batch_rows", "batch_row"))
    assert status == 78
    assert "connectors.smp.batch_row; вероятно, имелось в виду batch_rows" in told


@pytest.mark.fault("B2")
def test_a_router_without_its_key_is_told(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert "router.key" not in checked(folder, capsys, MAIN)[1]
    (folder / "keys" / "router.key").unlink()
    assert str(folder / "keys" / "router.key") in checked(folder, capsys, MAIN)[1]


def check_of_rmr(folder: Path, more: str = "", listen: str = "") -> tuple[int, str]:
    content = MAIN + RMR.format(listen=listen or f"127.0.0.1:{free_port()}") + more
    (folder / "smpbus.toml").write_text(content, encoding="utf-8")
    done = subprocess.run(
        [SMPBUS, "connector", "rmr", "--check"], env=os.environ | {"SMPBUS_LANG": "en"},
        capture_output=True, text=True, timeout=60,
    )  # fmt: skip
    return done.returncode, done.stdout + done.stderr


@pytest.mark.fault("B3")
@pytest.mark.parametrize(
    ("more", "named"),
    [
        ('credentials_file = "rmr.password"\n', "connectors.rmr.partner.credentials_file"),
        ('client_key_file = "rmr.key.pem"\n', "connectors.rmr.partner.client_key_file"),
        (
            '[connectors.rmr.lookup]\nsecret_file = "l.secret"\nserver = "127.0.0.1:11211"\n',
            "connectors.rmr.lookup.secret_file",
        ),
        (
            '[connectors.rmr.lookup]\nsecret_file = "l.secret"\nserver = "localhost"\n',
            "connectors.rmr.lookup: lookup.server",
        ),
    ],
)
def test_what_the_connector_would_not_find_the_check_does_not_find_either(
    folder: Path, more: str, named: str
) -> None:
    """`--check` said three times that all was good, and the connector did not start."""
    status, told = check_of_rmr(folder, more)
    assert status == 78
    assert named in told


@pytest.mark.fault("B3")
def test_a_key_that_cannot_be_read_is_not_a_bus_that_does_not_welcome(folder: Path) -> None:
    (folder / "keys" / "rmr.key").unlink()
    status, told = check_of_rmr(folder)
    assert status == 77
    assert str(folder / "keys" / "rmr.key") in told
    assert "does not welcome" not in told


@pytest.mark.fault("B3")
def test_an_address_that_cannot_be_listened_at_is_told(folder: Path) -> None:
    """A busy one with a doubt: the connector itself may be running."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        busy = taken.getsockname()[1]
        for listen, status in ((f"127.0.0.1:{busy}", 69), ("192.0.2.7:7116", 78)):
            found, told = check_of_rmr(folder, listen=listen)
            assert found == status
            assert listen in told
            assert "connectors.rmr.listen" in told
