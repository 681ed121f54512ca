"""The account of what is on the disk only, held against plain sets."""

from collections.abc import Iterator
from typing import Final

import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from router.core import spill as module
from router.core.spill import LANES, Spill

SUBJECTS: Final = (0, 1, 2, 2**32 - 1)  # 0: it has none
RUN: Final = 4
lanes = st.integers(0, LANES - 1)


@pytest.fixture(autouse=True, scope="module")
def _short_runs() -> Iterator[None]:
    patch = pytest.MonkeyPatch()
    patch.setattr(module, "RUN_LENGTH", RUN)
    patch.setattr(module, "AHEAD_MIN", 2)
    yield
    patch.undo()


class SpillMachine(RuleBasedStateMachine):
    """Rows are numbered as they come; each is read once, in its lane's order or out of turn."""

    def __init__(self) -> None:
        super().__init__()
        self.spill = Spill()
        self.unread: dict[int, tuple[int, int]] = {}  # delivery -> lane, subject
        self.rows: dict[int, int] = {}  # all that the disk has: delivery -> lane
        self.next = 1

    @initialize(found=st.lists(st.tuples(lanes, st.sampled_from(SUBJECTS)), max_size=12))
    def start(self, found: list[tuple[int, int]]) -> None:
        for lane in range(LANES):
            run = [(n, subject) for n, (of, subject) in enumerate(found, 1) if of == lane]
            if run:
                self.spill.find_on_disk(lane, *map(list, zip(*run, strict=True)))
                self.unread |= {n: (lane, subject) for n, subject in run}
                self.rows |= dict.fromkeys((n for n, _ in run), lane)
        self.next = len(found) + 1

    @rule(lane=lanes, subject=st.sampled_from(SUBJECTS))
    def add(self, lane: int, subject: int) -> None:
        self.spill.add(lane, self.next, subject)
        self.unread[self.next] = lane, subject
        self.rows[self.next] = lane
        self.next += 1

    @rule(lane=lanes)
    def file_what_is_in_memory(self, lane: int) -> None:
        self.spill.pass_by(lane, self.next)
        self.rows[self.next] = lane
        self.next += 1

    @rule(lane=lanes, count=st.integers(1, 5))
    def read_on(self, lane: int, count: int) -> None:
        after = self.spill.cursors[lane]
        if not self.spill.unread[lane]:
            return
        found = [n for n, of in sorted(self.rows.items()) if of == lane and n > after][:count]
        new = [n for n in found if self.spill.read_next(lane, n)]
        assert new == [n for n in found if n in self.unread]
        for n in new:
            del self.unread[n]
        self.spill.trim()

    @precondition(lambda self: self.unread)
    @rule(data=st.data())
    def read_out_of_turn(self, data: st.DataObject) -> None:
        n = data.draw(st.sampled_from(sorted(self.unread)))
        lane, _ = self.unread.pop(n)
        assert not self.spill.is_read(lane, n)
        self.spill.read(lane, n)

    @invariant()
    def counts_are_right(self) -> None:
        by_lane = [sum(of == lane for of, _ in self.unread.values()) for lane in range(LANES)]
        assert (self.spill.unread, self.spill.total) == (by_lane, len(self.unread))

    @invariant()
    def every_subject_is_found(self) -> None:
        for subject in SUBJECTS[1:]:
            wanted = [(n, lane) for n, (lane, of) in sorted(self.unread.items()) if of == subject]
            assert self.spill.find(subject) == wanted


TestSpill = SpillMachine.TestCase
TestSpill.settings = settings(max_examples=200, stateful_step_count=40, deadline=None)


def test_what_was_read_is_let_go_of() -> None:
    spill = Spill()
    for n in range(1, 10 * RUN + 1):
        spill.add(2, n, n % 3)
    for n in range(1, 10 * RUN):
        spill.read_next(2, n)
        spill.trim()
    assert len(spill._runs) <= 1
    spill.read_next(2, 10 * RUN)
    assert (spill.total, spill._runs, spill._recent) == (0, [], {})
