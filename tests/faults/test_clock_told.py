"""A clock that steps is told: a line, and a state of the router."""

from pathlib import Path

import pytest

from tests.integration.bus import RouterProcess

# The clock of the process alone, put ahead by the hours that a file holds.
WRONG = """
import time
from pathlib import Path
right, hours = time.time_ns, Path({path!r})
time.time_ns = lambda: right() + int(hours.read_text() or 0) * 3600 * 10**9
"""


@pytest.mark.fault("A3")
def test_a_step_of_the_clock_is_told_once_and_its_end_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The router held expiry and timers back without a word. Right: the administrator hears that
    the clock is wrong while it can be mended."""
    hours = tmp_path / "hours"
    hours.write_text("0")
    (tmp_path / "sitecustomize.py").write_text(WRONG.format(path=str(hours)))
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    with RouterProcess() as router:

        def log() -> str:
            return router.log.read_text("utf-8")

        assert router.ask("status")["clock_doubted"] is False
        hours.write_text("30")
        router.wait_until("status", lambda status: status["clock_doubted"])
        router.wait_until("status", lambda _: "часы сервера прыгнули" in log())
        hours.write_text("0")
        router.wait_until("status", lambda _: "часам снова верю" in log())
        assert router.ask("status")["clock_doubted"] is False
        assert log().count("часы сервера прыгнули") == 1
