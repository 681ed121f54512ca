"""A pace for operators' questions: messages go first, however many ask and however often."""

import asyncio
from typing import Final

# Of the loop's time, at most so much goes to one kind of questions.
SHARE: Final = 0.1
STEP_MIN_S: Final = 0.002  # to take a question up and to send its answer cost, too
STEP_MAX_S: Final = 0.1


class Pace:
    """Lets pieces of work begin one after another, each so long after the one before that all of
    them together take no more than SHARE of the loop's time. One now and then never waits."""

    def __init__(self) -> None:
        self._next = 0.0  # on the loop's clock
        self._step_s = STEP_MIN_S

    async def turn(self) -> None:
        """Wait for a turn; turns come in the order in which they were asked for."""
        now = asyncio.get_running_loop().time()
        at = max(now, self._next)
        self._next = at + self._step_s
        if at > now:
            await asyncio.sleep(at - now)

    def took(self, seconds: float) -> None:
        """Note what a piece of work cost the loop."""
        cost_s = seconds / SHARE
        self._step_s = min(max(cost_s, 0.9 * self._step_s, STEP_MIN_S), STEP_MAX_S)
        self._next = max(self._next, asyncio.get_running_loop().time() + self._step_s)
