"""Space set aside beside the journal: held while there is room, given back when there is none."""

from pathlib import Path

from router.shell.ballast import FILE, Ballast

SIZE = 256 * 1024


def test_the_space_is_really_taken(tmp_path: Path) -> None:
    ballast = Ballast(tmp_path, SIZE)
    ballast.take()
    taken = (tmp_path / FILE).stat()
    assert ballast.is_held
    assert (taken.st_size, taken.st_blocks * 512 >= SIZE) == (SIZE, True)


def test_it_is_given_back_once_when_hardly_any_is_left(tmp_path: Path) -> None:
    ballast = Ballast(tmp_path, SIZE)
    ballast.take()
    assert not ballast.watch(SIZE)
    assert ballast.watch(SIZE - 1)
    assert not ballast.is_held
    assert not ballast.watch(0)


def test_one_of_an_earlier_start_is_found(tmp_path: Path) -> None:
    Ballast(tmp_path, SIZE).take()
    assert Ballast(tmp_path, SIZE).watch(0)


def test_none_is_none(tmp_path: Path) -> None:
    ballast = Ballast(tmp_path, 0)
    ballast.take()
    assert list(tmp_path.iterdir()) == []
    assert not ballast.watch(0)


def test_no_room_leaves_nothing_behind(tmp_path: Path) -> None:
    ballast = Ballast(tmp_path, 2**62)
    ballast.take()
    assert list(tmp_path.iterdir()) == []
