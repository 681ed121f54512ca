"""What of a queue is on the disk only: how much, where reading goes on, and whose it is.

A lane whose deliveries would take more memory than it may have files the next ones straight into
the store's backlog, as rows. They are read back in order, by a cursor per lane, when the lane runs
short of what it can hand out. What is read out of turn (a subject that something more urgent waits
for) or was filed while it was in memory is noted as `ahead`, until the cursor passes it.

A row is "unread" until it is in memory. Every unread row is in the index, so that it is known at
once whether a subject has one; the index may still hold some that were read.
"""

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from typing import Final

LANES: Final = 4
AHEAD_MIN: Final = 1_024
RUN_LENGTH: Final = 16_384  # rows; sorting one takes some milliseconds


class _Run:
    """Rows by the hash of their subject, sorted once and never changed: 12 bytes a row."""

    __slots__ = ("_hashes", "_places", "_tops")

    def __init__(self, hashes: Sequence[int], places: Sequence[int], tops: list[int]) -> None:
        order = sorted(range(len(hashes)), key=hashes.__getitem__)
        self._hashes = array("I", map(hashes.__getitem__, order))
        self._places = array("Q", map(places.__getitem__, order))
        self._tops = tops  # the newest delivery of each lane

    def find(self, subject_hash: int, found: list[tuple[int, int]]) -> None:
        """Add (delivery, lane) of every row of a subject to `found`."""
        hashes = self._hashes
        at = bisect_left(hashes, subject_hash)
        while at < len(hashes) and hashes[at] == subject_hash:
            found.append(divmod(self._places[at], LANES))
            at += 1

    def is_behind(self, cursors: list[int]) -> bool:
        """Whether all rows were passed by the cursors."""
        return all(top <= cursor for top, cursor in zip(self._tops, cursors, strict=True))


class Spill:
    """The rows of one queue that are not in memory."""

    def __init__(self) -> None:
        self.total = 0
        self.unread = [0] * LANES
        self.cursors = [0] * LANES  # delivery: all rows up to here were read
        self.synced = [0] * LANES  # delivery: the newest row that is known to be on the disk
        self.reading = [False] * LANES
        self._ahead: tuple[set[int], ...] = tuple(set() for _ in range(LANES))
        self._runs: list[_Run] = []
        self._recent: dict[int, list[tuple[int, int]]] = {}
        self._recent_length = 0

    def add(self, lane: int, delivery: int, subject_hash: int) -> None:
        """Note a row that goes to the disk instead of into memory."""
        if not self.unread[lane]:
            self.cursors[lane] = delivery - 1  # whatever came before is in memory, or over
            self._ahead[lane].clear()
        self._note(lane, delivery, subject_hash)

    def find_on_disk(self, lane: int, deliveries: Sequence[int], hashes: Sequence[int]) -> None:
        """Note a run of rows that a start finds on the disk, in their order."""
        self.unread[lane] += len(deliveries)
        self.total += len(deliveries)
        tops = [0] * LANES
        self.synced[lane] = tops[lane] = deliveries[-1]
        self._runs.append(_Run(hashes, [place * LANES + lane for place in deliveries], tops))

    def _note(self, lane: int, delivery: int, subject_hash: int) -> None:
        self.unread[lane] += 1
        self.total += 1
        if not subject_hash:  # no subject, no order
            return
        self._recent.setdefault(subject_hash, []).append((delivery, lane))
        self._recent_length += 1
        if self._recent_length == RUN_LENGTH:
            self._close_run()

    def _close_run(self) -> None:
        hashes: list[int] = []
        places: list[int] = []
        tops = [0] * LANES
        for subject_hash, rows in self._recent.items():
            for delivery, lane in rows:
                hashes.append(subject_hash)
                places.append(delivery * LANES + lane)
                tops[lane] = max(tops[lane], delivery)
        self._runs.append(_Run(hashes, places, tops))
        self._recent, self._recent_length = {}, 0

    def pass_by(self, lane: int, delivery: int) -> None:
        """A row is filed of what is in memory, or is not: the cursor is to pass it by."""
        if self.unread[lane] and delivery > self.cursors[lane]:
            self._ahead[lane].add(delivery)

    def is_read(self, lane: int, delivery: int) -> bool:
        """Whether a row is in memory, or was."""
        return delivery <= self.cursors[lane] or delivery in self._ahead[lane]

    def read(self, lane: int, delivery: int) -> None:
        """A row comes into memory out of turn, or turns out not to be there."""
        self._ahead[lane].add(delivery)
        self._count_off(lane)

    def read_next(self, lane: int, delivery: int) -> bool:
        """Move the cursor to a row; returns False when that is in memory already."""
        if delivery <= self.cursors[lane]:
            return False
        self.cursors[lane] = delivery
        ahead = self._ahead[lane]
        if delivery in ahead:
            ahead.remove(delivery)
            return False
        self._count_off(lane)
        return True

    def _count_off(self, lane: int) -> None:
        self.unread[lane] -= 1
        self.total -= 1
        if not self.total:
            self._runs.clear()
            self._recent, self._recent_length = {}, 0

    def trim(self) -> None:
        """Forget what the cursors have passed."""
        for ahead, cursor in zip(self._ahead, self.cursors, strict=True):
            if len(ahead) > AHEAD_MIN:
                ahead.difference_update([delivery for delivery in ahead if delivery <= cursor])
        if self._runs and self._runs[0].is_behind(self.cursors):
            self._runs = [run for run in self._runs if not run.is_behind(self.cursors)]

    def find(self, subject_hash: int) -> list[tuple[int, int]]:
        """Return (delivery, lane) of every unread row of a subject, the oldest first.

        Two subjects may have the same hash: then rows of the other come with it.
        """
        found = list(self._recent.get(subject_hash, ()))
        for run in self._runs:
            run.find(subject_hash, found)
        return sorted(place for place in found if not self.is_read(place[1], place[0]))
