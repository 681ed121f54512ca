"""What is written is its owner's alone, and no link that a stranger laid is followed."""

import os
import stat
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import apsw
import pytest

from connectors.billing.billed import Billed
from connectors.partners.ats.memory import LiveCalls
from connectors.partners.rmr.progress import Progress
from connectors.runtime.partner.quota import Quota
from connectors.runtime.statefile import Spared, StateFile
from proto.exits import StartError
from proto.keys import KeyPair, load_public
from router.shell.ballast import FILE, Ballast
from router.shell.lock import lock_folder
from tests.integration.bus import SMPBUS

SCHEMA = "create table if not exists note (body text)"
WORDS = b"another's\n"


@pytest.fixture
def shared(tmp_path: Path) -> Path:
    """A folder that everybody may write to."""
    folder = tmp_path / "shared"
    folder.mkdir()
    folder.chmod(0o777)
    return folder


@pytest.fixture
def victim(tmp_path: Path) -> Path:
    file = tmp_path / "victim"
    file.write_bytes(WORDS)
    file.chmod(0o600)
    return file


@pytest.fixture(autouse=True)
def open_umask() -> Iterator[None]:
    """As a shell may have it that left everything open."""
    before = os.umask(0)
    yield
    os.umask(before)


def untouched(victim: Path) -> bool:
    return victim.read_bytes() == WORDS and stat.S_IMODE(victim.stat().st_mode) == 0o600


@pytest.mark.fault("S14")
@pytest.mark.parametrize("laid", ["keys/token", "keys/.token.new"])
def test_a_token_is_not_written_through_a_link(shared: Path, victim: Path, laid: str) -> None:
    """`smpbus external token` wrote by the name `.NAME.new`: a link of that name made it overwrite
    another's file, and open it to everybody."""
    (shared / "keys").mkdir()
    link = shared / laid
    link.symlink_to(victim)
    file = shared / "keys/token"
    done = subprocess.run(
        [SMPBUS, "external", "token", "med", "--replace", "--file", file],
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert done.returncode == 0, done.stderr
    assert untouched(victim)
    assert not file.is_symlink()
    assert len(file.read_text().split()) == 1


@pytest.mark.fault("S14")
@pytest.mark.parametrize("lost", [False, True])
def test_a_key_is_not_written_through_a_link(shared: Path, victim: Path, lost: bool) -> None:
    """Nor its public half, whose name everybody knows."""
    aim = shared / "nowhere" if lost else victim
    (shared / "smp.pub").symlink_to(aim)
    pair = KeyPair.new()
    pair.save(shared, "smp")
    assert untouched(victim)
    assert load_public(shared / "smp.pub") == pair.public
    assert not (shared / "smp.pub").is_symlink()
    assert not (shared / "nowhere").exists()


OPENED: dict[str, Callable[[Path], Any]] = {
    "state": lambda file: StateFile(file, SCHEMA),
    "spared": lambda file: Spared(file, lambda: SCHEMA),
    "ledger": Billed,
    "quota": lambda file: Quota(60, file=file),
    "progress": Progress,
}


@pytest.mark.fault("S14")
@pytest.mark.parametrize("kind", OPENED)
@pytest.mark.parametrize("lost", [False, True])
def test_no_state_is_kept_behind_a_strangers_link(
    shared: Path, victim: Path, kind: str, lost: bool
) -> None:
    """Where others may write, a file that is a link is refused; where they may not, it is the
    administrator's own wish."""
    link, aim = shared / "calls.db", shared / "nowhere"
    link.symlink_to(aim if lost else victim)
    with pytest.raises((OSError, apsw.CantOpenError, StartError)):
        OPENED[kind](link)
    assert untouched(victim)
    assert not aim.exists()
    shared.chmod(0o755)
    link.unlink()
    link.symlink_to(aim)
    made = OPENED[kind](link)
    assert aim.exists()
    if kind != "quota":
        made.close()


@pytest.mark.fault("S14")
def test_calls_that_are_live_are_not_written_through_a_link(shared: Path, victim: Path) -> None:
    """The telephone exchange's numbers: the file is written anew under a name that is known."""
    (shared / "live.calls.new").symlink_to(victim)
    calls = LiveCalls(shared / "live.calls")
    assert calls.open() == []
    calls.close()
    assert untouched(victim)
    assert stat.S_IMODE((shared / "live.calls").stat().st_mode) == 0o600


@pytest.mark.fault("S14")
def test_what_the_router_writes_beside_the_journal(tmp_path: Path, victim: Path) -> None:
    """The space that it sets aside does not grow in another's file; a journal that an earlier
    version, or whoever restored it, left open to others is closed."""
    journal = tmp_path / "journal.db"
    journal.touch()
    assert journal.stat().st_mode & 0o077
    os.close(lock_folder(tmp_path, tmp_path / "smpbus.toml"))
    assert stat.S_IMODE(journal.stat().st_mode) == 0o600
    ballast = Ballast(tmp_path, 2 * 4096)
    (tmp_path / FILE).symlink_to(victim)
    ballast.take()
    assert untouched(victim)
    assert ballast.is_held


@pytest.mark.fault("S14")
def test_state_files_of_every_kind_are_closed(tmp_path: Path) -> None:
    """Whatever umask the process has: nothing rests on the shell it was started from."""
    for kind, opened in OPENED.items():
        made = opened(tmp_path / kind)
        if kind != "quota":
            made.close()
    modes = {one.name: oct(stat.S_IMODE(one.stat().st_mode)) for one in tmp_path.iterdir()}
    modes = {name: mode for name, mode in modes.items() if name not in ("shared", "victim")}
    assert set(modes.values()) == {"0o600"}, modes
