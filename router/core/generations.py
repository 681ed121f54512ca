"""Which start of the router gave a delivery its number.

A journal that was put back from a copy gives numbers that another life of it has given before. So
every start draws a word at random, its generation, for the numbers that it will give; number and
generation together never come twice. Deliveries keep theirs for ever.
"""

from bisect import bisect_right
from collections.abc import Sequence
from typing import Final

NEVER: Final = 2**63  # no delivery has this number


class Generations:
    """Generations by the first delivery number of each; what came before them has none ("")."""

    def __init__(self, rows: Sequence[tuple[int, str]] = ()) -> None:
        """`rows` are (first delivery number, word), in order."""
        self._firsts = [first for first, _ in rows]
        self._words = ["", *(word for _, word in rows)]
        self.newest_first = self._firsts[-1] if rows else NEVER
        self.newest = self._words[-1]

    def of(self, delivery: int) -> str:
        """Return the generation of a delivery number."""
        if delivery >= self.newest_first:
            return self.newest
        return self._words[bisect_right(self._firsts, delivery)]

    def gave(self, delivery: int, told: str | None) -> bool:
        """Whether a peer speaks of this very delivery, and not of one that another life of the
        journal gave the same number. None: it does not know of generations."""
        return told is None or told == self.of(delivery)
