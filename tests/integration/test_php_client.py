"""The PHP client, with Debian's php-zmq: against a real router, the golden vectors, old syntax."""

import shutil
import subprocess
from pathlib import Path

from tests.integration.scenes import MISSING, Scenes

TESTS = Path(__file__).parents[1]


def run(script: str, *arguments: str) -> str:
    """Run a script of tests/php to its good end; return what it said."""
    php = shutil.which("php")
    assert php, f"php {MISSING}"
    command = [php, str(TESTS / "php" / script), *arguments]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, ""), ended.stdout
    return ended.stdout


class TestPhp(Scenes):
    language = "php"


def test_golden_vectors() -> None:
    assert run("vectors.php", str(TESTS / "vectors")) == "74 valid, 115 invalid\n"
