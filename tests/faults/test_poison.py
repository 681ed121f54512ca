"""A delivery that kills its consumer each time: set aside in the end, and nothing else with it."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from proto import frames
from proto.message import Priority
from proto.note import coded
from router.core.delivery import State
from router.core.queue import URGENT_SUSPECTS_MAX
from router.settings import Backoff, Destination
from tests.faults.lives import HOUR, Lives, message, settings

# As the ambulance system's queue has it: emergencies are repeated for three days, not so often.
ENDLESS = Destination(backoff=Backoff(attempts_max=1_000_000, longest_ms=60_000))
POISON = "poison"


@pytest.fixture
def lives(tmp_path: Path) -> Iterator[Lives]:
    lives = Lives(tmp_path, settings(ENDLESS))
    yield lives
    lives.close()


class Worker:
    """A consumer that dies of `poison` and settles all else, and is started again each time."""

    def __init__(self, lives: Lives, window: int = 50) -> None:
        self.lives, self.window = lives, window
        self.deaths = 0
        self.settled: set[str] = set()
        self.gave: list[int] = []  # when it got the poison, monotonic

    def live(self, ms: int = 1_000) -> None:
        """Live for a second, or die."""
        lives = self.lives
        lives.consume(self.window)
        taken = lives.taken()
        if POISON in taken:
            self.gave.append(lives.now.mono_ms)
            self.deaths += 1
            lives.core.gone(b"c", lives.now, "silent")
            lives.flush()
        elif taken:
            lives.settle(*taken.values())
            self.settled |= taken.keys()
        lives.wait(ms)


@pytest.mark.fault("A17")
def test_it_dies_in_the_end_with_its_reason_and_takes_no_other_along(lives: Lives) -> None:
    """It was redelivered without pause and never died. Right: a growing pause, a dead letter with
    its reason, and those that were in the same hands are all delivered."""
    lives.accept(*(message(f"{n}") for n in range(20)), message(POISON),
                 *(message(f"later-{n}") for n in range(20)))  # fmt: skip
    worker = Worker(lives)
    for _ in range(120):
        worker.live()
    assert len(worker.settled) == 40
    totals = lives.totals()
    assert (totals["settled"], totals["dead"]) == (40, 1)
    assert worker.deaths <= 6
    pauses = [b - a for a, b in zip(worker.gave, worker.gave[1:], strict=False)]
    assert pauses[-1] > pauses[0]
    assert lives.store is not None
    (note,) = (row[0] for row in lives.store._rows("select note from outcome where state = ?",
                                                   (int(State.DEAD),)))  # fmt: skip
    assert note == coded("bus.poison", count=3)


@pytest.mark.fault("A17")
def test_it_dies_also_across_restarts_of_the_router(lives: Lives) -> None:
    """A sibling: what is known of it was forgotten by each start."""
    lives.accept(*(message(f"{n}") for n in range(5)), message(POISON))
    deaths = 0
    for life in range(12):
        worker = Worker(lives)
        for _ in range(3):
            worker.live()
        deaths += worker.deaths
        lives.begin(lives.now.wall_ms + 1_000)
        lives.accept(message(f"more-{life}"))
    for _ in range(60):
        worker.live()
    assert lives.totals()["dead"] == 1
    assert deaths <= 8


@pytest.mark.fault("A17")
def test_a_consumer_that_dies_of_anything_kills_nothing(lives: Lives) -> None:
    """A connector that ends right after its start, whatever it gets: nothing is its fault."""
    lives.accept(*(message(f"{n}") for n in range(10)))
    for _ in range(100):
        lives.consume(5)
        lives.taken()
        lives.core.gone(b"c", lives.now, "silent")
        lives.wait(1_000)
    assert lives.totals()["dead"] == 0
    worker = Worker(lives)
    for _ in range(200):
        worker.live()
    assert lives.totals()["settled"] == 10


@pytest.mark.fault("A17")
def test_emergencies_go_on_beside_a_suspect(lives: Lives) -> None:
    """A suspect in a consumer's hands holds up no emergency, and for the others it is over when the
    consumer has lived with it for a while."""
    lives.accept(message("slow"))
    for _ in range(2):
        lives.consume()
        lives.taken()
        lives.core.gone(b"c", lives.now, "silent")
    lives.accept(message("routine"), message("emergency", Priority.EMERGENCY))
    lives.consume()
    lives.settle(*lives.taken().values())  # the emergency came first
    assert list(lives.taken()) == ["slow"]
    lives.accept(message("emergency-2", Priority.EMERGENCY))
    assert list(lives.taken()) == ["emergency-2"]
    lives.wait(25_000)
    assert list(lives.taken()) == ["routine"]


@pytest.mark.fault("A17")
def test_who_leaves_on_purpose_has_died_of_nothing(lives: Lives) -> None:
    """A sibling: a connector that is stopped and started again, with its hands full, is no proof
    against what it held; neither is one that had held it for long."""
    lives.accept(message("held"), message("other"))
    for _ in range(5):
        lives.consume(1)
        assert list(lives.taken()) == ["held"]
        lives.hear(b"c", frames.BYE, frames.Bye("deploy"))
    for _ in range(5):
        lives.consume(1)
        assert list(lives.taken()) == ["held"]
        lives.wait(HOUR // 60)
        lives.core.gone(b"c", lives.now, "silent")
    assert not lives.core.open[1].suspect
    assert lives.totals()["dead"] == 0


@pytest.mark.fault("A17")
def test_a_steady_flow_of_emergencies_does_not_starve_those_that_are_suspect(lives: Lives) -> None:
    """Cards in the hands of a connector that was killed twice waited for empty hands: in a busy
    hour, with a partner that takes seconds, those never came."""
    first = [f"first-{n}" for n in range(5)]
    lives.accept(*(message(id, Priority.EMERGENCY) for id in first))
    for _ in range(2):
        lives.consume(50)
        assert set(lives.taken()) == set(first)
        lives.core.gone(b"c", lives.now, "silent")
        lives.flush()
    lives.consume(50)
    given: list[tuple[int, str, int]] = []
    came: dict[str, int] = {}
    for second in range(200):
        lives.accept(message(f"next-{second}", Priority.EMERGENCY))
        for id, delivery in lives.taken().items():
            given.append((second, id, delivery))
            came[id] = second
        while given and given[0][0] <= second - 3:  # what it takes the partner to answer
            lives.settle(given.pop(0)[2])
        lives.wait(1_000)
    assert set(first) <= set(came), "some cards are never tried"
    waited = [came[f"next-{n}"] - n for n in range(190)]
    assert max(waited) <= 10, "nor do the others wait for long"


@pytest.mark.fault("A17")
def test_many_emergencies_at_once_count_one_by_one_past_a_suspect(lives: Lives) -> None:
    """With one consumer a whole window of emergencies went past a suspect one and counted as one:
    sixteen windows came before its turn. Right: sixteen emergencies."""
    lives.accept(message("bad", Priority.EMERGENCY), message("bad-2", Priority.EMERGENCY))
    for _ in range(2):
        lives.consume(100)
        assert set(lives.taken()) == {"bad", "bad-2"}
        lives.core.gone(b"c", lives.now, "silent")
        lives.flush()
    lives.consume(100)
    on_trial = lives.taken()
    assert list(on_trial) == ["bad"]
    lives.accept(message("held", Priority.EMERGENCY))
    assert list(lives.taken()) == ["held"]
    lives.settle(*on_trial.values())  # from here on "bad-2" waits until the hands are empty
    lives.accept(*(message(f"next-{n}", Priority.EMERGENCY) for n in range(60)))
    assert len(lives.taken()) <= URGENT_SUSPECTS_MAX
