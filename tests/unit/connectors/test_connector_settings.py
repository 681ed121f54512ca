"""A connector's settings: layers, and mistakes that name the file and the key."""

from pathlib import Path
from typing import Any

import pytest

from connectors.partners.smp import SmpSettings
from connectors.partners.smpsql import SmpSqlSettings
from connectors.partners.sys112 import Sys112Settings
from connectors.runtime.bus.settings import ConnectorSettings, load
from proto.configuration.find import find_file
from proto.exits import StartError

ROOT = Path(__file__).parents[3]
GOOD = """
[bus]
listen = ["tcp://0.0.0.0:5570", "ipc:///tmp/x"]
keys_dir = "keys"
[connectors.sys112]
listen = "127.0.0.1:7112"
[connectors.sys112.partner]
url = "http://127.0.0.1:8112"
"""


def write(folder: Path, body: str) -> Path:
    file = folder / "smpbus.toml"
    file.write_text(body, encoding="utf-8")
    return file


def test_defaults_and_the_bus_come_from_the_file(tmp_path: Path) -> None:
    loaded: Any = load("sys112", Sys112Settings, write(tmp_path, GOOD))
    assert loaded.address == "tcp://127.0.0.1:5570"
    assert loaded.key == tmp_path / "keys" / "sys112.key"
    assert loaded.server_key == tmp_path / "keys" / "router.pub"
    assert loaded.settings.repeat_after_s == 3.0
    assert loaded.log.language == "ru"


def test_without_curve_there_are_no_keys(tmp_path: Path) -> None:
    loaded = load("sys112", Sys112Settings, write(tmp_path, GOOD + "\n[log]\nlanguage='en'\n"))
    assert loaded.log.language == "en"
    bare = GOOD.replace('keys_dir = "keys"', "curve = false")
    assert load("sys112", Sys112Settings, write(tmp_path, bare)).key is None


def test_the_environment_is_above_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMPBUS_CONNECTORS__SYS112__REPEAT_AFTER_S", "0.5")
    monkeypatch.setenv("SMPBUS_CONNECTORS__SYS112__PARTNER__URL", "http://10.0.0.1:1")
    monkeypatch.setenv("SMPBUS_BUS__LISTEN", "ipc:///tmp/a,ipc:///tmp/b")
    loaded: Any = load("sys112", Sys112Settings, write(tmp_path, GOOD))
    assert loaded.settings.partner.url == "http://10.0.0.1:1"
    assert loaded.settings.repeat_after_s == 0.5
    assert loaded.address == "ipc:///tmp/a"


@pytest.mark.parametrize(
    ("old", "new", "named"),
    [
        ('listen = "127.0.0.1:7112"', 'lisen = "127.0.0.1:7112"', "connectors.sys112.lisen"),
        ('url = "http', 'url = "ftp', "connectors.sys112.partner.url"),
        ('url = "http', 'ulr = "http', "connectors.sys112.partner"),
        ('listen = "127.0.0.1:7112"', "credit = 0", "connectors.sys112.credit"),
        ('listen = "127.0.0.1:7112"', 'credit = "9"', "connectors.sys112.credit"),
        ("[connectors.sys112]", "[connectors.other]", "[connectors.sys112]"),
        ("[bus]", "[bus", "строка 2"),
        ('["tcp://0.0.0.0:5570", "ipc:///tmp/x"]', "[]", "bus.listen"),
        ('["tcp://0.0.0.0:5570", "ipc:///tmp/x"]', '[""]', "bus.listen"),
        ('["tcp://0.0.0.0:5570", "ipc:///tmp/x"]', '["tcp://0.0.0.0"]', "bus.listen"),
        ("[connectors.sys112]", '[connectors.sys112]\nbus = "router"', "connectors.sys112.bus"),
        ("[bus]", "[[bus]]", "bus: ожидается таблица"),
        ("[bus]", "log = 1\n[bus]", "log: ожидается таблица"),
        ("[bus]", "ops = []\n[bus]", "ops: ожидается таблица"),
    ],
)
def test_a_mistake_names_the_file_and_the_key(
    old: str, new: str, named: str, tmp_path: Path
) -> None:
    body = GOOD.replace(old, new)
    if "other" in new:
        body = body.replace("connectors.sys112.partner", "connectors.other.partner")
    file = write(tmp_path, body)
    with pytest.raises(StartError) as caught:
        load("sys112", Sys112Settings, file)
    assert str(file) in caught.value.sentence
    assert named in caught.value.sentence
    assert caught.value.exit_code == 78


@pytest.mark.parametrize("table", ["connectors = 1", "connectors = []", "[[connectors]]"])
def test_something_else_in_place_of_the_tables_is_a_mistake_like_any(
    table: str, tmp_path: Path
) -> None:
    with pytest.raises(StartError, match="connectors: ожидается таблица"):
        load("sys112", Sys112Settings, write(tmp_path, table))


def test_a_file_that_is_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="absent"):
        load("smp", SmpSettings, tmp_path / "absent.toml")


def test_a_folder_stands_for_the_file_in_it(tmp_path: Path) -> None:
    assert find_file(tmp_path) == tmp_path / "smpbus.toml"


def test_the_example_tables_are_valid(monkeypatch: pytest.MonkeyPatch) -> None:
    example = ROOT / "config" / "connectors.example.toml"

    def system(name: str, shape: type[ConnectorSettings]) -> str:
        settings = load(name, shape, example).settings
        assert isinstance(settings, ConnectorSettings)
        return settings.partner.system

    assert system("sys112", Sys112Settings) == "Система-112"
    assert system("smp", SmpSettings) == "ИС СМП"
    assert system("smpsql", SmpSqlSettings) == "ИС СМП"


def test_a_password_file_that_others_may_read_is_refused(tmp_path: Path) -> None:
    from connectors.runtime.partner.partner import Partner, PartnerSettings

    secret = tmp_path / "password"
    secret.write_text("user:word\n", encoding="utf-8")
    secret.chmod(0o644)
    settings = PartnerSettings(url="http://127.0.0.1:1", credentials_file=secret)
    with pytest.raises(StartError, match="chmod 600"):
        Partner("sys112", settings)
