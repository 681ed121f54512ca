"""What a setting is, its declared type says, in anybody's connector: never how its key ends."""

from pathlib import Path
from typing import Annotated

import msgspec
import pytest

from connectors.runtime.bus.settings import ConnectorSettings, load
from proto.exits import StartError

TABLE = """
[bus]
listen = ["ipc://run/bus.sock"]
keys_dir = "keys"
[connectors.laboratory]
listen = "127.0.0.1:7130"
{more}
[connectors.laboratory.partner]
url = "http://127.0.0.1:8130"
"""


class Room(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A table within the table."""

    floor: Annotated[int, msgspec.Meta(ge=0)]
    plan: Path | None = None


class Laboratory(ConnectorSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Settings of an integrator."""

    api_key: str = ""
    spool: Path | None = None
    results_folder: str = ""
    codes: tuple[str, ...] = ()
    rooms: dict[str, Room] = {}  # noqa: RUF012
    ttl_s: dict[str, float] = {}  # noqa: RUF012


def read(folder: Path, more: str) -> Laboratory:
    file = folder / "smpbus.toml"
    file.write_text(TABLE.format(more=more), encoding="utf-8")
    settings = load("laboratory", Laboratory, file).settings
    assert isinstance(settings, Laboratory)
    return settings


def test_text_stays_text_and_a_path_is_one(tmp_path: Path) -> None:
    """`api_key = "s3cret"` became /etc/smpbus/s3cret, and a path of another name was relative to
    wherever the connector was started."""
    told = read(tmp_path, 'api_key = "s3cret"\nresults_folder = "done"\nspool = "spool/in"')
    assert (told.api_key, told.results_folder) == ("s3cret", "done")
    assert told.spool == tmp_path / "spool" / "in"
    assert read(tmp_path, '[connectors.laboratory.rooms.a]\nfloor = 1\nplan = "a.png"').rooms == {
        "a": Room(1, tmp_path / "a.png")
    }


def test_the_environment_is_read_by_type(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Digits that are text stay text; a list has commas, a table may be said whole or by key."""
    for key, value in {
        "API_KEY": "0123", "CODES": "a, b", "ROOMS": "{ a = { floor = 2 } }", "CREDIT": "7",
        "ROOMS__B__FLOOR": "3", "RESULTS_FOLDER": '"quoted"', "SPOOL": "box",
    }.items():  # fmt: skip
        monkeypatch.setenv(f"SMPBUS_CONNECTORS__LABORATORY__{key}", value)
    told = read(tmp_path, "")
    assert (told.api_key, told.codes, told.credit) == ("0123", ("a", "b"), 7)
    assert told.rooms == {"a": Room(2), "b": Room(3)}
    assert (told.results_folder, told.spool) == ("quoted", tmp_path / "box")


@pytest.mark.parametrize(
    ("more", "line", "named"),
    [
        ('api_kee = "x"', 7, ("connectors.laboratory.api_kee", "имелось в виду api_key")),
        ("credit = 0", 7, ("connectors.laboratory.credit", "1")),
        ("\nttl_s = { worker = 'x' }", 8, ("connectors.laboratory.ttl_s.worker",)),
        ("[connectors.laboratory.rooms.a]\nfloor = -1", 8, ("laboratory.rooms.a.floor",)),
        ("[connectors.laboratory.rooms.a]\nflor = 1", 8, ("rooms.a.flor", "floor")),
        ("[connectors.laboratory.rooms.a]\n", 7, ("connectors.laboratory.rooms.a", "floor")),
        ("rooms = 5", 7, ("connectors.laboratory.rooms",)),
        ("http.head_s = 0", 7, ("connectors.laboratory.http.head_s",)),
    ],
)
def test_a_mistake_is_told_by_its_line(
    more: str, line: int, named: tuple[str, ...], tmp_path: Path
) -> None:
    """As the router tells it: the line, the key, and what was probably meant."""
    with pytest.raises(StartError) as caught:
        read(tmp_path, more)
    sentence = caught.value.sentence
    assert sentence.startswith(f"{tmp_path / 'smpbus.toml'}, строка {line}: ")
    assert all(part in sentence for part in named), sentence
    assert caught.value.exit_code == 78


def test_the_router_and_its_connectors_mean_one_socket(tmp_path: Path) -> None:
    """A relative ipc address was relative to the file for the router, and to wherever it was
    started for a connector."""
    file = tmp_path / "smpbus.toml"
    file.write_text(TABLE.format(more=""), encoding="utf-8")
    assert load("laboratory", Laboratory, file).address == f"ipc://{tmp_path}/run/bus.sock"


@pytest.mark.parametrize("wrong", ["[logs]\n", '[log]\nlevl = "info"\n', "[store]\nfoldr = 1\n"])
def test_a_table_for_all_is_read_by_all_alike(wrong: str, tmp_path: Path) -> None:
    """A misspelt key of [log] was refused by the router and passed by every connector."""
    with pytest.raises(StartError, match=r"log|level|folder"):
        read(tmp_path, f"[x]\n{wrong}".removeprefix("[x]\n"))
