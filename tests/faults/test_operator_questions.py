"""What an operator asks is bounded, whatever the journal holds, and says what it leaves out."""

import time
from pathlib import Path
from typing import Any
from zlib import crc32

import pytest

from proto.message import Message, encode_message
from router.core.delivery import State
from router.core.output import Batch
from router.store.contract import Which
from router.store.head import HEAD_BYTES, head_of
from router.store.sqlite import SqliteStore
from tests.integration.bus import RouterProcess

AT = 1_800_000_000_000
LETTERS = 160
LETTER_BYTES = 1_000_000
GROWTH_MIB_MAX = 96  # of memory; the letters have 160 MiB together


def batch_of(
    first: int, subjects: list[str], *, type: str = "test.card.v1", size: int = 10,
    number: str | None = None, state: State | None = State.DEAD,
) -> Batch:  # fmt: skip
    """Messages numbered from `first`, each with one delivery of its number that has ended so."""
    batch = Batch()
    for n, subject in enumerate(subjects, first):
        message = Message(
            f"id-{n}", type, "producer", subject, AT, correlation_id=number, body=b"x" * size
        )
        raw = encode_message(message)
        row = (n, "producer", message.id, subject, AT + n, n, "sink", crc32(raw), raw)
        batch.messages.append(row)
        if state is not None:
            batch.outcomes.append((n, n, "sink", state, 3, AT + n, AT + n, "HTTP 422"))
    return batch


def memory_mib(pid: int, field: str = "VmRSS") -> int:
    """Return a figure of a process's memory."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(field):
            return int(line.split()[1]) // 1024
    raise AssertionError(field)


def filled(router: RouterProcess, batches: list[Batch]) -> None:
    """Put a journal with this history into the place of the router's own."""
    folder = router.folder / "data"
    folder.mkdir(exist_ok=True)
    store = SqliteStore(folder)
    store.open()
    for batch in batches:
        store.write(batch)
    while store.tidy():
        pass
    store.close()


@pytest.mark.fault("A8")
def test_looking_at_large_dead_letters_takes_little_memory() -> None:
    """Seen: `dead list` read the whole bodies: 2,600 letters of 1 MB took 2342 MiB against a limit
    of 2 GB, and publishers waited for seconds. Right: heads only; a trace, and dropping, too."""
    subjects = [f"call-{n % 2}" for n in range(LETTERS)]
    step = 16
    router = RouterProcess()
    filled(router, [
        batch_of(1 + at, subjects[at : at + step], size=LETTER_BYTES, number=f"R-{at}")
        for at in range(0, LETTERS, step)
    ])  # fmt: skip
    with router:
        before = memory_mib(router.pid)
        letters = router.ask("dead")["letters"]
        assert [letter["size"] for letter in letters] == [LETTER_BYTES] * LETTERS
        assert len(router.ask("trace", subject="call-1")["messages"]) == LETTERS // 2
        assert router.ask("trace", subject="R-0")["others"] == ["call-0"]
        dropped = router.ask("drop", destination="sink", limit=100, reason="no use")
        assert dropped == {"dropped": 100, "passed_over": 0, "more": LETTERS - 100}
        assert memory_mib(router.pid, "VmHWM") - before < GROWTH_MIB_MAX


@pytest.mark.fault("A8")
def test_a_replay_of_large_letters_takes_no_more_than_the_queue_may_hold() -> None:
    """A sibling: a replay read all the bodies it was asked for. Right: as many as four times the
    queue's memory takes; the rest is said, and comes when the first have gone."""
    routes = '[destinations.sink]\nmemory_mib = 4\n[[routes]]\ntype = "test.*"\nto = ["sink"]\n'
    router = RouterProcess(routes=routes)
    filled(router, [
        batch_of(at, [f"call-{n}" for n in range(at, at + 10)], size=LETTER_BYTES)
        for at in range(1, 61, 10)
    ])  # fmt: skip
    with router:
        first = router.ask("replay", destination="sink", reason="mended")
        assert 16 <= first["replayed"] <= 24
        assert first["replayed"] + first["more"] == 60
        taken: list[Any] = []
        with router.blocking("consumer") as bus:
            while len(taken) < 60:
                for delivery in bus.consume("sink", timeout_s=0.3):
                    taken.append(delivery.delivery)
                    bus.ack(delivery)
                router.ask("replay", destination="sink", reason="mended")
        assert taken == list(range(1, 61))
        assert not router.ask("check")["wrong"]


