"""The PHP client, with Debian's php-zmq: against a real router, the golden vectors, old syntax."""

import shutil
import subprocess
from pathlib import Path

from tests.integration.scenes import MISSING, Scenes

TESTS = Path(__file__).parents[1]


def run(script: str, *arguments: str, status: int = 0) -> str:
    """Run a script of tests/php to its end; return what it said."""
    php = shutil.which("php")
    assert php, f"php {MISSING}"
    command = [php, str(TESTS / "php" / script), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (status, ""), ended.stdout
    return ended.stdout


class TestPhp(Scenes):
    language = "php"


def test_golden_vectors() -> None:
    assert run("vectors.php", str(TESTS / "vectors")) == "74 valid, 115 invalid\n"


NEWER = """<?php
class A { public function __construct(private int $x) {} }
function b(int|string $x) { return match($x) { 1 => 2 }; }
function c(): mixed { try { b(x: 1); } catch (Exception) {} return $a?->b ?? throw new E(); }
function d($a, $b,) { return strlen(...); }
#[X] function e(): static { return str_contains('a', $a::class); }
"""


def test_nothing_in_it_is_newer_than_php_7_4(tmp_path: Path) -> None:
    assert run("syntax.php", str(TESTS.parent / "proto" / "clients" / "php")) == ""
    (tmp_path / "newer.php").write_text(NEWER)
    found = run("syntax.php", str(tmp_path), status=1).splitlines()
    assert len(found) == 14, "each of them is seen"
