"""Whether the simulation can fail: every bug planted into the core is found."""

import pytest

from tests.simulation.canaries import CANARIES, hunt, planted
from tests.simulation.life import live
from tests.simulation.plan import draw


@pytest.mark.parametrize("name", CANARIES)
def test_a_planted_bug_is_found(name: str) -> None:
    assert hunt(name).end is not None


def test_a_bug_is_gone_when_it_is_taken_out_again() -> None:
    for canary in CANARIES.values():
        before = vars(canary.owner)[canary.attribute]
        with planted(canary):
            assert vars(canary.owner)[canary.attribute] is not before
        assert vars(canary.owner)[canary.attribute] is before
    assert live(draw(0, 200)).promise == ""
