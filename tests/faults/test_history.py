"""History goes as fast as it comes, and time that jumps takes none of it."""

import asyncio
from pathlib import Path
from zlib import crc32

import apsw
import pytest

from proto.message import Message, encode_message
from router.core.clock import Now
from router.core.delivery import State
from router.core.output import Batch
from router.settings import StoreSettings
from router.shell.pruning import STEADY_MS, STEP, Pruning
from router.shell.writer import Writer
from router.store.sqlite import FILE, SqliteStore
from tests.crash.ledger import open_deliveries
from tests.integration.bus import RouterProcess
from tests.until import wait_for

AT = 1_800_000_000_000
DAY_MS = 86_400_000


def messages(
    first: int, count: int, at: int, *, ended: int | None = None, size: int = 900
) -> Batch:
    """Messages numbered from `first` with one delivery each, settled at a time or open."""
    batch = Batch()
    for n in range(first, first + count):
        message = Message(f"id-{n}", "test.card.v1", "producer", f"call-{n}", at, body=b"x" * 900)
        raw = encode_message(message)
        row = (n, "producer", message.id, message.subject, at, n, "sink", crc32(raw), raw)
        batch.messages.append(row)
        if ended is not None:
            batch.outcomes.append((n, n, "sink", State.SETTLED, 1, ended, ended, None))
    return batch


def end(n: int, state: State, at: int) -> Batch:
    return Batch(outcomes=[(n, n, "sink", state, 1, at, at, None)])


def prune(store: SqliteStore, before_ms: int, passed: bool = False) -> int:
    """Prune to the end; return the number of steps."""
    steps = 0
    while store.prune(before_ms, STEP, passed):
        steps += 1
    return steps


def left(store: SqliteStore) -> list[int]:
    return [n for (n,) in store._db.execute("select n from message order by n")]


@pytest.fixture
def store(tmp_path: Path) -> SqliteStore:
    store = SqliteStore(tmp_path)
    store.open()
    return store


@pytest.mark.fault("A7")
def test_the_journal_levels_off_when_history_is_pruned_as_it_comes(store: SqliteStore) -> None:
    """Seen: 200 messages a minute were pruned where 15,000 came. Right: all that is old goes, and
    what comes fills the pages that it leaves."""
    sizes, emptied = [], []
    for day in range(6):
        at = AT + day * DAY_MS
        store.write(messages(1 + day * 3_000, 3_000, at, ended=at + 10))
        while store.tidy():
            pass
        prune(store, at)
        emptied.append(store.empty_bytes())
        sizes.append(store.path.stat().st_size)
    assert left(store) == list(range(15_001, 18_001))
    assert sizes[5] <= 1.1 * sizes[2]
    assert min(emptied[1:]) > 1_000_000
    assert store.verify() == []


@pytest.mark.fault("A7")
def test_few_messages_are_pruned_too_and_numbers_go_on(tmp_path: Path) -> None:
    """Seen: below 1,024 messages nothing was pruned, for ever."""
    store = SqliteStore(tmp_path)
    store.open()
    store.write(messages(1, 40, AT, ended=AT + 1))
    prune(store, AT + DAY_MS)
    assert left(store) == [40]
    store.close()
    opened = SqliteStore(tmp_path).open()
    assert (opened.next_n, opened.next_delivery) == (41, 41)


@pytest.mark.fault("A7")
def test_what_was_open_or_dead_when_passed_is_looked_at_again(store: SqliteStore) -> None:
    """Seen: what the pruning had passed over stayed until the next start."""
    store.write(messages(1, 30, AT))
    store.write(messages(31, 2, AT + 30 * DAY_MS))
    store.write(end(1, State.SETTLED, AT + 1))
    store.write(end(2, State.DEAD, AT + 1))
    prune(store, AT + DAY_MS)
    assert left(store) == list(range(2, 33))
    store.write(end(3, State.SETTLED, AT + DAY_MS))
    store.write(Batch(dropped=[(2, "sink", "no use")]))
    prune(store, AT + 2 * DAY_MS)
    assert left(store) == list(range(2, 33))
    prune(store, AT + 2 * DAY_MS, passed=True)
    assert left(store) == list(range(4, 33))
    store.write(end(4, State.EXPIRED, AT + DAY_MS))
    prune(store, AT + 2 * DAY_MS, passed=True)
    assert left(store) == list(range(5, 33))
    assert store.verify() == []


@pytest.mark.fault("A7")
def test_what_ended_a_moment_ago_is_kept_for_the_history(store: SqliteStore) -> None:
    """A sibling: a timer of 15 days left the history in the minute in which it was settled."""
    store.write(messages(1, 2, AT, ended=AT + 15 * DAY_MS))
    prune(store, AT + 15 * DAY_MS)
    assert left(store) == [1, 2]


@pytest.mark.fault("A3")
def test_messages_of_a_clock_that_was_ahead_do_not_hold_up_the_pruning(store: SqliteStore) -> None:
    """A sibling: what was accepted while the clock stood five days ahead is passed over, not
    waited for."""
    store.write(messages(1, 10, AT, ended=AT + 1))
    store.write(messages(11, 5, AT + 5 * DAY_MS, ended=AT + 5 * DAY_MS))
    store.write(messages(16, 10, AT, ended=AT + 1))
    prune(store, AT + DAY_MS)
    assert left(store) == [*range(11, 16), 25]


