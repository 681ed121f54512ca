"""One sender's bulk shuts out nobody: emergencies have a reserve, and each sender a share."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proto.message import Priority
from router.settings import Destination
from tests.faults.lives import DAY, NOON, Lives, message, settings

OPEN_MAX = 1_000
BULK, EMERGENCY = Priority.BULK, Priority.EMERGENCY


@pytest.fixture
def lives(tmp_path: Path) -> Iterator[Lives]:
    lives = Lives(tmp_path, settings(Destination(open_max=OPEN_MAX)))
    lives.greet(b"r", "rival")
    yield lives
    lives.close()


def fill(lives: Lives, count: int, peer: bytes = b"p", **rest: Any) -> int:
    """Publish bulk without end; return how many were taken."""
    source = "producer" if peer == b"p" else "rival"
    lives.batch += 1
    ids = range(count)
    each = [message(f"{lives.batch}-{n}", BULK, source=source, **rest) for n in ids]
    codes = lives.accept(*each, peer=peer)
    assert set(codes) <= {"queue_full"}
    return count - len(codes)


@pytest.mark.fault("D8")
def test_bulk_leaves_room_for_emergencies_and_for_others(lives: Lives) -> None:
    """At open_max an emergency was refused `queue_full`. Right: a part is kept for emergencies, and
    one sender's flood leaves the others their share."""
    assert fill(lives, 2 * OPEN_MAX) == 720, "80 % of the 90 % that are not for emergencies"
    assert lives.accept(message("e", EMERGENCY)) == []
    assert lives.accept(message("r", BULK, source="rival"), peer=b"r") == []
    assert fill(lives, 2 * OPEN_MAX, b"r") > 100
    assert lives.core.queues["sink"].open < OPEN_MAX * 9 // 10
    assert lives.accept(message("e2", EMERGENCY, source="rival"), peer=b"r") == []


@pytest.mark.fault("D8")
def test_also_after_a_restart(lives: Lives) -> None:
    """A sibling: a start does not know whose its backlog is. It is then nobody's, and of what it
    leaves no sender gets all."""
    fill(lives, 2 * OPEN_MAX)
    lives.begin()
    lives.greet(b"r", "rival")
    for _ in range(5):
        fill(lives, OPEN_MAX)
    assert lives.accept(message("r", BULK, source="rival"), peer=b"r") == []
    assert lives.accept(message("e", EMERGENCY)) == []


@pytest.mark.fault("D8")
def test_room_comes_back_with_every_end(lives: Lives) -> None:
    """A sibling: what was settled, refused as a repeat, or slept counts for nobody any more."""
    taken = fill(lives, 2 * OPEN_MAX)
    lives.accept(message("twice", EMERGENCY))
    lives.accept(message("twice", EMERGENCY))
    lives.consume(OPEN_MAX)
    lives.settle(*lives.taken().values())
    lives.settle(*lives.taken().values())
    assert lives.core.queues["sink"].open_of == {}
    assert fill(lives, 2 * OPEN_MAX, not_before=NOON + DAY) == taken
    assert lives.core.queues["sink"].open_of == {"producer": taken}


@pytest.mark.fault("D8")
def test_the_shares_are_settings(tmp_path: Path) -> None:
    """Who has one sender only, and no emergencies, may use all."""
    all_of_it = Destination(open_max=OPEN_MAX, emergency_percent=0, sender_percent=100)
    lives = Lives(tmp_path, settings(all_of_it))
    assert fill(lives, 2 * OPEN_MAX) == OPEN_MAX
    lives.close()
