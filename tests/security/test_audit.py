"""What a server is given: locked by hashes, no tool of ours among it, its licences named."""

import re
from collections.abc import Iterator
from importlib.metadata import Distribution, distribution
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

ROOT = Path(__file__).parents[2]
PINNED = re.compile(
    r"^([a-z0-9-]+)==(\S+)[^\n]*\\\n((?: +--hash=sha256:[0-9a-f]{64}(?: \\)?\n)+)", re.M
)
BY_CLASSIFIER = {
    "Apache Software License": "Apache-2.0",
    "BSD License": "BSD-3-Clause",
    "MIT License": "MIT",
    "Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
}


def locked(name: str) -> dict[tuple[str, str], set[str]]:
    """Return (package, version) -> hashes of a lock file, every line of which has to be one."""
    text = (ROOT / name).read_text("utf-8")
    assert len(re.findall(r"^[^ #]", text, re.MULTILINE)) == len(PINNED.findall(text))
    return {(one[1], one[2]): set(one[3].split()) - {"\\"} for one in PINNED.finditer(text)}


def closure(extra: str) -> set[str]:
    """Return what smpbus needs with an extra, as the packages that are installed say."""
    found: set[str] = set()
    wanted = [("smpbus", {"", extra})]
    while wanted:
        name, extras = wanted.pop()
        for line in distribution(name).requires or []:
            need = Requirement(line)
            used = need.marker is None or any(
                need.marker.evaluate({"extra": one}) for one in extras
            )
            if used and (known := canonicalize_name(need.name)) not in found:
                found.add(known)
                wanted.append((known, {"", *need.extras}))
    return found


def notice() -> str:
    return (ROOT / "NOTICE").read_text("utf-8")


def licences() -> dict[str, str]:
    """Return package -> licence of NOTICE's first table."""
    table = notice().split("Shared libraries")[0]
    rows = re.findall(r"^([a-z][a-z0-9-]+) {2,}(\S+(?: \S+)*)", table, re.MULTILINE)
    return dict(rows)


@pytest.mark.fault("S21")
def test_a_server_gets_what_it_runs_and_no_tool() -> None:
    """The one lock held pytest, mypy, hypothesis and their company, so every server had them."""
    names = {name for name, _ in locked("requirements.lock")}
    assert closure("build") <= names
    assert names - closure("build") <= {"tzdata", "typing-extensions"}  # of others
    tools = {name for name, _ in locked("requirements-dev.lock")} - names
    assert {"pytest", "mypy", "ruff", "hypothesis"} <= tools


@pytest.mark.fault("S21")
def test_the_locks_agree() -> None:
    """What is tested is what a server gets: the same versions, the same files."""
    server, tools = locked("requirements.lock"), locked("requirements-dev.lock")
    assert len(server) > 30
    assert {pin: server[pin] for pin in server} == {pin: tools.get(pin) for pin in server}
    assert locked("requirements-audit.lock")


@pytest.mark.fault("S21")
def test_no_program_of_a_package_runs_to_install_it() -> None:
    """Wheels only, with hashes, wherever a lock is installed: sources run code of their own."""
    files = ("Makefile", "docs/admin.ru.md")
    lines = [line for name in files for line in (ROOT / name).read_text("utf-8").splitlines()]
    installing = [line for line in lines if re.search(r"-r \S*requirements\S*\.lock", line)]
    checked = [one for one in installing if "pip-audit" not in one and "-r $$lock" not in one]
    assert len(checked) >= 3
    for line in checked:
        assert "$(PIP_INSTALL)" in line or "--require-hashes --only-binary :all:" in line, line
    (meant,) = [line for line in lines if line.startswith("PIP_INSTALL :=")]
    assert "--require-hashes --only-binary :all:" in meant


@pytest.mark.fault("S22")
def test_the_notice_names_every_package_and_its_licence() -> None:
    """No file named the licences of what comes along, some of which ask for it."""
    told = licences()
    assert told.keys() == {name for name, _ in locked("requirements.lock")}
    for name, licence in told.items():
        if name != "tzdata":
            assert licence.split(" OR ")[0].split("  ")[0] in set(said(distribution(name))), name


def said(package: Distribution) -> Iterator[str]:
    """Yield what a package's metadata call its licence, as SPDX names it."""
    metadata: Any = package.metadata
    for key in ("License-Expression", "License"):
        told = metadata.get(key) or ""
        yield told
        yield from told.split(" OR ")
        yield told.split(" (")[0]
    for line in metadata.get_all("Classifier") or []:
        kind = line.split(" :: ")[-1]
        yield BY_CLASSIFIER.get(kind, kind)


@pytest.mark.fault("S22")
def test_the_notice_names_every_library_within_a_package() -> None:
    """Wheels carry libraries of others, under licences of their own."""
    text = notice()
    found = 0
    for name in licences():
        if name == "tzdata":
            continue
        for file in distribution(name).files or []:
            if ".libs/" in str(file):
                found += 1
                library = re.split(r"[-.]", file.name)[0]
                assert re.search(rf"\b{library}\b", text), f"{name}: {file.name}"
    assert found > 10