@pytest.mark.fault("A3")
def test_a_clock_that_has_just_jumped_prunes_nothing(tmp_path: Path) -> None:
    """A sibling: a clock five days ahead for two seconds made all history old, and with it the
    memory of repeated ids. Right: only a clock that has gone steadily is believed. And repeats are
    known for as long as `dedup_hours` says, however short the history is."""

    async def scene() -> None:
        writer = Writer(SqliteStore(tmp_path))
        await writer.query(lambda s: s.open())
        await writer.query(lambda s: s.write(messages(1, 50, AT, ended=AT + 1)))
        pruning = Pruning(writer, lambda: StoreSettings(history_hours=1, dedup_hours=72))
        count = "select count(*) from message"

        async def beat(wall_ms: int, mono_ms: int) -> int:
            pruning.beat(Now(wall_ms, mono_ms))
            if pruning._task is not None:
                await pruning._task
            rows = await writer.query(lambda s: list(s._db.execute(count)))  # type: ignore[attr-defined]
            return int(rows[0][0])

        wall = AT + DAY_MS
        assert await beat(wall, 0) == 50
        assert await beat(wall + STEADY_MS, STEADY_MS) == 50  # believed, and nothing is old
        for second in range(5):
            at = STEADY_MS + (1 + second) * 1_000
            assert await beat(wall + 5 * DAY_MS + at, at) == 50
        at = 3 * STEADY_MS
        assert await beat(wall + at, at) == 50
        wall += 10 * DAY_MS
        assert await beat(wall + 2 * at, 2 * at) == 50
        assert await beat(wall + 3 * at, 3 * at) == 1
        await writer.close()

    asyncio.run(scene())


@pytest.mark.fault("A7")
def test_a_router_prunes_what_it_has_delivered() -> None:
    """The same on a real router, with a history of a second."""
    hours = 1.0 / 3_600
    store = f"free_bytes_min = 0\nhistory_hours = {hours}\ndedup_hours = {hours}"
    with RouterProcess(store=store) as router:
        with router.blocking("producer") as bus:
            for n in range(300):
                bus.publish(Message.new("test.card.v1", "producer", {}, subject=f"call-{n}"))
        with router.blocking("consumer") as bus:
            for delivery in bus.consume("sink", credit=100, timeout_s=0.3):
                bus.ack(delivery)
        early = [f"call-{n}" for n in (0, 150, 298)]
        wait_for(
            lambda: not any(router.ask("trace", subject=one)["messages"] for one in early),
            "the history to be pruned",
        )
        assert not router.ask("check")["wrong"]
        router.stop()
        journal = apsw.Connection(str(router.folder / "data" / FILE))
        (kept,) = next(iter(journal.execute("select count(*) from message")))
        journal.close()
        assert kept < 100  # what is left of the last second


@pytest.mark.fault("A10")
def test_a_replayed_letter_is_young_again_after_a_restart() -> None:
    """Seen: after a replay and a restart the first failure made the letter dead again, since its
    age was counted from its acceptance."""
    with RouterProcess() as router:
        with router.blocking("producer") as bus:
            bus.publish(Message.new("test.card.v1", "producer", {}, subject="call-1"))
        router.stop()
        journal = apsw.Connection(str(router.folder / "data" / FILE))
        journal.execute("update message set accepted_at = accepted_at - 90 * 86400000")
        journal.close()
        router.start()

        def books() -> tuple[int, int]:
            (row,) = router.ask("check")["destinations"]
            return row["open"], row["dead"]

        with router.blocking("consumer") as bus:
            bus.reject(next(iter(bus.consume("sink", timeout_s=5))), "HTTP 422")
        router.wait_until("check", lambda _: books() == (0, 1))
        assert router.ask("replay", destination="sink", reason="mended")["replayed"] == 1
        router.kill()
        router.start()
        with router.blocking("consumer") as bus:
            bus.retry(next(iter(bus.consume("sink", timeout_s=5))), "HTTP 503", 60.0)
        router.wait_until("queues", lambda a: a["queues"][0]["retrying"] == 1)
        assert books() == (1, 0)


@pytest.mark.fault("A3")
def test_the_newest_attempt_is_the_one_that_came_last_whatever_the_clock_said(
    tmp_path: Path,
) -> None:
    """Seen: set back by an hour, then replayed and restarted, the router took an old attempt for
    the newest, and counted all that were made before the replay."""
    store = SqliteStore(tmp_path)
    store.open()
    store.write(messages(1, 1, AT))
    hour = 3_600_000
    for attempt in range(1, 8):
        store.write(Batch(attempts=[(1, attempt, AT + attempt, "retry", "503", AT + 9_999, 0)]))
    store.write(end(1, State.DEAD, AT + 10))
    store.write(
        Batch(
            reopened=[(1, "sink")],
            filed=[("sink", 2, 1, 1, 0)],
            attempts=[(1, 0, AT - hour, "replayed", "mended", None, 0)],
            frontier=2,
        )
    )
    store.close()
    again = SqliteStore(tmp_path)
    again.open()
    (row,) = open_deliveries(again)
    assert (row.attempts, row.due, row.accepted_at) == (0, None, AT - hour)
    again.write(Batch(attempts=[(1, 1, AT - hour + 5, "retry", "503", AT - hour + 50, 0)]))
    (row,) = open_deliveries(again)
    assert (row.attempts, row.due, row.accepted_at) == (1, AT - hour + 50, AT - hour)
    (told,) = again.trace("call-1", 10)
    history = told["deliveries"][0]["history"]  # type: ignore[index]
    assert [one["outcome"] for one in history][-2:] == ["replayed", "retry"]
