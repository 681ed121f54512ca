"""The Node client, with zeromq 6: against a real router, and the golden vectors."""

import shutil
import subprocess
from pathlib import Path

from tests.integration.scenes import MISSING, Scenes

TESTS = Path(__file__).parents[1]


class TestNode(Scenes):
    language = "node"


def test_golden_vectors() -> None:
    node = shutil.which("node")
    assert node, f"node {MISSING}"
    command = [node, str(TESTS / "node" / "vectors.mjs"), str(TESTS / "vectors")]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (ended.returncode, ended.stderr) == (0, "")
    assert ended.stdout == "74 valid, 115 invalid\n"
