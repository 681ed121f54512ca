"""What is held for a partner that comes by itself: given out, committed, or taken back when its
time is over. Pure: the clock is given by the caller, in seconds.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from heapq import heappop, heappush
from itertools import count
from typing import Final, Generic, TypeVar

from connectors.runtime.door.owned import KEPT, Owned

COMMITTED_KEPT: Final = KEPT

Item = TypeVar("Item")


@dataclass
class _Held(Generic[Item]):
    item: Item
    due: float | None = None  # until when it is given out; None: it waits on the shelf


class Shelf(Generic[Item]):
    """Items by their ref. The urgent ones are given out first, then those that came first."""

    def __init__(self) -> None:
        self._held: dict[str, _Held[Item]] = {}
        self._line: list[tuple[int, int, str]] = []  # may name what is gone
        self._numbers = count()
        self._given = Owned()
        self._committed = Owned(COMMITTED_KEPT)

    @property
    def given(self) -> int:
        """How many are given out and not committed."""
        return sum(one.due is not None for one in self._held.values())

    @property
    def waiting(self) -> int:
        """How many lie on the shelf."""
        return len(self._held) - self.given

    def put(self, ref: str, item: Item, priority: int) -> None:
        """Lay an item on the shelf. A ref is held once at a time."""
        self._held[ref] = _Held(item)
        heappush(self._line, (priority, next(self._numbers), ref))

    def take(self, most: int, due: float, owner: str = "") -> Iterator[tuple[str, Item]]:
        """Give out at most `most` items to `owner`, until `due`."""
        while most > 0 and self._line:
            _, _, ref = heappop(self._line)
            held = self._held.get(ref)
            if held is None or held.due is not None:
                continue
            held.due = due
            self._given.give(owner, ref)
            most -= 1
            yield ref, held.item

    def overdue(self, now: float) -> list[Item]:
        """Take back and return what was given out for too long."""
        late = [ref for ref, one in self._held.items() if one.due is not None and one.due <= now]
        return [self._held.pop(ref).item for ref in late]

    def remove(self, ref: str) -> Item | None:
        """Return the item of `ref`, which is held no more; None when it is not held."""
        held = self._held.pop(ref, None)
        return None if held is None else held.item

    def claim(self, ref: str, owner: str = "") -> Item | None:
        """Return the item of `ref`, which is held no more, to whom it was given out; None to
        anybody else, and for what was never given out: nobody has it."""
        return self.remove(ref) if self._given.has(owner, ref) else None

    def note_committed(self, ref: str, owner: str = "") -> None:
        """Remember for a while that `owner` is done with `ref` for good."""
        self._committed.give(owner, ref)

    def was_committed(self, ref: str, owner: str = "") -> bool:
        """Whether `owner` was done with `ref`: a commit whose answer was lost comes again."""
        return self._committed.has(owner, ref)