@pytest.mark.fault("A11")
def test_a_letter_behind_many_of_another_type_is_found_and_a_cut_list_says_so() -> None:
    """Seen: `dead list --type X` said that there were no dead letters behind 10,000 of another
    type, and lists ended at 1,000 without a word."""
    count = 12_000
    many = [f"call-{n}" for n in range(count)]
    router = RouterProcess()
    filled(router, [
        batch_of(1, ["wanted"], type="test.rare.v1"),
        *(batch_of(2 + at, many[at : at + 2_000]) for at in range(0, count, 2_000)),
    ])  # fmt: skip
    with router:
        rare = router.ask("dead", type="test.rare.v1")
        assert [letter["subject"] for letter in rare["letters"]] == ["wanted"]
        assert "more" not in rare
        common = router.ask("dead", type="test.card.v1", limit=10)
        assert common["more"] == count - 10
        assert [letter["subject"] for letter in common["letters"]] == many[-10:]


@pytest.mark.fault("A11")
def test_a_trace_shows_the_newest_and_says_how_many_earlier_ones_there_are() -> None:
    """Seen: `trace` showed the oldest 1,000 messages of a subject and hid the newest."""
    count = 2_500
    router = RouterProcess()
    filled(router, [batch_of(1, ["call-1"] * count, number="R-7", state=State.SETTLED)])
    with router:
        found = router.ask("trace", subject="call-1")
        assert [hop["n"] for hop in found["messages"]] == list(range(count - 999, count + 1))
        assert found["earlier"] == count - 1_000
        assert router.ask("trace", subject="R-7")["subject"] == "call-1"


@pytest.mark.fault("A8")
def test_a_search_goes_by_steps_between_which_the_store_writes(tmp_path: Path) -> None:
    """However long a search takes, what is accepted meanwhile waits for one step of it only."""
    store = SqliteStore(tmp_path)
    store.open()
    store.write(batch_of(1, [f"call-{n}" for n in range(12_000)]))
    steps = store.dead_steps(Which(type="test.other.v1"), newest=True)
    longest, count = 0.0, 0
    for number in range(12_001, 100_000):
        began = time.perf_counter()
        step = next(steps, None)
        longest = max(longest, time.perf_counter() - began)
        if step is None:
            break
        count += 1
        store.write(batch_of(number, ["new"]))
    assert count >= 3
    assert longest < 1.0
    assert store.verify() == []


@pytest.mark.fault("A8")
@pytest.mark.parametrize("size", [0, 200, 255, 256, HEAD_BYTES, 70_000])
@pytest.mark.parametrize("long", [False, True], ids=["short fields", "a long field"])
def test_the_head_of_a_message_says_what_the_whole_does(size: int, long: bool) -> None:
    """The envelope and the size of the body are told from the first bytes; of an envelope that is
    longer than those, what comes first."""
    number = "R-1 " * 2_000 if long else "R-1"
    message = Message(
        "id", "test.card.v1", "smp", "вызов", AT, 0, AT, AT + 1, "smp", number, body=b"x" * size
    )
    raw = encode_message(message)
    for head in (raw[:HEAD_BYTES], b"\xdc\x00\x0d" + raw[1:HEAD_BYTES]):
        told, body_bytes = head_of(head, len(raw) + len(head) - len(raw[:HEAD_BYTES]))
        assert (told.id, told.subject, told.priority, told.body) == ("id", "вызов", 0, b"")
        if not long:
            assert (told.correlation_id, body_bytes) == (number, size)
