"""One machine with the bus installed on it by the guide's commands, per module of tests."""

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.system.guide import commands
from tests.system.machine import Machine, hindrance

INSTALL_S = 300.0  # of a busy machine
HERE = Path(__file__).parent
IN_CI = os.environ.get("CI", "") not in ("", "0", "false")


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leave these tests out where no machine can be started, and say so; in CI they fail there."""
    reason = hindrance()
    if not reason or IN_CI:
        return
    mine = [item for item in items if item.path.is_relative_to(HERE)]
    if mine:
        config.stash[_REASON] = f"{len(mine)} tests of the units did not run: {reason}"
        config.hook.pytest_deselected(items=mine)
        items[:] = [item for item in items if item not in mine]


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    """Say at the end what was left out."""
    reason = config.stash.get(_REASON, "")
    if reason:
        terminalreporter.write_line(f"tests/system: {reason}", yellow=True)


_REASON = pytest.StashKey[str]()


@pytest.fixture(scope="module")
def machine() -> Iterator[Machine]:
    """A running machine on which the guide's sections 1 and 2 have been carried out."""
    running = Machine()
    try:
        for heading in ("1. Установка", "2. Ключи"):
            for block in commands(heading):
                running.run(block, timeout_s=INSTALL_S)
        yield running
    finally:
        running.stop()
