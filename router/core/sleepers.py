"""Deliveries whose time has not come: on the disk, with a number each in memory.

A region's documents alone wait for their answers by the hundred thousand, for weeks. In memory they
would take the place of what can go now. So what is not due within `SOON_MS` is filed in the store's
backlog at once, in lanes of its own (`ASLEEP` and up) that no cursor reads, with its time where
others have the hash of their subject: it takes its place in its subject when its time comes. In
memory stays one integer for each, of time and number, in a heap for each lane.
"""

from collections.abc import Sequence
from heapq import heapify, heappop, heappush
from typing import Final

LANES: Final = 4
ASLEEP: Final = LANES  # added to a lane of the backlog
SOON_MS: Final = 5_000  # what is due sooner waits in memory
WAKE_LENGTH_MAX: Final = 64  # read together
_BITS: Final = 63  # of a delivery's number


class Sleepers:
    """Those of one queue. Times are ms UTC."""

    def __init__(self) -> None:
        self.total = 0
        # by lane, those that are being read: delivery -> due
        self._waking: tuple[dict[int, int], ...] = tuple({} for _ in range(LANES))
        self._heaps: tuple[list[int], ...] = tuple([] for _ in range(LANES))

    def add(self, lane: int, delivery: int, due: int) -> None:
        """Note one that is filed in the backlog."""
        heappush(self._heaps[lane], due << _BITS | delivery)
        self.total += 1

    def find_on_disk(self, lane: int, deliveries: Sequence[int], dues: Sequence[int]) -> None:
        """Note a run of rows that a start finds on the disk."""
        heap = self._heaps[lane]
        heap += [due << _BITS | id for due, id in zip(dues, deliveries, strict=True)]
        heapify(heap)
        self.total += len(deliveries)

    def take_due(self, lane: int, sure_ms: int) -> list[tuple[int, int]]:
        """Take out some that are due: (delivery, lane of the backlog), the earliest first."""
        heap, limit = self._heaps[lane], (sure_ms + 1) << _BITS
        waking = self._waking[lane]
        while heap and heap[0] < limit and len(waking) < WAKE_LENGTH_MAX:
            due, delivery = divmod(heappop(heap), 1 << _BITS)
            waking[delivery] = due
        self.total -= len(waking)
        return [(delivery, lane + ASLEEP) for delivery in waking]

    def is_waking(self, lane: int) -> bool:
        """Whether some of a lane are being read."""
        return bool(self._waking[lane])

    def woken(self, lane: int, came: set[int]) -> None:
        """These were read; what was too much for one read sleeps on until the next."""
        waking = self._waking[lane]
        for delivery, due in waking.items():
            if delivery not in came:
                self.add(lane, delivery, due)
        waking.clear()

    def is_due(self, lane: int, sure_ms: int) -> bool:
        """Whether the time of one has come."""
        heap = self._heaps[lane]
        return bool(heap) and heap[0] < (sure_ms + 1) << _BITS

    def next_after(self, sure_ms: int) -> int | None:
        """Return the earliest time that has not come, of lanes where none has."""
        tops = (heap[0] >> _BITS for heap in self._heaps if heap)
        return min((due for due in tops if due > sure_ms), default=None)
