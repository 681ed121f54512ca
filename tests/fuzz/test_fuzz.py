"""The campaign of `make fuzz`, short, with one seed for ever."""

import json
import os
import signal
import subprocess
import sys

SEED = 20261130
INPUTS = 100_000
PATIENCE_S = 600.0  # half a minute on a machine with nothing else to do


def test_no_input_is_more_than_an_error_to_whoever_sent_it() -> None:
    command = [sys.executable, "-m", "tests.fuzz", "--inputs", str(INPUTS), "--seed", str(SEED)]
    pipe = subprocess.PIPE
    with subprocess.Popen(
        command, stdout=pipe, stderr=pipe, text=True, start_new_session=True
    ) as campaign:
        try:
            told, complained = campaign.communicate(timeout=PATIENCE_S)
        except BaseException:
            os.killpg(campaign.pid, signal.SIGKILL)  # its jobs, too: they would go on for ever
            raise
    figures = json.loads(told.splitlines()[-1])
    assert figures["ok"], told + complained
    assert figures["inputs"] > INPUTS * 0.95
