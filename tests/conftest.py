"""What every test may rely on, however the tests were started."""

import os
import signal
from collections.abc import Iterator

import pytest

# A job in the background of a script is started with Ctrl-C ignored, and all its children inherit
# that: the tests send SIGINT to programs and expect them to end.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture(autouse=True)
def _own_umask() -> Iterator[None]:
    """A command run inside the test's process narrows it, as it should in its own."""
    before = os.umask(0o022)
    os.umask(before)
    yield
    os.umask(before)
