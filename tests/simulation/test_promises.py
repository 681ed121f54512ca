"""The core in a seeded world of peers, disks, clocks and crashes; each step is checked."""

import pytest

from tests.simulation.life import live
from tests.simulation.plan import CRASHES_MIN, draw

SEEDS = 200
STEPS = 500
GROUPS = 20


@pytest.mark.parametrize("group", range(GROUPS))
def test_promises_hold(group: int) -> None:
    for seed in range(group, SEEDS, GROUPS):
        end = live(draw(seed, STEPS))
        assert not end.promise, f"seed {seed}, step {end.steps}: {end.promise}: {end.detail}"
        assert end.crashes >= CRASHES_MIN


def test_a_seed_is_the_same_life_each_time() -> None:
    assert draw(7, STEPS) == draw(7, STEPS)
    assert live(draw(7, STEPS)) == live(draw(7, STEPS))
