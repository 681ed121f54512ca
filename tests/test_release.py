"""`make release` looks before it builds, and leaves tagging to a person."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parents[1] / ".ci" / "release"
CHANGELOG = (
    "# Changelog\n\n## 1.2.3 (2026-12-01)\n\n### Upgrading\n\n- Nothing.\n\n## 1.2.2 (2026-11-01)\n"
)
PROJECT = """
[build-system]
requires = ["hatchling"]
build-backend = "hatchling.build"
[project]
name = "smpbus"
version = "1.2.3"
requires-python = ">=3.11"
[tool.hatch.build.targets.wheel]
packages = ["router"]
"""
COMMANDS = 'def main(arguments: list[str]) -> int:\n    print("says 1.2.3")\n    return 0\n'
AUTHOR = {
    f"GIT_{who}_{what}": "test" for who in ("AUTHOR", "COMMITTER") for what in ("NAME", "EMAIL")
}


class Checkout:
    """A repository of a few files with the script in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        (folder / ".ci").mkdir()
        shutil.copy(SCRIPT, folder / ".ci" / "release")
        self.git("init", "--quiet")
        self.write("pyproject.toml", PROJECT)
        self.write("CHANGELOG.md", CHANGELOG)
        self.write("router/commands/__init__.py", COMMANDS)
        self.write("router/__init__.py", "")
        self.write(".gitignore", "/dist/\n")

    def write(self, name: str, content: str) -> None:
        file = self.folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(content, encoding="utf-8")
        self.commit()

    def commit(self) -> None:
        self.git("add", "--all")
        self.git("commit", "--quiet", "--allow-empty", "--message", "change")

    def git(self, *arguments: str) -> str:
        return self._run("git", *arguments, check=True).stdout

    def release(self) -> "subprocess.CompletedProcess[str]":
        return self._run(str(self.folder / ".ci" / "release"), sys.executable)

    def _run(self, *command: str, check: bool = False) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(
            command, cwd=self.folder, env=os.environ | AUTHOR, capture_output=True, text=True,
            timeout=60, check=check,
        )  # fmt: skip


@pytest.fixture
def checkout(tmp_path: Path) -> Checkout:
    return Checkout(tmp_path)


def test_what_is_fit_is_built_and_not_tagged(checkout: Checkout) -> None:
    done = checkout.release()
    assert done.returncode == 0, done.stderr
    assert "says 1.2.3" in done.stdout
    assert "git tag -s v1.2.3" in done.stdout
    built = {path.name for path in (checkout.folder / "dist").iterdir()}
    assert built == {"smpbus-1.2.3-py3-none-any.whl", "smpbus-1.2.3.tar.gz"}
    assert checkout.git("tag") == ""


@pytest.mark.parametrize(
    ("file", "old", "new", "named"),
    [
        ("CHANGELOG.md", "(2026-12-01)", "(unreleased)", "unreleased"),
        ("CHANGELOG.md", "## 1.2.3 (", "## 1.2.4 (", "1.2.4 and pyproject.toml of 1.2.3"),
        ("CHANGELOG.md", "### Upgrading", "### News", "Upgrading"),
        ("CHANGELOG.md", "## 1.2.3 (2026-12-01)", "## Next", "newest heading"),
        ("pyproject.toml", '"1.2.3"', '"1.3.0"', "pyproject.toml of 1.3.0"),
    ],
)
def test_what_does_not_fit_is_refused_by_name(
    checkout: Checkout, file: str, old: str, new: str, named: str
) -> None:
    checkout.write(file, (checkout.folder / file).read_text(encoding="utf-8").replace(old, new))
    done = checkout.release()
    assert done.returncode == 1
    assert named in done.stderr
    assert not (checkout.folder / "dist").exists()


def test_a_tag_that_is_there_and_uncommitted_files_are_refused(checkout: Checkout) -> None:
    checkout.git("tag", "v1.2.3")
    assert "v1.2.3 is there already" in checkout.release().stderr
    checkout.git("tag", "--delete", "v1.2.3")
    (checkout.folder / "notes.txt").write_text("forgotten", encoding="utf-8")
    done = checkout.release()
    assert done.returncode == 1
    assert "notes.txt" in done.stderr
