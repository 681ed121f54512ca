"""Logging: whoever logs never waits, what is lost is counted, and equal lines are not repeated."""

import contextlib
import os
import subprocess
import sys
import time

import pytest

from proto.logs import EQUAL_MAX, LINES_MAX
from tests.integration.bus import SMPBUS, RouterProcess

FLOOD = """
import logging, sys, time
from proto.logs import configure_logs, lost_lines
configure_logs()
log = logging.getLogger("smpbus.x")
began = time.monotonic()
for number in range(20_000):
    log.{level}("{words}", {argument})
print(time.monotonic() - began, lost_lines(), flush=True)
sys.stdin.readline()
logging.getLogger().handlers[0].flush()
log.info("the end")
logging.shutdown()
"""


class Flooder:
    """A process that logs 20,000 lines into a pipe."""

    def __init__(self, level: str, words: str, argument: str) -> None:
        code = FLOOD.format(level=level, words=words, argument=argument)
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(
            [sys.executable, "-c", code], stdin=pipe, stdout=pipe, stderr=pipe, text=True,
            env={**os.environ, "SMPBUS_LANG": "en"},
        )  # fmt: skip
        assert self.process.stdout is not None
        took, lost = self.process.stdout.readline().split()
        self.took_s, self.lost = float(took), int(lost)

    def end(self) -> list[str]:
        _, said = self.process.communicate("go on\n", timeout=30)
        assert self.process.returncode == 0
        return said.splitlines()


@pytest.mark.fault("A14")
def test_a_reader_that_stands_still_stops_nobody() -> None:
    """With stderr's pipe full the process stood still; now lines are dropped, counted, and told."""
    flooder = Flooder("info", "line %d, " + "x" * 100, "number")
    assert flooder.took_s < 15
    assert flooder.lost > 20_000 - 2 * LINES_MAX - 1000
    lines = flooder.end()
    told = [line.rpartition(": ")[2] for line in lines if "log lines lost" in line]
    assert sum(map(int, told)) == flooder.lost
    assert lines[-1].endswith("the end")


@pytest.mark.fault("A14")
def test_equal_warnings_are_counted_and_not_repeated() -> None:
    """One line for each of 527 bad requests filled the log."""
    flooder = Flooder("warning", "refused: %s", "'the same'")
    assert flooder.lost == 0
    lines = flooder.end()
    same = [line for line in lines if line.endswith("refused: the same")]
    assert len(same) == EQUAL_MAX
    counted = [line for line in lines if f"the same {20_000 - EQUAL_MAX} times more" in line]
    assert len(counted) == 1


@pytest.mark.fault("A14")
def test_the_end_of_a_process_waits_for_no_reader() -> None:
    """SIGTERM must be obeyed though nobody reads the last lines."""
    with RouterProcess() as router:
        router.stop()
        reading, writing = os.pipe()
        os.set_blocking(writing, False)
        with contextlib.suppress(BlockingIOError):
            while os.write(writing, b"x" * 4096):
                pass
        os.set_blocking(writing, True)
        router.process = subprocess.Popen(
            [SMPBUS, "router", "--config", str(router.config)], stderr=writing
        )
        os.close(writing)
        router.wait_ready()
        with router.blocking("producer") as bus:
            bus.publish(bus.message("test.message.v1", b"1"))
        began = time.monotonic()
        assert router.stop() == 0
        assert time.monotonic() - began < 15
        os.close(reading)


SIGNALLED = """
import signal, sys
from proto.logs import configure_logs
configure_logs()
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
print("blocked", flush=True)
signal.sigwait({signal.SIGTERM})
print("heard", flush=True)
"""


@pytest.mark.fault("A14")
def test_the_thread_of_the_log_takes_no_signal() -> None:
    """A process that waits for SIGTERM in a thread of its own was ended by it instead: the log's
    thread, made before, still took it."""
    process = subprocess.Popen([sys.executable, "-c", SIGNALLED], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "blocked\n"
    process.terminate()
    said, _ = process.communicate(timeout=30)
    assert (process.returncode, said) == (0, "heard\n")
