"""Contract tests on real data, which the repository does not hold: `make test-contracts DATA=...`.

One file per partner. The folder comes in the environment variable SMPBUS_CONTRACT_DATA and has one
folder per partner in it.
"""

import os
from collections import defaultdict
from collections.abc import Callable
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


_ROWS = pytest.StashKey[dict[str, list[tuple[str, ...]]]]()


@pytest.fixture(scope="session")
def row(pytestconfig: pytest.Config) -> Callable[..., None]:
    """Adds a row to a table, by its heading, that is printed at the end."""
    rows: dict[str, list[tuple[str, ...]]] = defaultdict(list)
    rows = pytestconfig.stash.setdefault(_ROWS, rows)

    def add(heading: str, *cells: str) -> None:
        rows[heading].append(cells)

    return add


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    for heading, rows in config.stash.get(_ROWS, {}).items():
        terminalreporter.section(heading)
        widths = [max(len(one[at]) for one in rows) for at in range(len(rows[0]) - 1)]
        for cells in rows:
            words = [cell.ljust(width) for cell, width in zip(cells, widths, strict=False)]
            terminalreporter.write_line("  ".join([*words, cells[-1]]))


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of the data."""
    return Path(os.environ[VARIABLE])
