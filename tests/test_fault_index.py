"""Every fault that docs/faults.md lists has a test that carries its number; no other is marked."""

import ast
import re
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = ROOT / "docs" / "faults.md"


def listed() -> list[str]:
    """Return the numbers in the first column of the page's tables."""
    return re.findall(r"^\| ([A-Z]\d+) \|", PAGE.read_text("utf-8"), re.MULTILINE)


def proved() -> dict[str, set[str]]:
    """Return number -> the test files that have a test marked with it. Words in lower case, "siege"
    and "fuzz", say which campaign found a fault."""
    found: dict[str, set[str]] = {}
    for path in (ROOT / "tests").rglob("test_*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            match node:
                case ast.Call(
                    func=ast.Attribute(attr="fault"), args=[ast.Constant(value=str(number))]
                ) if not number.islower():
                    found.setdefault(number, set()).add(path.name)
    return found


def test_no_fault_is_listed_twice() -> None:
    numbers = listed()
    assert len(numbers) == len(set(numbers))


def test_every_listed_fault_has_a_test() -> None:
    marks = proved()
    assert sorted(set(listed()) - marks.keys()) == []


def test_every_marked_test_names_a_listed_fault() -> None:
    assert sorted(proved().keys() - set(listed())) == []
