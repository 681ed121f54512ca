"""Every connector × every way its partner can fail; `make faults` prints the matrix."""

import asyncio
import gc
import warnings

import pytest

from tests.contract.matrix import FAULTS, IN_ALL, Fault, Outcome, expected, play, table
from tests.contract.rows import ROWS, Row

Matrix = dict[tuple[str, str], Outcome]
CELLS = [
    pytest.param(row, fault, id=f"{row.name}-{fault.name}".replace(" ", "-"))
    for row in ROWS
    for fault in FAULTS
    if expected(row, fault) != "n/a"
]


@pytest.fixture(scope="module")
def matrix(tmp_path_factory: pytest.TempPathFactory) -> Matrix:
    with warnings.catch_warnings():
        # A connection that is being made when its connector ends is closed by nobody but the
        # collector (anyio), and this is the end of thirteen of them.
        warnings.simplefilter("ignore", ResourceWarning)
        found = asyncio.run(play(tmp_path_factory.mktemp("matrix")))
        gc.collect()
    print(f"\n{table(found)}")
    return found


@pytest.mark.parametrize(("row", "fault"), CELLS)
def test_a_connector_survives(matrix: Matrix, row: Row, fault: Fault) -> None:
    assert matrix[row.name, fault.name].problems == []


@pytest.mark.parametrize("row", ROWS, ids=lambda row: row.name)
def test_in_all_nothing_is_doubled_at_the_partner(matrix: Matrix, row: Row) -> None:
    assert matrix[row.name, IN_ALL].problems == []


def test_the_router_tells_nothing_of_what_it_carried(matrix: Matrix) -> None:
    assert ("router", "log") not in matrix
