"""What every test may rely on, however the tests were started."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest

# A job in the background of a script is started with Ctrl-C ignored, and all its children inherit
# that: the tests send SIGINT to programs and expect them to end.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

HERE = Path(__file__).parent
# The longest files begin first, those that work beside those that wait, so that the short ones fill
# the workers at the end: a worker that is left alone with a long one is time for nothing.
LONGEST = (
    "system/test_units.py",
    "crash/test_crash_images.py",
    "integration/test_demo.py",
    "fuzz/test_fuzz.py",
    "integration/test_call_through_bus.py",
    "simulation/test_canaries.py",
    "siege/test_siege.py",
    "integration/test_replication.py",
    "contract/test_fault_matrix.py",
    "integration/test_drill.py",
    "integration/test_calls_with_faults.py",
    "simulation/test_promises.py",
    "integration/test_smpsql.py",
    "integration/test_load.py",
    "integration/test_supervision.py",
    "integration/test_operator.py",
    "integration/test_config_faults.py",
    "integration/test_hostile_peers.py",
)


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Put the longest files first; all else stays in its order."""
    ranks = {HERE / name: rank for rank, name in enumerate(LONGEST)}
    if gone := [str(path) for path in ranks if not path.exists()]:
        raise pytest.UsageError(f"tests/conftest.py, LONGEST: there is no {', '.join(gone)}")
    items.sort(key=lambda item: ranks.get(item.path, len(ranks)))


@pytest.fixture(autouse=True)
def _own_umask() -> Iterator[None]:
    """A command run inside the test's process narrows it, as it should in its own."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)
