"""The campaign of `make fuzz`, short, with one seed for ever."""

import json
import subprocess
import sys

SEED = 20261130
INPUTS = 100_000


def test_no_input_is_more_than_an_error_to_whoever_sent_it() -> None:
    command = [sys.executable, "-m", "tests.fuzz", "--inputs", str(INPUTS), "--seed", str(SEED)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    figures = json.loads(done.stdout.splitlines()[-1])
    assert figures["ok"], done.stdout + done.stderr
    assert figures["inputs"] > INPUTS * 0.95
