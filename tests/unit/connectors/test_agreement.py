"""What connectors declare, beside the routes and the rights of a region."""

import shutil
from importlib.metadata import entry_points
from pathlib import Path

import msgspec
import pytest

from connectors.partners.smp import SmpSettings
from connectors.partners.sys112 import Sys112Connector
from connectors.runtime.bus.agreement import compare
from connectors.runtime.bus.connector import Connector
from connectors.runtime.bus.settings import SessionSettings

CONFIG = Path(__file__).parents[3] / "config"
SHAPES: dict[str, type[Connector]] = {
    point.name: point.load() for point in entry_points(group="smpbus.connectors")
}
IN_ROUTES = sorted(SHAPES.keys() - {"cssi112", "replication", "smpsql"})  # of the shipped ones


@pytest.fixture(autouse=True)
def _in_english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("proto.wording._chosen", "en")


def sentences(folder: Path, name: str, *, mode: str = "push", destination: str = "") -> list[str]:
    """Return what is not as it should be, with a mark before what is only a warning."""
    settings = SessionSettings(destination=destination)
    if name == "smp":
        table = {"mode": mode, "partner": {"url": "http://127.0.0.1:1"}}
        settings = msgspec.convert(table, SmpSettings)
    return [
        f"{'warning: ' if one.is_warning else ''}{one.sentence}"
        for one in compare(name, SHAPES[name], settings, folder)
        if one.is_warning or not one.good
    ]


@pytest.fixture
def region(tmp_path: Path) -> Path:
    """The routes and rights that are shipped."""
    for name in ("routes.toml", "permissions.toml"):
        shutil.copy(CONFIG / name, tmp_path)
    return tmp_path


def edit(file: Path, old: str, new: str) -> None:
    text = file.read_text(encoding="utf-8")
    assert old in text
    file.write_text(text.replace(old, new), encoding="utf-8")


@pytest.mark.parametrize("name", IN_ROUTES)
def test_the_shipped_routes_and_rights_are_as_connectors_declare(name: str, region: Path) -> None:
    """Seen: РЭМД's and ВИМИС's connectors had no right to tell of a contradiction."""
    assert sentences(region, name) == []


def test_a_type_that_is_routed_and_not_taken_is_told(region: Path) -> None:
    edit(region / "routes.toml", 'type = "call.card.v1"\nsource = "smp"\nto = ["remd", "vimis"]',
         'type = "call.*"\nsource = "smp"\nto = ["remd", "vimis"]')  # fmt: skip
    found = sentences(region, "remd")
    assert [one.split()[2] for one in found] == ["call.status.v1", "call.ticket.v1"]
    assert all("routes.toml" in one and "queue remd" in one for one in found)


def test_a_star_brings_only_what_its_source_may_publish(region: Path) -> None:
    edit(region / "permissions.toml", '"telephony.dialled.v1",\n]\nconsume = ["ats"]',
         '"telephony.*",\n]\nconsume = ["ats"]')  # fmt: skip
    (found,) = sentences(region, "smp")
    assert "telephony.dial.v1" in found
    assert sentences(region, "smp", mode="queue") == []  # there it is held for who fetches


def test_a_type_that_no_route_brings_is_a_warning(region: Path) -> None:
    edit(region / "routes.toml", 'type = "incident.card_update.v1"', 'type = "incident.other.v1"')
    edit(region / "routes.toml", 'type = "deadline.timer.v1"', 'type = "deadline.other.v1"')
    found = sentences(region, "sys112")
    warned = [one for one in found if one.startswith("warning: ")]
    assert [one.split()[4] for one in warned] == ["incident.card_update.v1", "deadline.timer.v1"]
    assert "queue deadlines" in warned[1]
    # Nobody may publish the other one: it never comes.
    assert [one.split()[2] for one in found if one not in warned] == ["deadline.other.v1"]


@pytest.mark.parametrize(
    ("name", "old", "new", "verb", "what"),
    [
        ("sys112", '"deadline.*", ', "", "publish", "deadline.timer.v1"),
        ("sys112", ', "deadlines"', "", "consume", "deadlines"),
        ("rmr", ', "input.rejected.v1"]\nconsume = ["rmr"]', ']\nconsume = ["rmr"]', "publish",
         "input.rejected.v1"),
        ("tfoms", 'serve = ["tfoms"]', "serve = []", "serve", "tfoms"),
        ("rmis", "[peers.rmis]", "[peers.other]", "consume", "rmis"),
    ],
)  # fmt: skip
def test_a_right_that_is_missing_is_told(
    name: str, old: str, new: str, verb: str, what: str, region: Path
) -> None:
    edit(region / "permissions.toml", old, new)
    assert f'permissions.toml, [peers.{name}]: {verb} lacks "{what}"' in sentences(region, name)


def test_what_a_door_refuses_is_published_too(region: Path) -> None:
    edit(region / "permissions.toml", '"deadline.*", "input.rejected.v1"]', '"deadline.*"]')
    (found,) = sentences(region, "sys112")
    assert found.endswith('publish lacks "input.rejected.v1"')


def test_a_queue_of_another_name_is_the_one_that_is_compared(region: Path) -> None:
    found = sentences(region, "tfoms", destination="fund")
    assert found[0].startswith("warning: ")
    assert 'consume lacks "fund"' in found[1]


def test_files_that_are_not_here_are_not_compared(tmp_path: Path) -> None:
    settings = SessionSettings()
    (only,) = compare("sys112", Sys112Connector, settings, tmp_path)
    assert (only.good, only.is_warning) == (True, False)
    assert "routes.toml" in only.sentence
    (tmp_path / "routes.toml").write_text("[[routes", encoding="utf-8")
    (only,) = compare("sys112", Sys112Connector, settings, tmp_path)
    assert not only.good
