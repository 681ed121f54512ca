"""What is to happen at a time: a heap of timers, each for a delivery, a question or a queue."""

import heapq
from collections.abc import Callable, Iterator
from typing import Literal

Kind = Literal["due", "expire", "answer", "wake"]


class Timers:
    """Timers in the order of their times, those of one time in the order they were set."""

    def __init__(self) -> None:
        self._heap: list[tuple[int, int, Kind, int]] = []  # (monotonic ms, order, kind, id)
        self._order = 0

    def __len__(self) -> int:
        return len(self._heap)

    def set(self, at_ms: int, kind: Kind, id: int) -> None:
        """Set one; it is not taken back: what has ended before its time is passed over."""
        self._order += 1
        heapq.heappush(self._heap, (at_ms, self._order, kind, id))

    def next_ms(self) -> int | None:
        """Return the monotonic time of the earliest."""
        return self._heap[0][0] if self._heap else None

    def take_due(self, mono_ms: int) -> Iterator[tuple[int, Kind, int]]:
        """Yield the time, kind and id of each whose time has come, also of those set meanwhile."""
        while self._heap and self._heap[0][0] <= mono_ms:
            at_ms, _, kind, id = heapq.heappop(self._heap)
            yield at_ms, kind, id

    def keep(self, is_live: Callable[[int, Kind, int], bool]) -> None:
        """Forget what is not live any more: a deadline may be years away."""
        self._heap = [timer for timer in self._heap if is_live(timer[0], timer[2], timer[3])]
        heapq.heapify(self._heap)
