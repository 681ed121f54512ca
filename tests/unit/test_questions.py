"""Which destination answers a question is said in routes.toml, to whoever puts it."""

import shutil
from pathlib import Path

import pytest

from connectors.partners.smp import SmpSettings
from connectors.runtime.bus.settings import load as load_connector
from proto.configuration.place import ConfigError
from proto.configuration.questions import BUILT_IN
from proto.configuration.shipped import shipped_folder
from router.config import load

SMP = """
[bus]
curve = false
[connectors.smp.partner]
url = "http://127.0.0.1:8103"
"""
TABLE = '[questions]\n"patient.lookup.v1" = "rmis"\n"lab.find.v1" = "laboratory"\n'


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in ("routes.toml", "permissions.toml"):
        shutil.copy(shipped_folder() / name, tmp_path)
    (tmp_path / "smpbus.toml").write_text(SMP, encoding="utf-8")
    return tmp_path


def asked(folder: Path) -> dict[str, str]:
    settings = load_connector("smp", SmpSettings, folder / "smpbus.toml").settings
    assert isinstance(settings, SmpSettings)
    return settings.questions


def routes(folder: Path, instead: str) -> None:
    file = folder / "routes.toml"
    text = file.read_text(encoding="utf-8")
    before, _, after = text.partition("\n[questions]\n")
    rest = after.partition("\n\n")[2]
    file.write_text(f"{before}\n{instead}{rest}", encoding="utf-8")


def test_the_shipped_table_is_the_built_in_one(folder: Path) -> None:
    assert asked(folder) == BUILT_IN == load(folder, environ={}).settings.questions
    origin = load(folder, environ={}).origins["questions.worker.lookup.v1"]
    assert origin.startswith(f"{folder / 'routes.toml'}:")


def test_routes_of_before_keep_their_questions(folder: Path) -> None:
    """Also where there is no routes.toml beside the connector's settings at all."""
    routes(folder, "")
    assert asked(folder) == BUILT_IN == load(folder, environ={}).settings.questions
    (folder / "routes.toml").unlink()
    assert asked(folder) == BUILT_IN


def test_a_region_says_it_otherwise(folder: Path) -> None:
    routes(folder, TABLE + "\n[destinations.laboratory]\n")
    expected = {"patient.lookup.v1": "rmis", "lab.find.v1": "laboratory"}
    assert asked(folder) == expected == load(folder, environ={}).settings.questions


@pytest.mark.parametrize(
    ("table", "line", "named"),
    [
        (TABLE, 2, ('"laboratory"',)),
        ('[questions]\n"patient.lookup.v1" = "rmiss"\n', 1, ('"rmiss"', 'имелось в виду "rmis"')),
        ('[questions]\n"Пациент" = "rmis"\n', 1, ("questions.Пациент", "patient.lookup.v1")),
        ("[questions]\npatient.lookup.v1 = 'rmis'\n", 1, ("questions.patient",)),
        ('[questions]\n"patient.lookup.v1" = 5\n', 1, ("questions.patient.lookup.v1",)),
    ],
)
def test_a_mistake_is_told_by_its_line(
    folder: Path, table: str, line: int, named: tuple[str, ...]
) -> None:
    text = (folder / "routes.toml").read_text(encoding="utf-8")
    first = text[: text.index("\n[questions]") + 1].count("\n") + 1
    routes(folder, table + "\n")
    with pytest.raises(ConfigError) as caught:
        load(folder, environ={})
    assert caught.value.line == first + line
    assert all(part in caught.value.sentence for part in named), caught.value.sentence
