"""A disk without room, and one that fails, under a real router."""

import os
import resource
from pathlib import Path

import pytest

from proto import Message, Refused
from proto.errors import NotConnected
from proto.exits import EX_IOERR
from router.shell.ballast import FILE as BALLAST
from tests.integration.bus import RouterProcess
from tests.until import wait_for

MIB = 1024 * 1024
MARGIN = 512 * MIB  # what others may take or free on this disk meanwhile
TAKEN = 2 * MARGIN


def _message(name: str, size: int = 10) -> Message:
    return Message.new("test.message.v1", "producer", {"filling": "x" * size}, subject=name)


def _free(folder: Path) -> int:
    status = os.statvfs(folder)
    return status.f_bavail * status.f_frsize


def _fill(file: Path, size: int) -> None:
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT)
    try:
        os.posix_fallocate(descriptor, 0, size)
    finally:
        os.close(descriptor)


def test_without_room_publishers_are_refused_and_consumers_served_until_there_is_some(
    tmp_path: Path,
) -> None:
    # It lets publishers in again at five quarters of this: between there and now lies TAKEN.
    least = int((_free(tmp_path) - MARGIN) / 1.25)
    filler = tmp_path / "filler"
    with RouterProcess(store=f"free_bytes_min = {least}") as router:
        with router.blocking("producer") as bus:
            bus.publish(_message("before"))
            _fill(filler, _free(tmp_path) - least + TAKEN // 2)
            router.wait_until("status", lambda a: not a["store"]["writable"])
            with pytest.raises(Refused) as refused:
                bus.publish(_message("refused"))
            assert refused.value.code == "store_full"
        with router.blocking("consumer") as bus:
            taken = []
            for delivery in bus.consume("sink", timeout_s=1):
                taken.append(delivery.message.subject)
                bus.ack(delivery)
        assert taken == ["before"]
        assert router.ask("queues")["queues"][0]["settled"] == 1
        filler.unlink()
        router.wait_until("status", lambda a: a["store"]["writable"])
        with router.blocking("producer") as bus:
            bus.publish(_message("after"))
        log = router.log.read_text()
        assert "новые сообщения отклоняю" in log
        assert "принимаю сообщения" in log


def test_a_write_that_fails_stops_the_router_and_takes_nothing() -> None:
    accepted = []
    with RouterProcess(store="free_bytes_min = 0") as router:
        journal = router.folder / "data" / "journal.db-wal"
        limit = journal.stat().st_size + MIB
        resource.prlimit(router.pid, resource.RLIMIT_FSIZE, (limit, limit))
        with router.blocking("producer") as bus:
            bus.timeout_s = 2
            for number in range(1_000):
                message = _message(f"call-{number}", 20_000)
                try:
                    bus.publish(message)
                except NotConnected:
                    break
                accepted.append(message.subject)
            assert router.process is not None
            assert router.process.wait(10) == EX_IOERR
            assert 0 < len(accepted) < 1_000
            assert "запись в журнал не удалась" in router.log.read_text()
        router.start()
        with router.blocking("consumer") as bus:
            taken = []
            for delivery in bus.consume("sink", credit=100, timeout_s=2):
                taken.append(delivery.message.subject)
                bus.ack(delivery)
        assert set(taken) >= set(accepted)
        assert router.ask("check")["wrong"] == []


def test_space_is_set_aside_and_given_back() -> None:
    with RouterProcess(store=f"free_bytes_min = {MIB}") as router:
        ballast = router.folder / "data" / BALLAST
        wait_for(ballast.exists, "the ballast")
        assert ballast.stat().st_size == MIB // 2
