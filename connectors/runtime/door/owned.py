"""Whose a number is: what somebody outside names is looked up by its owner and the number together.

A number alone is no right: it may be counted on from another one, or be read in a trace. Rows that
lie in a file are looked up so in SQL (`external.memory`, `document.archive.of_exchange`,
`rmis.memory.was_asked`); what lies in memory, here.
"""

from collections import OrderedDict
from typing import Final

KEPT: Final = 10_000


class Owned:
    """Numbers that were given to owners, the newest `kept` of them."""

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._given: OrderedDict[tuple[str, str], None] = OrderedDict()

    def give(self, owner: str, id: str) -> None:
        """From now on `id` is a number of `owner`."""
        self._given[owner, id] = None
        self._given.move_to_end((owner, id))
        if len(self._given) > self._kept:
            self._given.popitem(last=False)

    def has(self, owner: str, id: str) -> bool:
        """Whether `id` is a number of `owner`."""
        return (owner, id) in self._given
