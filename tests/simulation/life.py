"""One life from its plan to its end: what came of it."""

import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from router.core import clock, delivering, persisting, sleepers, spill, state, supply
from router.core import queue as lanes
from tests.simulation import belief, lines, scene
from tests.simulation.plan import Plan
from tests.simulation.promise import Violation
from tests.simulation.world import World


@dataclass(frozen=True, slots=True)
class End:
    """How a life ended: after how many steps and crashes, and which promise was broken, if any."""

    seed: int
    steps: int
    crashes: int
    promise: str = ""
    detail: str = ""


@contextmanager
def small_world() -> Iterator[None]:
    """Bring limits within reach that a short life would never meet."""
    small = (
        (lanes, "PASSED_OVER_MAX", lines.PASSED_OVER_MAX),
        (lanes, "URGENT_SUSPECTS_MAX", lines.URGENT_SUSPECTS_MAX),
        (lanes, "EMERGENCIES_MAX", lines.EMERGENCIES_MAX),
        (delivering, "DELIVER_LENGTH_MAX", 3),
        (delivering, "TRIAL_FACTOR", 1),
        (persisting, "FILE_STEP", 5),
        (state, "STALE_TIMERS_MIN", 8),
        (lanes, "MIB", scene.MIB),
        (supply, "SUPPLY_MIN", 3),
        (supply, "HUNGER", 1),
        (supply, "SOON_MS", scene.SOON_MS),
        (sleepers, "WAKE_LENGTH_MAX", 4),
        (clock, "TRUST_MS", belief.TRUST_MS),
        (clock, "DOWNTIME_MS", belief.DOWNTIME_MS),
        (spill, "AHEAD_MIN", 2),
        (spill, "RUN_LENGTH", 4),
    )
    kept = [(module, name, getattr(module, name)) for module, name, _ in small]
    try:
        for module, name, value in small:
            setattr(module, name, value)
        yield
    finally:
        for module, name, value in kept:
            setattr(module, name, value)


def live(plan: Plan) -> End:
    """Live a plan to its end. What the core raises breaks a promise too."""
    world = None
    try:
        with small_world():
            world = World(plan.setup)
            for action in plan.actions:
                world.step(action)
            world.finish()
    except Violation as violation:
        promise, detail = violation.promise, violation.detail
    except Exception as error:
        where = traceback.extract_tb(error.__traceback__)[-1]
        promise = f"no {type(error).__name__}"
        detail = f"{error} in {where.name}, line {where.lineno}"
    else:
        return End(plan.seed, world.steps, world.crashes)
    steps, crashes = (world.steps, world.crashes) if world else (0, 0)
    return End(plan.seed, steps, crashes, promise, detail)
