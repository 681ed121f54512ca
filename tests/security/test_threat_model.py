"""docs/security.md knows every door, and where a stranger is refused at it."""

import ast
import re
from collections.abc import Iterator
from importlib.metadata import entry_points
from pathlib import Path
from typing import Final

import pytest

from connectors.runtime.bus.connector import FIGURES, Connector
from connectors.runtime.bus.settings import DoorSettings
from router.settings import BusSettings, OpsSettings

ROOT = Path(__file__).parents[2]
PAGE = ROOT / "docs" / "security.md"
PACKAGES = ("proto", "router", "connectors")
# They answer with counts and descriptions, at every door that has them.
EVERYWHERE = ("/figures", "/openapi.json", "/docs")
LISTENING = {"listen", "events", "http"}
DOOR = re.compile(r"/(external|112|remd|vimis|rmis|bus|queue)(/[\w/{}:-]*)?")
# The partners played by programs: none of them runs on a region's server.
SIMULATORS: Final = ROOT / "connectors" / "simulators"


def table() -> list[list[str]]:
    """Return the cells of the rows of the entry points."""
    part = PAGE.read_text("utf-8").split("## Entry points")[1].split("\n\n")
    (rows,) = [one for one in part if one.startswith("| entry point")]
    found = [line.strip("|").split("|") for line in rows.splitlines()[2:]]
    assert {len(row) for row in found} == {6}
    return found


def product() -> Iterator[tuple[Path, ast.Module]]:
    """Yield every module that runs on a region's server."""
    for name in PACKAGES:
        for path in (ROOT / name).rglob("*.py"):
            if not path.is_relative_to(SIMULATORS):
                yield path, ast.parse(path.read_text("utf-8"))


def calls(tree: ast.Module) -> Iterator[tuple[str, ast.Call]]:
    """Yield the calls of a module, by the last part of what is called."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            yield ast.unparse(node.func).rpartition(".")[2], node


def imports(tree: ast.Module) -> set[str]:
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            found.add(node.module or "")
    return found


def connectors() -> dict[str, type[Connector]]:
    """Return every connector that can be called, by its name."""
    found = {point.name: point.load() for point in entry_points(group="smpbus.connectors")}
    return {name: one for name, one in found.items() if issubclass(one.Settings, DoorSettings)}


def paths() -> Iterator[str]:
    """Yield the beginnings of the paths that the product's doors know, from the code."""
    for _, tree in product():
        for name, call in calls(tree):
            if name == "Route" and call.args:
                first = call.args[0]
                if isinstance(first, ast.Constant):
                    yield str(first.value)
                elif isinstance(first, ast.JoinedStr) and isinstance(first.values[0], ast.Constant):
                    yield str(first.values[0].value)
        for node in ast.walk(tree):  # those that a name holds
            word = node.value if isinstance(node, ast.Constant) else ""
            if isinstance(word, str) and DOOR.fullmatch(word):
                yield word
    for shape in connectors().values():  # those that are declared
        yield from (key.split()[1] for key in shape.serves)
        yield from shape.door_scopes.keys() & {FIGURES}


@pytest.mark.fault("S23")
def test_every_setting_that_listens_is_in_the_table() -> None:
    """Doors trusted addresses, each in its own way, and no page said which there are."""
    settings = " ".join(row[1] for row in table())
    for section, shape in (("bus", BusSettings), ("ops", OpsSettings)):
        for field in set(shape.__struct_fields__) & LISTENING:
            assert f"`{section}.{field}`" in settings
    assert len(connectors()) > 8
    for name in connectors():
        assert f"`connectors.{name}.listen`" in settings, name


@pytest.mark.fault("S23")
def test_every_path_is_in_the_table() -> None:
    """Whoever adds one has to say for whom it is, and how he is known."""
    known = {word for row in table() for word in re.findall(r"`(/[^`]*)`", row[2])}
    found = set(paths())
    assert len(found) > 15
    for path in found:
        assert any(f"{path}/".startswith(one) for one in (*known, *EVERYWHERE)), path
    for one in known:
        assert any(path.startswith(one) for path in found), f"{one} is no path any more"


@pytest.mark.fault("S23")
def test_sockets_are_bound_where_the_page_says() -> None:
    """No module opens a door of its own beside the guard."""
    binding = {
        str(path.relative_to(ROOT))
        for path, tree in product()
        if imports(tree) & {"socket", "zmq", "asyncio"}
        and any(
            name in ("start_server", "create_server", "start_unix_server")
            or (name == "bind" and isinstance(call.func, ast.Attribute) and len(call.args) == 1)
            for name, call in calls(tree)
        )
    }
    text = " ".join(PAGE.read_text("utf-8").split())
    told = re.search(r"Sockets are bound in (.*?), and nowhere else", text)
    assert told is not None
    assert binding == set(re.findall(r"`([^`]*)`", told[1]))


@pytest.mark.fault("S23")
def test_at_every_entry_point_a_stranger_is_refused_in_a_test() -> None:
    """Each row names where; so does each promise of the page."""
    tests = {path.name: path for path in (ROOT / "tests").rglob("test_*.py")}
    for row in table():
        named = re.findall(r"`(test_\w+\.py)`", row[5])
        found = [tests[name] for name in named if name in tests]
        assert len(found) == len(named) > 0, f"{row[0].strip()}: {named}"
        assert any("def test_" in path.read_text("utf-8") for path in found)
    promised = set(re.findall(r"`(test_\w+\.py)`", PAGE.read_text("utf-8")))
    assert promised - tests.keys() == set()
