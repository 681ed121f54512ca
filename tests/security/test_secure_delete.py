"""What was deleted is not in the file any more: state files of connectors, and the journal."""

from collections.abc import Callable
from pathlib import Path
from zlib import crc32

import apsw
import msgspec
import pytest

from connectors.partners.external.memory import KEPT_S, Call, Memory, ref_of
from connectors.runtime.statefile import Spared, StateFile
from proto.message import Message, encode_message
from router.core.delivery import State
from router.core.output import Batch, OutcomeRow
from router.store.sqlite import SqliteStore

AT = 1_800_000_000_000
SCHEMA = "create table if not exists document (number integer primary key, body text)"
WORDS = "ТЕСТОВ ИВАН 1943-08-19 "
SIZES = (1, 20, 400)  # within a page, in several, and in many of its own


def marks(file: Path) -> int:
    """Return how often the words are in the file and in what SQLite has beside it."""
    found = (file, Path(f"{file}-wal"))
    return sum(one.read_bytes().count(WORDS.encode()) for one in found if one.exists())


def state_file(file: Path, statements: list[str]) -> None:
    state = StateFile(file, SCHEMA)
    for one in statements:
        state.execute(one)
    state.close()


def spared(file: Path, statements: list[str]) -> None:
    state = Spared(file, lambda: SCHEMA)
    for one in statements:
        state.write((one, ()))
    state.close()


@pytest.mark.fault("S9")
@pytest.mark.parametrize("within", [state_file, spared])
def test_what_is_deleted_is_overwritten(
    tmp_path: Path, within: Callable[[Path, list[str]], None]
) -> None:
    """A document that was blanked after its time was in the archive's file 637 times: SQLite only
    forgets where it was. It is overwritten, deleted or replaced, short or long."""
    file = tmp_path / "archive.db"
    insert = [
        f"insert into document values ({number}, '{WORDS * size}')"
        for number, size in enumerate(SIZES * 2)
    ]
    within(file, insert)
    assert marks(file) >= 2 * sum(SIZES)
    half = len(SIZES)
    within(
        file,
        [
            f"delete from document where number < {half}",
            f"update document set body = '' where number >= {half}",
        ],
    )
    assert marks(file) == 0
    db = apsw.Connection(str(file))
    assert db.execute("select count(*) from document").fetchall() == [(half,)]
    db.close()


@pytest.mark.fault("S9")
def test_a_call_that_is_forgotten_is_gone(tmp_path: Path) -> None:
    """So is what a connector forgets by itself: here the number that an outside service gave to a
    call, ninety days later."""
    file = tmp_path / "calls.db"
    memory = Memory(file)
    for number, at in enumerate((0.0, 1.0, KEPT_S + 10.0)):
        told = WORDS * 5 if number < 2 else "another"
        id = f"{number:032x}"
        memory.begin(Call(ref_of("med", id), "med", id, b"d", told, at, True, None))
    memory.close()
    assert marks(file) == 0


@pytest.mark.fault("S9")
def test_a_message_that_is_pruned_is_gone(tmp_path: Path) -> None:
    """A message of 400 days ago, settled and pruned, was in the journal 36 times; the last message
    and what is still open stay whole."""
    store = SqliteStore(tmp_path)
    store.open()
    batch = Batch()
    for n, size in enumerate((*SIZES, 1), 1):
        body = ("-" if n > len(SIZES) else WORDS * size).encode()
        message = Message(f"id-{n}", "test.message.v1", "smp", WORDS.strip(), AT, body=body)
        subject = "open" if n > len(SIZES) else message.subject
        raw = encode_message(msgspec.structs.replace(message, subject=subject))
        batch.messages.append((n, "smp", message.id, subject, AT, n, "sink", crc32(raw), raw))
    store.write(batch)
    ended: list[OutcomeRow] = [
        (n, n, "sink", State.SETTLED, 1, AT, AT, WORDS) for n in range(1, len(SIZES) + 1)
    ]
    store.write(Batch(outcomes=ended))
    while store.tidy():
        pass
    assert marks(store.path) >= sum(SIZES)
    while store.prune(AT + 1, 100):
        pass
    store.close()
    assert marks(store.path) == 0
    again = SqliteStore(tmp_path)
    again.open()
    assert again.verify() == []
    again.close()
