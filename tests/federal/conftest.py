"""Contract tests on real data, which the repository does not hold: `make test-contracts DATA=...`.

One file per partner. The folder comes in the environment variable SMPBUS_CONTRACT_DATA and has one
folder per partner in it.
"""

import os
from pathlib import Path

import pytest

VARIABLE = "SMPBUS_CONTRACT_DATA"


def pytest_configure() -> None:
    folder = os.environ.get(VARIABLE, "")
    if not folder or not Path(folder).is_dir():
        raise pytest.UsageError(
            f"{VARIABLE} must name the folder with the partners' data, and is {folder!r}; "
            "run: make test-contracts DATA=folder"
        )


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of the data."""
    return Path(os.environ[VARIABLE])
