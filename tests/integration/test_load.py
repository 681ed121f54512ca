"""A few seconds of `make load`: what must hold on any machine, however slow it is."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]
PATIENCE_S = 240.0
SHORT = ("--warm-up", "0", "--sustained", "5", "--burst", "3", "--pace", "0.1")
LIGHT = ("--business", "15", "--telemetry", "40", "--total", "100")


def test_nothing_is_refused_everything_is_settled_and_the_books_balance() -> None:
    done = subprocess.run(
        [sys.executable, "-m", "tests.bench.load", *SHORT, *LIGHT],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        cwd=ROOT,
        check=False,
    )
    assert done.returncode in (0, 1), done.stderr
    told = json.loads(done.stdout.splitlines()[-1])
    assert told["wrong"] == [], done.stdout
    assert told["verdicts"].items() >= {"refused": True, "whole": True}.items()
    assert done.returncode == (0 if all(told["verdicts"].values()) else 1)
    assert told["calls"] > 3
    assert told["rates"].keys() == {"sustained", "burst"}
    assert all(min(pair) > 0 for pair in told["rates"].values())
    assert told["card_p99_ms"].keys() == {"sustained", "burst"}
