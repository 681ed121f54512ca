"""Every Python that the README promises is asked whether the types are right."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]


@pytest.mark.fault("G1")
def test_types_are_checked_for_the_python_of_each_suite() -> None:
    """mypy passed with Python 3.11 only, and `make test` ended before the first test on newer
    systems: it is asked for each version, on whichever `make lint` runs."""
    makefile = (ROOT / "Makefile").read_text(encoding="utf-8")
    (versions,) = re.findall(
        r"for version in ([\d. ]+); do\n.*\n\t\t\$\(BIN\)/mypy --python-version", makefile
    )
    # Debian 12, Ubuntu 24.04, Debian 13.
    assert versions.split() == ["3.11", "3.12", "3.13"]
