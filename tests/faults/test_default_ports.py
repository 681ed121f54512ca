"""What listens by itself listens where nothing else of ours does."""

import re
import tomllib
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import msgspec
import pytest

pytestmark = pytest.mark.fault("B19")
ROOT = Path(__file__).parents[2]


def defaults() -> dict[str, str]:
    """Return where each connector listens when nobody says."""
    found = {}
    for point in entry_points(group="smpbus.connectors"):
        fields = msgspec.structs.fields(point.load().Settings)
        listen: Any = next((one.default for one in fields if one.name == "listen"), None)
        if listen is None:
            assert point.name in ("ats", "cssi112"), "only these two are called by nobody"
        elif listen is not msgspec.NODEFAULT:
            found[point.name] = listen
    return found


def test_no_two_connectors_have_the_same_port() -> None:
    """`external` and `smpsql` were both at 7123: the second one did not start."""
    found = defaults()
    assert len(found) >= 10
    ports = [listen.rpartition(":")[2] for listen in found.values()]
    assert len(set(ports)) == len(ports), found


def test_the_example_shows_the_ports_that_there_are() -> None:
    """And none of them is the router's own."""
    found = defaults()
    example = (ROOT / "config" / "connectors.example.toml").read_text(encoding="utf-8")
    tables = r'^\[connectors\.(\w+)\]\n(?:#.*\n)*?(?:# )?listen = "([^"]+)"'
    shown = re.findall(tables, example, re.MULTILINE)
    assert len(shown) >= 8
    for name, listen in shown:
        assert found[name] == listen, name
    router = tomllib.loads((ROOT / "config" / "smpbus.toml").read_text(encoding="utf-8"))
    others = set(re.findall(r":(\d{4,5})\b", str(router)))
    assert not others & {listen.rpartition(":")[2] for listen in found.values()}
