"""A failing plan made short: parts are left out as long as the same promise is still broken."""

from collections.abc import Callable, Iterator

from tests.simulation.plan import MESSAGE_NUMBERS, Action, Plan, Setup

RUNS_MAX = 4_000


class Shrinker:
    """Shrinks one plan; `fails` says whether a plan breaks the same promise."""

    def __init__(self, fails: Callable[[Plan], bool], runs_max: int = RUNS_MAX) -> None:
        self._fails = fails
        self._left = runs_max

    def shrink(self, plan: Plan, steps: int) -> Plan:
        """Return a short plan that fails like `plan`, which did so at step `steps`."""
        plan = plan._replace(actions=plan.actions[:steps])
        before = None
        while before != plan and self._left > 0:
            before = plan
            plan = self._leave_out(plan)
            plan = self._simplify(plan)
        return plan

    def _try(self, plan: Plan) -> bool:
        self._left -= 1
        return self._left >= 0 and self._fails(plan)

    def _leave_out(self, plan: Plan) -> Plan:
        size = max(1, len(plan.actions) // 2)
        while True:
            at = len(plan.actions)
            while at > 0:
                at -= size
                shorter = plan.actions[: max(0, at)] + plan.actions[max(0, at + size) :]
                if len(shorter) < len(plan.actions):
                    candidate = plan._replace(actions=shorter)
                    if self._try(candidate):
                        plan = candidate
                at = min(at, len(plan.actions))
            if size == 1:
                return plan
            size = size // 2

    def _simplify(self, plan: Plan) -> Plan:
        for setup in _simpler_setups(plan.setup):
            if self._try(plan._replace(setup=setup)):
                plan = plan._replace(setup=setup)
        for at in reversed(range(len(plan.actions))):
            again = True
            while again and self._left > 0:
                again = False
                for simpler in _simpler_actions(plan.actions[at]):
                    actions = [*plan.actions[:at], simpler, *plan.actions[at + 1 :]]
                    if self._try(plan._replace(actions=actions)):
                        plan, again = plan._replace(actions=actions), True
                        break
        return plan


def _simpler_setups(setup: Setup) -> Iterator[Setup]:
    if any(setup):
        yield Setup()
    for field, value in setup._asdict().items():
        if value:
            yield setup._replace(**{field: 0})


def _simpler_actions(action: Action) -> Iterator[Action]:
    name, numbers = action
    if name == "publish":
        for at in range(1, len(numbers), MESSAGE_NUMBERS):
            if len(numbers) > 1 + MESSAGE_NUMBERS:
                yield name, numbers[:at] + numbers[at + MESSAGE_NUMBERS :]
    for at, number in enumerate(numbers):
        if number:
            yield name, (*numbers[:at], 0, *numbers[at + 1 :])
