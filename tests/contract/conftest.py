"""Fixtures of the contract tests."""

import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.contract.stage import Bus


@pytest.fixture
def bus() -> Iterator[Bus]:
    folder = Path(tempfile.mkdtemp(prefix="smpbus-", dir="/tmp"))
    yield Bus(f"ipc://{folder}/bus.sock")
    shutil.rmtree(folder)
