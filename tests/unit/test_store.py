"""The SQLite journal against its contract, on real files."""

import shutil
from pathlib import Path
from zlib import crc32

import apsw
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proto.message import Message, encode_message
from router.core.delivery import State
from router.core.output import Batch
from router.store.contract import StoreError
from router.store.history import SEGMENT
from router.store.sqlite import FILE, SqliteStore
from tests.crash.ledger import open_deliveries

AT = 1_800_000_000_000


def batch_of(
    first: int,
    ids: list[str],
    subject: str = "call-1",
    at: int = AT,
    number: str | None = None,
) -> Batch:
    """A batch of messages numbered from `first`, each with one delivery of the same number."""
    batch = Batch()
    for n, id in enumerate(ids, first):
        message = Message(
            id, "test.message.v1", "producer", subject, at, correlation_id=number, body=b"x"
        )
        raw = encode_message(message)
        batch.messages.append((n, "producer", id, subject, at, n, "sink", crc32(raw), raw))
    return batch


def outcome(delivery: int, state: State = State.SETTLED) -> Batch:
    """A batch that ends one delivery."""
    return Batch(outcomes=[(delivery, delivery, "sink", state, 1, AT + 1, AT + 2, "HTTP 200")])


@pytest.fixture
def store(tmp_path: Path) -> SqliteStore:
    store = SqliteStore(tmp_path)
    store.open()
    return store


