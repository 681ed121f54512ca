"""Room on the disk: for emergencies when there is little, for a start when there is none."""

import asyncio
import os
import subprocess
from pathlib import Path
from random import Random
from zlib import crc32

import pytest

from proto import BlockingBusClient, Message, Refused
from proto.exits import EX_IOERR
from proto.frames import DeliveredMessage
from proto.message import encode_message
from router.core.output import Batch
from router.shell.ballast import FILE as BALLAST
from router.shell.room import RESERVE_FILE, UNBOUNDED, Room
from router.shell.writer import Writer
from router.store.contract import StoreError
from router.store.sqlite import FILE, SqliteStore
from tests.crash.scenarios import SMALL, add, send
from tests.crash.stage import Stage
from tests.crash.vfs import mounted
from tests.integration.bus import SMPBUS, RouterProcess

MIB = 1024 * 1024
WAIT_S = 20


def free(folder: Path) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def card(name: str, priority: int = 2, size: int = 100) -> Message:
    return Message.new(
        "test.card.v1", "producer", b"x" * size, subject=name, id=name, priority=priority
    )


# -- who may use what is left ---------------------------------------------------------------------


@pytest.mark.fault("D8")
def test_an_emergency_is_accepted_when_the_disk_has_little_room_for_others() -> None:
    """Seen: one peer's bulk filled the disk, and emergencies were refused with `store_full`.
    Right: what lies below `free_bytes_min` is theirs, down to a quarter of it."""
    with RouterProcess() as router:
        least = int(free(router.folder) * 1.3)
        router.stop()
        text = router.config.read_text().replace("free_bytes_min = 0", f"free_bytes_min = {least}")
        router.config.write_text(text)
        router.start()
        with router.blocking("producer") as bus:
            for priority in (1, 2, 3):
                with pytest.raises(Refused) as refused:
                    bus.publish(card(f"other-{priority}", priority))
                assert refused.value.code == "store_full"
            bus.publish(card("emergency", 0))
        router.stop()
        least *= 8  # now less than a quarter is left
        router.config.write_text(text.replace(str(least // 8), str(least)))
        router.start()
        with router.blocking("producer") as bus, pytest.raises(Refused):
            bus.publish(card("late", 0))
        with router.blocking("consumer") as bus:
            taken = [next(iter(bus.consume("sink", timeout_s=5)))]
            bus.ack(taken[0])
        assert [one.message.subject for one in taken] == ["emergency"]


@pytest.mark.fault("A7")
def test_empty_pages_of_the_journal_count_as_room(tmp_path: Path) -> None:
    """Seen: after pruning, gigabytes inside the file were free, and emergencies got `store_full`.
    Right: they count, as long as the log beside the journal can grow."""
    least = free(tmp_path) + 512 * MIB
    room = Room(tmp_path, least)
    assert room.judge(0) < 0
    room.inside_bytes = least
    assert room.judge(0) > least // 2
    room.inside_bytes = 0
    assert room.judge(0) < 0
    nearly_none = Room(tmp_path, 8 * free(tmp_path))
    nearly_none.inside_bytes = 2**50
    assert nearly_none.judge(0) < -nearly_none.urgent_bytes


@pytest.mark.fault("D2")
def test_what_is_on_its_way_to_the_disk_is_reckoned_with(tmp_path: Path) -> None:
    """Seen: the disk was looked at once a second, and filled in between. Right: what was accepted
    since counts, and what gathers or is being written."""
    least = free(tmp_path) // 4
    room = Room(tmp_path, least)
    some, none = room.judge(0), room.judge(3 * free(tmp_path))
    assert some > 0 > none
    assert Room(tmp_path, 0).judge(2**50) == UNBOUNDED


# -- a start --------------------------------------------------------------------------------------


def worked(bytes_max: int, batches: int) -> Stage:
    """Return a stage whose process has died with a log that is not in the journal yet."""
    stage = Stage(Random(bytes_max))
    stage.open()
    for _ in range(batches):
        batch = Batch()
        add(stage, batch, 4, bytes_max)
        send(stage, batch)
    stage.die()
    return stage


@pytest.mark.fault("D2")
def test_a_start_gets_by_without_a_free_byte_beside_what_is_kept_for_it() -> None:
    """Seen: the disk was full, the log had 990 MiB, each start copied it first, and failed. Right:
    where a copy does not fit the log is written over itself, and what the journal grows by when
    it takes the log in was set aside."""
    with mounted(**SMALL):
        stage = worked(6_000, 12)
        files = stage.disk.files()
        log = len(files[f"{FILE}-wal"])
        assert log > 200_000
        stage.disk.room = log - 1  # the copy does not fit
        stage.open()  # holds all that it accepted
        stage.look()
        assert stage.disk.failures
        stage.disk.detach()


@pytest.mark.fault("D2")
def test_a_start_that_cannot_take_the_log_in_leaves_all_as_it_is() -> None:
    """A sibling: nothing was set aside and the journal must grow: the start is refused, nothing is
    lost, and with room it goes on."""
    with mounted(**SMALL):
        stage = worked(6_000, 12)
        stage.disk.room = 0
        with pytest.raises(StoreError, match="full"):
            stage.factory(stage.disk.path).open()
        stage.die()
        stage.disk.room = None
        stage.open()
        stage.look()
        stage.disk.detach()


@pytest.mark.fault("D2")
def test_what_is_kept_for_a_start_is_given_back_by_nothing_else(tmp_path: Path) -> None:
    """A disk that fills while the router runs takes the ballast, and leaves what a start needs."""
    roomy = Room(tmp_path, MIB)
    roomy.judge(0)
    kept = {name: (tmp_path / name).stat().st_size for name in (BALLAST, RESERVE_FILE)}
    assert kept == {BALLAST: MIB // 2, RESERVE_FILE: MIB // 2}
    full = Room(tmp_path, 8 * free(tmp_path))
    full.judge(0)
    assert {file.name for file in tmp_path.iterdir()} == {RESERVE_FILE}
    full.make_way()
    assert list(tmp_path.iterdir()) == []


@pytest.mark.fault("D2")
def test_the_log_stays_short_whatever_a_publisher_sends() -> None:
    """Seen: frames of 15 messages of a megabyte gathered by count alone, and the log of the journal
    grew to 990 MiB. Right: what gathers is bounded in bytes, and so is the log."""
    with RouterProcess(bus="gather_bytes_max = 2097152") as router:
        log = router.folder / "data" / f"{FILE}-wal"
        longest = 0
        with router.blocking("producer") as bus:
            for frame in range(6):
                bus.publish_many([card(f"{frame}-{n}", 3, 1_000_000) for n in range(12)])
                longest = max(longest, log.stat().st_size)
        assert longest < 40 * MIB


# -- a journal that loses its place ---------------------------------------------------------------


def ended(router: RouterProcess) -> int:
    assert router.process is not None
    return router.process.wait(WAIT_S)


@pytest.mark.fault("D12")
def test_a_journal_that_is_removed_while_running_is_noticed_and_saved() -> None:
    """Seen: the router went on accepting into a file without a name; all was lost at its end.
    Right: one sentence, exit status 74, and what it held is in its place again."""
    with RouterProcess() as router:
        with router.blocking("producer") as bus:
            for n in range(50):
                bus.publish(card(f"call-{n}"))
        bus_name = router.ask("status")["bus"]
        (router.folder / "data" / FILE).unlink()
        assert ended(router) == EX_IOERR
        log = router.log.read_text()
        assert log.count("файл журнала удалён или подменён на ходу") == 1
        router.start()
        assert router.ask("status")["bus"] == bus_name
        with router.blocking("consumer") as bus:
            taken = [one.message.id for one in take(bus, 50)]
        assert taken == [f"call-{n}" for n in range(50)]
        assert not router.ask("check")["wrong"]


def take(bus: BlockingBusClient, count: int) -> list[DeliveredMessage]:
    found = []
    for delivery in bus.consume("sink", credit=100, timeout_s=5):
        bus.ack(delivery)
        found.append(delivery)
        if len(found) == count:
            break
    return found


@pytest.mark.fault("D12")
def test_a_journal_that_is_replaced_while_running_is_kept_beside_the_other() -> None:
    """A sibling: another file is put into its place. Neither is deleted."""
    with RouterProcess() as router:
        with router.blocking("producer") as bus:
            bus.publish(card("call-1"))
        data = router.folder / "data"
        (data / "other").write_bytes(b"somebody's")
        (data / "other").rename(data / FILE)
        assert ended(router) == EX_IOERR
        assert (data / FILE).read_bytes() == b"somebody's"
        saved = data / "journal.rescued"
        saved.rename(data / FILE)
        (data / f"{FILE}-wal").unlink(missing_ok=True)
        router.start()
        with router.blocking("consumer") as bus:
            assert len(take(bus, 1)) == 1


@pytest.mark.fault("D12")
def test_a_trace_of_a_message_with_a_far_time_is_printed() -> None:
    """Seen: a traceback, since no calendar has the time that a message may carry."""
    with RouterProcess() as router:
        router.stop()
        store = SqliteStore(router.folder / "data")  # nobody may publish such a time any more
        store.open()
        batch = Batch()
        for n, at in enumerate((0, 253_402_300_800_000, 2**63 - 1), 1):
            raw = encode_message(Message(f"id-{n}", "test.card.v1", "producer", "call-1", at))
            row = (n, "producer", f"id-{n}", "call-1", 1, n, "sink", crc32(raw), raw)
            batch.messages.append(row)
        store.write(batch)
        store.close()
        router.start()
        done = subprocess.run(
            [SMPBUS, "trace", "call-1", "--config", str(router.config)],
            capture_output=True, text=True, timeout=30, check=False,
        )  # fmt: skip
        assert (done.returncode, "Traceback" in done.stderr) == (0, False), done.stderr
        assert done.stdout.count("  id id-") == 3


@pytest.mark.fault("D12")
def test_what_comes_after_the_store_was_closed_does_not_spoil_the_exit_status(
    tmp_path: Path,
) -> None:
    """A sibling: a timer that fired between the closing of the journal and the end of the process
    wrote into the closed journal, and an orderly stop ended as a failed disk. Right: it writes
    nothing, and nothing of it leaves."""

    async def scene() -> None:
        written: list[Batch] = []
        writer = Writer(SqliteStore(tmp_path))
        await writer.query(lambda store: store.open())
        closing = asyncio.ensure_future(writer.close())
        await asyncio.sleep(0)
        writer.write(Batch(holds={"sink": "late"}), lambda batch, *_: written.append(batch))
        with pytest.raises(asyncio.CancelledError):
            await writer.query(lambda store: store.size_bytes())
        await closing
        assert (written, writer.depth) == ([], 0)

    asyncio.run(scene())
    assert SqliteStore(tmp_path).open().holds == {}
