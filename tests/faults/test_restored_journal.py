"""An old copy of the bus's files is put back: nothing is said to be delivered that is not."""

import pytest

from tests.integration.house import House
from tests.restore.drill import WAYS, drill


@pytest.mark.fault("A1")
def test_what_is_reported_as_delivered_after_a_restore_is_with_the_partners() -> None:
    """Seen: new cards got the keys of old ones, the ambulance answered the old result, and the bus
    said "delivered". Right: whatever the journal says was delivered, the partner has; with real
    connectors and simulators, for a copy at rest and one of a running machine."""
    house = House()
    try:
        house.start_all()
        verdicts = [drill(house, seed) for seed in (0, 3)]
    finally:
        house.close()
    assert {str(verdict.way) for verdict in verdicts} == {str(WAYS[0]), str(WAYS[3])}
    assert [verdict.missing for verdict in verdicts] == [[], []]
    assert min(verdict.checked for verdict in verdicts) > 50
