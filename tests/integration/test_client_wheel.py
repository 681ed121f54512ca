"""The client library as a wheel of its own: what is in it, and that nothing else is needed."""

import ast
import json
import subprocess
import sys
import tomllib
import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.integration.bus import RouterProcess

ROOT = Path(__file__).parents[2]
PROJECT = ROOT / "proto" / "clients" / "python" / "pyproject.toml"
SCRIPT = ROOT / "tests" / "python" / "client.py"
NEIGHBOUR = ROOT / ".venv" / "neighbour"
# What is used by its full name: everything else comes with it.
OFFERED = {"__init__", "blocking", "catalogue", "client", "report"}


def listed() -> set[str]:
    """Return the modules of `proto` that the wheel takes."""
    project = tomllib.loads(PROJECT.read_text(encoding="utf-8"))
    files = project["tool"]["hatch"]["build"]["targets"]["wheel"]["force-include"]
    return {Path(name).stem for name in files if name.endswith(".py")}


def imported(module: str) -> set[str]:
    """Return the neighbours in `proto` that a module imports."""
    found: set[str] = set()
    for node in ast.walk(ast.parse((ROOT / "proto" / f"{module}.py").read_text(encoding="utf-8"))):
        if isinstance(node, ast.ImportFrom) and node.level == 1:
            found |= {node.module} if node.module else {alias.name for alias in node.names}
    return found


def test_it_takes_the_modules_that_its_own_need_and_no_others() -> None:
    needed: set[str] = set()
    left = set(OFFERED)
    while left:
        module = left.pop()
        needed.add(module)
        left |= imported(module) - needed
    assert listed() == needed, f"mend force-include of {PROJECT.relative_to(ROOT)}"


@pytest.fixture(scope="module")
def wheels(tmp_path_factory: pytest.TempPathFactory) -> list[list[Path]]:
    """Both wheels, made twice."""
    made = []
    for name in ("once", "again"):
        folder = tmp_path_factory.mktemp(name)
        # The environment is there: that its lock is younger is no matter of this test.
        stays = "--assume-old=.venv/.installed-from-lock"
        subprocess.run(
            ["make", "--silent", stays, "wheel", f"DIST={folder}"],
            cwd=ROOT, check=True, capture_output=True, timeout=60,
        )  # fmt: skip
        made.append(sorted(folder.iterdir()))
    return made


def test_a_wheel_is_the_same_each_time(wheels: list[list[Path]]) -> None:
    for first, second in zip(*wheels, strict=True):
        assert first.name == second.name
        assert first.read_bytes() == second.read_bytes()
    bus, client = wheels[0]
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert bus.name == f"smpbus-{version}-py3-none-any.whl"
    assert client.name == f"smpbus_client-{version}-py3-none-any.whl"
    node = json.loads((ROOT / "proto" / "clients" / "node" / "package.json").read_text())
    assert node["version"] == version


def test_a_wheel_holds_its_own_and_nothing_of_the_other(wheels: list[list[Path]]) -> None:
    bus, client = (zipfile.ZipFile(one).namelist() for one in wheels[0])
    assert {name.partition("/")[0] for name in bus if ".d" not in name} == {
        "proto", "router", "connectors",
    }  # fmt: skip
    assert not [name for name in bus if name.startswith("proto/clients")]
    assert {name.partition("/")[0] for name in client if ".dist-info" not in name} == {
        "smpbus_client"
    }
    assert "smpbus_client/LICENSE" in client
    assert "smpbus_client/py.typed" in client


def installed(name: str) -> Iterator[Path]:
    """Yield what an installed distribution of ours has put beside its fellows."""
    (folder,) = (Path(one) for one in sys.path if (Path(one) / "zmq").is_dir())
    for path in folder.iterdir():
        if path.name in (name, "zmq") or path.name.startswith((f"{name}-", f"{name}.")):
            yield path


@pytest.fixture
def environment(wheels: list[list[Path]], tmp_path: Path) -> Path:
    """The interpreter of a fresh environment: the client's wheel, pyzmq, msgspec, proto-plus."""
    folder = tmp_path / "venv"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(folder)], check=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    (site,) = folder.glob("lib/python*/site-packages")
    for path in {*installed("pyzmq"), *installed("msgspec")}:
        (site / path.name).symlink_to(path)
    (site / "neighbour.pth").write_text(f"{NEIGHBOUR}\n")
    wheel = str(wheels[0][1])
    subprocess.run([*pip, "install", "-q", "--no-index", wheel], check=True, timeout=60)
    subprocess.run([*pip, "check"], check=True, capture_output=True, timeout=60)
    return python


def test_it_publishes_consumes_and_asks_beside_a_package_named_proto(environment: Path) -> None:
    assert NEIGHBOUR.is_dir(), "proto-plus is not there: run make test, which lays it there"
    with RouterProcess() as router:
        ended = subprocess.run(
            [environment, "-I", SCRIPT, router.address, router.keys],
            capture_output=True, text=True, timeout=60, env={"SMPBUS_LANG": "en"},
        )  # fmt: skip
    assert (ended.returncode, ended.stderr) == (0, "")
    told: dict[str, Any] = {}
    for line in ended.stdout.splitlines():
        step = json.loads(line)
        told[step.pop("what")] = step
    assert told == {
        "published": {"refused": [None, None, None, "not_permitted"]},
        "refused": {"code": "not_permitted"},
        "answered": {"body": {"n": 21}},
        "consumed": {"seen": [0, 1, 2], "key": True},
        "catalogue": {"example": "call.status.v1"},
        "key file": {"said": "No such file or directory"},
        "loaded": {"modules": ["msgspec", "smpbus_client", "zmq"]},
        "neighbour": {"file": "proto", "marks": True},
    }
