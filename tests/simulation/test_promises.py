"""The core under a seeded world: many short lives with crashes, each checked at every step."""

import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from world import World

SEEDS = 60
STEPS = 300


@pytest.mark.parametrize("seed", range(SEEDS))
def test_promises_hold(seed: int) -> None:
    world = World(seed)
    for _ in range(STEPS):
        world.step()
    world.settle_all()
    world.check_end()
    assert world.accepted
