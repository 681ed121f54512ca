"""Walls that need no systemd: users, modes, core files, secrets that are handed over."""

import asyncio
import configparser
import multiprocessing
import os
import re
import resource
import subprocess
import sys
import tempfile
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import pytest

from connectors.partners.sys112.connector import Sys112Connector
from connectors.runtime.bus.settings import load
from connectors.runtime.partner.quota import Quota
from proto import KeyPair
from tests.integration.bus import RouterProcess

ROOT = Path(__file__).parents[2]
PROGRAMS = sorted((ROOT / "config/supervisor/programs").glob("*.conf"))
USERS = {
    line.split()[1]
    for line in (ROOT / "systemd/sysusers.d/smpbus.conf").read_text(encoding="utf-8").splitlines()
    if line.startswith("u ")
}
TABLE = '[connectors.sys112]\nlisten = "127.0.0.1:1"\n[connectors.sys112.partner]\n'


def find_table() -> set[str]:
    """Return the connectors that are shipped."""
    names = {one.name for one in entry_points(group="smpbus.connectors")}
    assert "sys112" in names
    return names


@pytest.mark.fault("S6")
def test_no_two_programs_are_one_user() -> None:
    """Under supervisor, too, the exchange's connector could read the signer's key."""
    users = {}
    for file in PROGRAMS:
        parser = configparser.RawConfigParser()
        parser.read(file, encoding="utf-8")
        (section,) = parser.sections()
        name = section.removeprefix("program:")
        users[name] = parser[section]["user"]
        assert parser[section]["umask"] == "077"
        assert users[name] == ("smpbus" if name == "router" else f"smpbus-{name}")
    assert len(set(users.values())) == len(users)
    assert set(users.values()) <= USERS


@pytest.mark.fault("S6")
def test_every_shipped_connector_has_its_user_and_its_key() -> None:
    """One that was forgotten would not start (its unit names its user), or not read its key."""
    folders = (ROOT / "systemd/tmpfiles.d/smpbus.conf").read_text(encoding="utf-8")
    for name in find_table():
        assert f"smpbus-{name}" in USERS, name
        line = rf"^z /etc/smpbus/keys/{name}\.key 0600 smpbus-{name} "
        assert re.search(line, folders, re.MULTILINE), name


@pytest.mark.fault("S20")
def test_no_command_leaves_a_core_file(tmp_path: Path) -> None:
    """Under supervisor a process that died wrote its memory, patients and keys, into a file."""
    _, hard = resource.getrlimit(resource.RLIMIT_CORE)
    told = subprocess.run(
        [
            sys.executable,
            "-c",
            "import resource; from router.commands import main; main(['version'])\n"
            "print(resource.getrlimit(resource.RLIMIT_CORE))",
        ],
        capture_output=True, text=True, timeout=30, cwd=tmp_path, check=True,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (hard, hard)),
    )  # fmt: skip
    assert told.stdout.splitlines()[-1] == "(0, 0)"


@pytest.mark.fault("S6")
def test_a_secret_that_systemd_hands_over_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A connector that may not enter the folder of keys gets its secrets from the service manager:
    the key of the bus as bus.key, any other under the name of its file."""
    given = tmp_path / "credentials"
    given.mkdir()
    config = tmp_path / "smpbus.toml"
    config.write_text(
        TABLE + 'url = "https://a.test"\nca_file = "keys/region.pem"\n'
        'credentials_file = "keys/sys112.password"\n',
        encoding="utf-8",
    )
    usual: Any = load("sys112", Sys112Connector.Settings, config)
    assert usual.key == Path("/etc/smpbus/keys/sys112.key")
    assert usual.settings.partner.credentials_file == tmp_path / "keys/sys112.password"

    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(given))
    KeyPair.new().save(given, "bus")
    (given / "bus.key").chmod(0o400)
    (given / "sys112.password").write_text("name:word", encoding="ascii")
    handed: Any = load("sys112", Sys112Connector.Settings, config)
    assert handed.key == given / "bus.key"
    KeyPair.load(handed.key)  # its mode is good enough
    assert handed.settings.partner.credentials_file == given / "sys112.password"
    assert handed.settings.partner.ca_file == tmp_path / "keys/region.pem"  # not handed over

    # What the settings say of the key of the bus by name holds.
    config.write_text(
        TABLE.replace(
            "[connectors.sys112.partner]", 'key = "mine.key"\n[connectors.sys112.partner]'
        )
        + 'url = "https://a.test"\n',
        encoding="utf-8",
    )
    assert load("sys112", Sys112Connector.Settings, config).key == tmp_path / "mine.key"


@pytest.mark.fault("S6")
def test_the_router_takes_the_key_that_it_is_given(monkeypatch: pytest.MonkeyPatch) -> None:
    """The same for the router: its own key need not be readable to its user."""
    with RouterProcess() as router:
        router.stop()
        given = router.folder / "credentials"
        given.mkdir()
        (router.keys / "router.key").rename(given / "router.key")
        (given / "router.key").chmod(0o400)
        monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(given))
        router.start()
        assert router.ask("status")["state"] == "running"


def _take(file: Path, uid: int) -> None:
    os.setgroups([])
    os.setgid(7)  # the group of the folder
    os.setuid(uid)
    os.umask(0o077)
    quota = Quota(60, file=file)
    asyncio.run(quota.take())
    quota.close()


@pytest.mark.fault("S6")
def test_connectors_of_different_users_keep_one_limit(tmp_path: Path) -> None:
    """The file of a shared limit was its maker's alone: the second connector could not start. Where
    the folder is its owner's alone, so is the file."""
    own = Quota(60, file=tmp_path / "own.quota")
    own.close()
    assert (tmp_path / "own.quota").stat().st_mode & 0o777 == 0o600
    with tempfile.TemporaryDirectory(dir="/tmp") as folder:  # that others can get at
        _share(Path(folder))


def _share(shared: Path) -> None:
    shared.chmod(0o770)
    if os.geteuid() == 0:
        os.chown(shared, 0, 7)
        for uid in (1, 2):
            one = multiprocessing.get_context("fork").Process(
                target=_take, args=(shared / "a.quota", uid)
            )
            one.start()
            one.join(30)
            assert one.exitcode == 0
    else:
        Quota(60, file=shared / "a.quota").close()
    assert (shared / "a.quota").stat().st_mode & 0o777 == 0o660