def test_a_new_journal_names_itself_and_counts_its_starts(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    first = store.open()
    store.close()
    second = SqliteStore(tmp_path).open()
    assert (first.epoch, second.epoch) == (1, 2)
    assert first.bus == second.bus
    assert (second.next_n, second.next_delivery) == (1, 1)


def test_repeated_ids_are_found_within_a_batch_and_across_batches(store: SqliteStore) -> None:
    assert store.write(batch_of(1, ["a", "b", "a"])) == {3: 1}
    assert store.write(batch_of(4, ["c", "b"])) == {5: 2}
    assert [row.delivery for row in open_deliveries(store)] == [1, 2, 4]


@settings(max_examples=25, deadline=None)
@given(ids=st.lists(st.integers(0, 40).map(str), min_size=1, max_size=300))
def test_duplicates_agree_with_a_dictionary(
    tmp_path_factory: pytest.TempPathFactory, ids: list[str]
) -> None:
    store = SqliteStore(tmp_path_factory.mktemp("journal"))
    store.open()
    known: dict[str, int] = {}
    expected = {n: known[id] for n, id in enumerate(ids, 1) if known.setdefault(id, n) != n}
    assert store.write(batch_of(1, ids)) == expected
    assert [row.n for row in open_deliveries(store)] == sorted(known.values())
    store.close()


def test_what_is_open_survives_a_kill_and_what_has_ended_does_not_return(
    store: SqliteStore, tmp_path: Path
) -> None:
    store.write(batch_of(1, ["a", "b", "c"]))
    store.write(outcome(2))
    store.write(Batch(attempts=[(3, 1, AT, "retry", "HTTP 503", AT + 500, 0)]))
    image = tmp_path / "image"
    image.mkdir()
    for file in tmp_path.glob(f"{FILE}*"):  # what a killed process leaves: log and all
        shutil.copy(file, image)
    found = SqliteStore(image)
    opened = found.open()
    rows = open_deliveries(found)
    assert [(row.delivery, row.attempts, row.due) for row in rows] == [
        (1, 0, None),
        (3, 1, AT + 500),
    ]
    assert opened.totals == {"sink": {"accepted": 3, "settled": 1}}
    assert (opened.next_n, opened.next_delivery) == (4, 4)


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_trace_finds_a_subject_whether_indexed_yet_or_not(store: SqliteStore, steps: int) -> None:
    store.write(batch_of(1, [str(n) for n in range(SEGMENT - 1)], "call-2"))
    store.write(batch_of(SEGMENT, ["a"], "call-1"))
    store.write(batch_of(SEGMENT + 1, [str(n) for n in range(SEGMENT, 2 * SEGMENT)], "call-3"))
    for left in reversed(range(2 - steps, 2)):
        assert store.tidy() == left
    store.write(batch_of(2 * SEGMENT + 1, ["c"], "call-1"))
    store.write(outcome(SEGMENT))
    messages = store.trace("call-1", 10)
    assert [message["id"] for message in messages] == ["a", "c"]
    deliveries = messages[0]["deliveries"]
    assert isinstance(deliveries, list)
    assert (deliveries[0]["state"], deliveries[0]["note"]) == (State.SETTLED, "HTTP 200")
    assert store.trace("call-9", 10) == []


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_another_systems_number_finds_the_subject_indexed_yet_or_not(
    store: SqliteStore, steps: int
) -> None:
    store.write(batch_of(1, ["a"], "call-1", number="KT-7 R-115"))
    store.write(batch_of(2, [str(n) for n in range(2, SEGMENT + 9)], "call-2"))
    store.write(batch_of(SEGMENT + 9, ["b"], "call-3", number="R-116"))
    rest = [str(n) for n in range(SEGMENT + 10, 2 * SEGMENT + 2)]
    store.write(batch_of(SEGMENT + 10, rest, "call-2"))
    for _ in range(steps):
        store.tidy()
    found = [store.subjects_of(one, 5) for one in ("R-115", "KT-7", "R-116", "R-9", "KT-7 R-115")]
    assert found == [["call-1"], ["call-1"], ["call-3"], [], []]
    assert [message["id"] for message in store.trace("call-1", 10)] == ["a"]
    assert store.trace("R-115", 10) == []
    store.write(outcome(1))
    store.prune(AT + 3, 1)
    assert store.subjects_of("R-115", 5) == []


@pytest.mark.parametrize("steps", [0, 1, 2])
def test_a_number_of_several_subjects_finds_the_one_spoken_of_last_first(
    store: SqliteStore, steps: int
) -> None:
    store.write(batch_of(1, ["a"], "call-1", number="patient-5"))
    store.write(batch_of(2, ["b"], "call-2", number="R-2 patient-5"))
    store.write(batch_of(3, [str(n) for n in range(3, SEGMENT + 1)], "call-9"))
    store.write(batch_of(SEGMENT + 1, ["c"], "call-1", number="patient-5"))
    rest = [str(n) for n in range(SEGMENT + 2, 2 * SEGMENT + 2)]
    store.write(batch_of(SEGMENT + 2, rest, "call-9"))
    for _ in range(steps):
        store.tidy()
    assert store.subjects_of("patient-5", 5) == ["call-1", "call-2"]
    assert store.subjects_of("patient-5", 1) == ["call-1"]


def test_only_so_many_numbers_of_a_message_are_looked_for(store: SqliteStore) -> None:
    many = " ".join(f"R-{n}" for n in range(40))
    store.write(batch_of(1, ["a"], "call-1", number=f"{'9' * 257} {many}"))
    found = [n for n in range(40) if store.subjects_of(f"R-{n}", 1)]
    assert found == list(range(15))
    assert store.subjects_of("9" * 257, 1) == []


def test_only_whole_segments_are_indexed(store: SqliteStore) -> None:
    store.write(batch_of(1, [str(n) for n in range(SEGMENT + 7)]))
    assert store.tidy() == 0
    assert store.tidy() == 0
    assert len(store.trace("call-1", 2 * SEGMENT)) == SEGMENT + 7


def test_the_backlog_holds_what_lies_behind_the_frontier(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    store.open()
    store.write(batch_of(1, [str(n) for n in range(30)]))
    for delivery in range(3, 11):
        store.write(outcome(delivery))
    store.write(Batch(attempts=[(1, 4, AT, "retry", "HTTP 503", AT + 9, 0)]))
    store.write(Batch(filed=[("sink", 2, 1, 1, 0), ("sink", 0, 2, 2, 0)], frontier=11))
    ended = outcome(2)
    ended.unfiled.append(("sink", 0, 2, 2, 0))
    store.write(ended)
    store.close()
    again = SqliteStore(tmp_path)
    again.open()
    rows = sorted(open_deliveries(again), key=lambda row: row.delivery)
    assert [row.delivery for row in rows] == [1, *range(11, 31)]
    assert (rows[0].attempts, rows[0].due, rows[0].filed) == (4, AT + 9, 2)
    assert rows[1].filed is None
    assert len(again.trace("call-1", 100)) == 30


def test_pruning_forgets_what_ended_long_ago_but_no_dead_letter(store: SqliteStore) -> None:
    store.write(batch_of(1, ["settled", "dead", "open"]))
    store.write(outcome(1))
    store.write(outcome(2, State.DEAD))
    store.write(batch_of(4, [f"young {n}" for n in range(SEGMENT)], "call-2", at=AT + 10_000))
    store.tidy()
    assert store.prune(AT + 5_000, 100) == 3
    assert [message["id"] for message in store.trace("call-1", 10)] == ["dead", "open"]


def test_numbers_are_not_given_twice_after_everything_was_pruned(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    store.open()
    store.write(batch_of(1, [str(n) for n in range(SEGMENT)]))
    for delivery in range(1, SEGMENT + 1):
        store.write(outcome(delivery))
    store.tidy()
    store.prune(AT + 3, 2 * SEGMENT)
    store.close()
    again = SqliteStore(tmp_path)
    opened = again.open()
    assert (opened.next_n, opened.next_delivery) == (SEGMENT + 1, SEGMENT + 1)
    assert len(again.trace("call-1", 10)) == 1


def test_a_damaged_message_is_named_and_nothing_is_deleted(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    store.open()
    store.write(batch_of(1, ["a", "b"]))
    store.close()
    other = apsw.Connection(str(tmp_path / FILE))
    other.execute("update message set raw = x'00' where n = 2")
    other.close()
    damaged = SqliteStore(tmp_path)
    damaged.open()
    with pytest.raises(StoreError, match="message 2 is damaged"):
        list(damaged.recent())
    damaged.close()
    assert SqliteStore(tmp_path).open().epoch == 3


def test_a_journal_of_another_version_is_left_alone(tmp_path: Path) -> None:
    store = SqliteStore(tmp_path)
    store.open()
    store.close()
    other = apsw.Connection(str(tmp_path / FILE))
    other.execute("pragma user_version=99")
    other.close()
    with pytest.raises(StoreError, match="version 99"):
        SqliteStore(tmp_path).open()


def test_every_commit_is_synced(store: SqliteStore) -> None:
    assert store._db.pragma("synchronous") == 2
    assert store._db.pragma("journal_mode") == "wal"
    assert store._db.pragma("locking_mode") == "exclusive"


def test_a_log_without_its_journal_is_refused_and_kept(tmp_path: Path) -> None:
    log = tmp_path / f"{FILE}-wal"
    log.write_bytes(b"what is left")
    with pytest.raises(StoreError, match="is missing, but its log"):
        SqliteStore(tmp_path).open()
    assert [file.name for file in tmp_path.iterdir()] == [log.name]


def test_a_delivery_in_the_backlog_before_the_frontier_has_come_is_open_once(
    tmp_path: Path,
) -> None:
    store = SqliteStore(tmp_path)
    store.open()
    store.write(batch_of(1, ["a", "b"]))
    store.write(Batch(filed=[("sink", 2, 2, 2, 0)], frontier=1))
    assert [(row.delivery, row.filed) for row in open_deliveries(store)] == [(1, None), (2, 2)]
    store.close()
