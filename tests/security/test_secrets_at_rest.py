"""Secrets where they are kept: in files of their own, and never told in an error."""

import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import apsw
import pytest

from connectors.partners.external import ExternalConnector
from connectors.partners.replication import ReplicationConnector
from connectors.partners.smp import SmpConnector
from connectors.partners.tfoms.token import FileToken
from connectors.runtime.bus.settings import load
from connectors.runtime.partner.partner import PartnerSettings, credentials
from connectors.runtime.partner.tls import make_context
from connectors.runtime.secretfile import read_secret_text
from connectors.runtime.statefile import Spared, StateFile
from proto.exits import StartError
from tests.integration.bus import SMPBUS

SECRET = "Url-Secret-1"
SCHEMA = "create table if not exists note (body text)"


def kept(path: Path, secret: bytes) -> Path:
    path.touch(mode=0o600)
    path.write_bytes(secret)
    return path


def configured(folder: Path, connector: str, text: str) -> Path:
    config = folder / "smpbus.toml"
    config.write_text(f"[bus]\ncurve = false\n[connectors.{connector}]\n{text}", encoding="utf-8")
    return config


@pytest.mark.fault("S20")
@pytest.mark.parametrize("read", [read_secret_text, credentials, FileToken])
def test_a_secret_that_is_no_text_is_one_sentence(
    tmp_path: Path, read: Callable[[Path], object]
) -> None:
    """A file of credentials in windows-1251 ended the start with a traceback."""
    secret = kept(tmp_path / "password", "вера:Пароль".encode("cp1251"))
    with pytest.raises(StartError, match="UTF-8") as caught:
        read(secret)
    assert str(secret) in caught.value.sentence
    assert "\n" not in caught.value.sentence


@pytest.mark.fault("S20")
def test_a_connector_says_which_file_is_no_text(tmp_path: Path) -> None:
    """As the administrator sees it; so does the command that adds a token to such a file."""
    kept(tmp_path / "password", "вера:Пароль".encode("cp1251"))
    table = (
        'mode = "push"\nlisten = "127.0.0.1:1"\n'
        '[connectors.smp.partner]\nurl = "http://10.0.0.1"\ncredentials_file = "password"\n'
        '[connectors.external.clients.med]\ntoken_file = "tokens"\n'
    )
    config = configured(tmp_path, "smp", table)
    kept(tmp_path / "tokens", "токен".encode("cp1251"))
    for command in (["connector", "smp"], ["external", "token", "med", "--add"]):
        done = subprocess.run(
            [SMPBUS, *command, "--config", config], capture_output=True, text=True, timeout=30
        )
        assert done.returncode not in (0, 1), done.stderr
        assert done.stderr.count("\n") == 1, done.stderr
        assert "Traceback" not in done.stderr


@pytest.mark.fault("S20")
@pytest.mark.parametrize(
    ("connector", "shape", "text", "key"),
    [
        ("smp", SmpConnector, 'listen = "127.0.0.1:1"\npartner.url = "{}"\n', "smp.partner.url"),
        ("replication", ReplicationConnector, 'partner.url = "{}"\n', "replication.partner.url"),
        (
            "external",
            ExternalConnector,
            'clients.med.token_file = "t"\nclients.med.webhook.url = "{}"\n',
            "external.clients.med.webhook.url",
        ),
    ],
)
def test_an_address_holds_no_secret_and_the_refusal_tells_none(
    tmp_path: Path, connector: str, shape: Any, text: str, key: str
) -> None:
    """The password of an address was in the sentence about its TLS files; an address that names a
    user is refused by its key, in the settings of every connector."""
    for url in (f"http://user:{SECRET}@10.1.2.3/x", f"TCP://{SECRET}@10.1.2.3:5570"):
        config = configured(tmp_path, connector, text.format(url))
        with pytest.raises(StartError, match="credentials_file") as caught:
            load(connector, shape.Settings, config)
        assert f"connectors.{key}" in caught.value.sentence
        assert SECRET not in caught.value.sentence


@pytest.mark.fault("S20")
def test_an_address_from_elsewhere_is_not_told_with_its_secret(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also what the environment says, and what is made without the file of settings."""
    config = configured(tmp_path, "smp", 'listen = "127.0.0.1:1"\npartner.url = "http://x"\n')
    monkeypatch.setenv("SMPBUS_CONNECTORS__SMP__PARTNER__URL", f"http://u:{SECRET}@10.1.2.3")
    with pytest.raises(StartError) as caught:
        load("smp", SmpConnector.Settings, config)
    assert SECRET not in caught.value.sentence
    ca_file = tmp_path / "ca.pem"
    with pytest.raises(StartError, match=r"10\.1\.2\.3") as caught:
        make_context(PartnerSettings(f"http://u:{SECRET}@10.1.2.3/x", ca_file=ca_file))
    assert SECRET not in caught.value.sentence


@pytest.mark.fault("S20")
@pytest.mark.parametrize(
    "opened", [lambda file: StateFile(file, SCHEMA), lambda file: Spared(file, lambda: SCHEMA)]
)
def test_a_state_file_is_its_owners_alone(tmp_path: Path, opened: Callable[[Path], Any]) -> None:
    """Without the umask of systemd the calls and their cards lay in files that everybody reads; one
    that is there already is closed as well."""
    file = tmp_path / "calls.db"
    before = os.umask(0o022)
    try:
        old = apsw.Connection(str(file))
        old.execute("pragma journal_mode = wal").fetchall()
        old.execute(SCHEMA)
        old.execute("insert into note values ('a')")
        assert file.stat().st_mode & 0o077
        state = opened(file)
        try:
            assert state.reason == ""
            found = sorted(tmp_path.iterdir())
            assert len(found) == 3  # what SQLite has beside it, too
            for one in found:
                assert one.stat().st_mode & 0o077 == 0, one
        finally:
            state.close()
            old.close()
    finally:
        os.umask(before)


@pytest.mark.fault("S20")
def test_the_password_of_a_database_is_not_in_the_list_of_processes(tmp_path: Path) -> None:
    """`smpbus sql install --url` took it there, where every local user reads it."""
    for url in (
        f"postgresql://owner:{SECRET}@127.0.0.1:1/smp",
        f"postgresql://127.0.0.1:1/smp?password={SECRET}",
    ):
        done = subprocess.run(
            [SMPBUS, "sql", "install", "--url", url], capture_output=True, text=True, timeout=30
        )
        assert done.returncode == 64, done.stderr
        assert "--credentials-file" in done.stderr
        assert SECRET not in done.stderr
