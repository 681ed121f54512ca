"""A connector's own file is full, locked or gone: what the bus can do without it, it does."""

import asyncio
import logging
import os
import resource
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest

from connectors.billing.store import Store
from connectors.partners.ats.calls import Call
from connectors.partners.ats.memory import LiveCalls
from connectors.partners.external.memory import Memory as Calls
from connectors.partners.external.memory import now_s
from connectors.partners.rmis.memory import Memory as Numbers
from connectors.partners.rmis.riams.numbers import Numbers as RiamsNumbers
from connectors.partners.rmr import RmrConnector
from connectors.partners.sys112.memory import Memory
from connectors.runtime import statefile
from connectors.runtime.bus.reporter import report_of
from connectors.runtime.door.token import digest_of, new_token
from connectors.runtime.statefile import Spared, StateAway
from connectors.services.document.archive import Archive
from proto import catalogue
from proto.client import Retry
from proto.exits import StartError
from proto.message import Message
from tests.contract.stage import Bus, Scene
from tests.faults.doorstep import CARD, CARD_PATH, play
from tests.integration.house import House
from tests.until import wait_for

pytestmark = pytest.mark.fault("A13")
LATER = {"Changed": "2030-01-01T00:00:00+03:00"}
HAND_IN = {
    "received_at": "2026-11-20T12:00:00+03:00",
    "reason": {"code": "11", "system": "own"},
    "address": {"text": "Лесная, 3"},
}


@contextmanager
def locked(file: Path, connect: Any = apsw.Connection) -> Iterator[None]:
    """Hold the lock of those who write, as a backup or a person with a shell does. Of one process
    two libraries do not see each other's locks: `connect` is to be of the same one."""
    other = connect(str(file))
    other.execute("begin immediate")
    yield
    other.execute("rollback")
    other.close()


def card(**changes: str) -> Any:
    body = msgspec.json.decode(msgspec.json.encode(CARD.body))
    body["Card"] |= changes
    return body


def away(stage: Scene) -> Any:
    return report_of(stage.connector, {}, 0.0).figures.get("state_files_away")


def test_cards_are_taken_while_the_state_file_is_locked(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A bare 500 for each card although the journal had room. The door's promise rests on the
    journal alone: one line and a state tell of the file, what was noted meanwhile holds, and is
    written down when the file is well again."""
    file = tmp_path / "cards.db"

    async def act(stage: Scene, _: Bus) -> None:
        with locked(file):
            for number in range(20):
                changed = f"2029-01-01T00:00:{number:02}+03:00"
                answer = await stage.send("PUT", CARD_PATH, card(Changed=changed))
                assert answer.status == 200
            ended = {"SysCode": "112", "Id112": CARD.id112,
                     "CloseOperator": {"OperatorLogin": "a"}}  # fmt: skip
            assert (await stage.send("POST", f"{CARD_PATH}/close", ended)).status == 200
            assert (await stage.send("PUT", CARD_PATH, card(**LATER))).status == 403
            assert away(stage) == {str(file): "database is locked"}
        await asyncio.sleep(statefile.AGAIN_S)
        stage.connector.states()[0].look()
        assert away(stage) is None
        assert (await stage.send("PUT", CARD_PATH, card(**LATER))).status == 403

    with caplog.at_level(logging.INFO):
        bus = play("sys112", act, state_file=file)
    assert len({one.id for one in bus.accepted}) == 22
    told = [one for one in caplog.records if str(file) in one.getMessage()]
    assert [one.levelname for one in told] == ["ERROR", "INFO"]
    again = Memory(file)
    assert again.knows(CARD.id112)
    again.close()


def test_the_door_opens_although_the_state_file_cannot_be_written(tmp_path: Path) -> None:
    """At a start, too: without a door System-112 has nowhere to bring a card."""
    file = tmp_path / "cards.db"
    Memory(file).close()
    statements = "drop table told"  # so that the start has something to write

    async def act(stage: Scene, _: Bus) -> None:
        assert away(stage) is not None
        assert (await stage.send("PUT", CARD_PATH, CARD.body)).status == 200

    other = apsw.Connection(str(file))
    other.execute(statements)
    with locked(file):
        play("sys112", act, state_file=file)
    other.close()
    with pytest.raises(StartError, match="state_file"):  # but a wrong setting is one
        Memory(tmp_path / "none" / "cards.db")


def test_a_full_disk_under_a_running_connector(tmp_path: Path) -> None:
    """The whole bus, the connector a process of its own that cannot make its files longer."""
    house = House()
    try:
        house.start("router", "sys112")
        wait_for(lambda: house.ops("status")["sessions"] == 1, "the session")
        assert put(house, 1) == 200
        pid = house.processes["sys112"].pid
        limits = resource.prlimit(pid, resource.RLIMIT_FSIZE, (8192, resource.RLIM_INFINITY))
        assert [put(house, number) for number in range(2, 12)] == [200] * 10
        log = house.log("sys112")
        assert log.count("sys112.db") == 1, log
        assert "500" not in log
        wait_for(lambda: "state_files_away" in str(house.ops("partners")), "the report")
        resource.prlimit(pid, resource.RLIMIT_FSIZE, limits)
        wait_for(lambda: house.log("sys112").count("sys112.db") == 2, "the end of it")
        assert put(house, 12) == 200
        queue = next(one for one in house.ops("status")["queues"] if one["destination"] == "smp")
        assert queue["pending"] + queue["in_flight"] == 12
    finally:
        house.close()


def put(house: House, number: int) -> int:
    body = card(Changed=f"2029-01-01T00:00:{number:02}+03:00")
    status: int = house.http("PUT", "sys112_door", CARD_PATH, body)[0]
    return status


def test_a_file_that_was_moved_away_is_begun_anew(tmp_path: Path) -> None:
    """What was written to a file that somebody had removed was gone at the next start."""
    file = tmp_path / "cards.db"
    memory = Memory(file)
    memory.end_card("a")
    file.rename(tmp_path / "old.db")
    memory.end_card("b")
    memory.close()
    again = Memory(file)
    assert (again.knows("a"), again.knows("b")) == (False, True)
    again.close()


def test_memory_is_bounded_however_long_the_file_is_away(tmp_path: Path) -> None:
    """What cannot be written down is kept within bounds, not for ever."""
    file = tmp_path / "cards.db"
    table = "create table if not exists note (number integer primary key, body text)"
    state = Spared(file, lambda: table)
    with locked(file):
        for number in range(0, 600, 20):
            rows = [("insert into note values (?, ?)", (number + one, "x" * 100_000))
                    for one in range(20)]  # fmt: skip
            state.write(*rows)
        assert state._spare is not None
        assert int(str(state._spare.execute("pragma page_count").get)) <= statefile.SPARE_PAGES
        assert len(state._pending) <= statefile.PENDING_MAX
        assert state.rows("select number from note where number = 599") == [(599,)]
    state.close()


def test_changes_of_the_hospitals_are_taken(tmp_path: Path) -> None:
    """The sibling at the hospitals' door: its numbers cost a repeat at worst."""
    file = tmp_path / "numbers.db"
    body = dict(catalogue.entry("transfer.state.v1").example)
    change = {"id": "1", "type": "transfer.state.v1", "body": body}

    async def act(stage: Scene, _: Bus) -> None:
        connector: Any = stage.connector
        with locked(file):
            connector.memory.note_asked(body["kind"], body["call_id"], body["call_id"], "112-1")
            answer = await stage.send("POST", "/rmis/changes", {"changes": [change]})
            assert answer.status == 200, answer.body

    assert len(play("rmis", act, state_file=file, poll_s=60).accepted) == 1


def test_a_call_is_handed_in_and_its_events_wait(tmp_path: Path) -> None:
    """The sibling at the door of outside services: the call is on the router's disk. An event is
    kept for whoever asks, so it waits on the bus, and is not taken for told."""
    token, file = new_token(), tmp_path / "calls.db"
    (tmp_path / "a.token").write_text(digest_of(token) + "\n", encoding="ascii")
    headers = {"authorization": f"Bearer {token}", "idempotency-key": "k1",
               "content-type": "application/json"}  # fmt: skip
    status = catalogue.entry("external.status.v1").example

    async def act(stage: Scene, _: Bus) -> None:
        body = msgspec.json.encode(HAND_IN)
        with locked(file):
            answers = [
                await stage.http.request("POST", "/external/calls", body, headers) for _ in range(2)
            ]
            assert [one.status for one in answers] == [201, 201], answers[0].body
            id = msgspec.json.decode(answers[0].body)["id"]
            event = Message.new("external.status.v1", "smp", status | {"external": f"a-{id}"})
            with pytest.raises(Retry):
                await stage.handle(event)
            other = msgspec.json.encode(HAND_IN | {"number": "2"})
            assert (
                await stage.http.request("POST", "/external/calls", other, headers)
            ).status == 422
        await asyncio.sleep(statefile.AGAIN_S)
        assert await stage.handle(event)
        shown = await stage.http.request("GET", f"/external/calls/{id}", b"", headers)
        assert msgspec.json.decode(shown.body)["events"] == 1

    clients = {"a": {"token_file": tmp_path / "a.token"}}
    play("external", act, state_file=file, clients=clients)
    again = Calls(file)
    assert again.day_wait_s("a", 1, now_s()) > 0
    again.close()


def test_where_the_file_is_needed_the_bus_is_asked_to_come_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """Archive, cards for the fund, what a РИАМС was asked: a mistake line for each attempt before.
    Now a retry with its reason, and one line."""
    archive = Archive(tmp_path / "archive.db")
    store = Store(tmp_path / "cards.db")
    store.state._db.set_busy_timeout(0)  # type: ignore[union-attr]
    numbers = Numbers(tmp_path / "numbers.db")
    riams = RiamsNumbers(numbers)
    asks: dict[str, Callable[[], object]] = {
        "archive.db": lambda: archive.sent("a", "b"),
        "cards.db": lambda: store.take_due(3),
        "numbers.db": lambda: riams.note_asked("bed", "1"),
    }
    for name, ask in asks.items():
        caplog.clear()
        with locked(tmp_path / name):
            for _ in range(3):
                with pytest.raises(StateAway) as raised:
                    ask()
                assert isinstance(raised.value, Retry)
        told = [one for one in caplog.records if name in one.getMessage()]
        assert len(told) == 1, name
        ask()
    assert (tmp_path / "archive.db").stat().st_mode & 0o077 == 0
    for one in (archive, store, numbers):
        one.close()


def test_a_full_disk_does_not_end_the_telephony(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The exchange's connector ended, and did not start again, when it could not write down which
    calls are live."""
    file = tmp_path / "live.calls"
    memory = LiveCalls(file)
    assert memory.open() == []
    real, memory._descriptor = memory._descriptor, os.open("/dev/full", os.O_WRONLY)
    calls = [Call(f"c{number}", "in", "1", "2", datetime.now(UTC)) for number in range(3)]
    for call in calls:
        memory.began(call)
    assert "space" in memory.reason
    memory.close()
    memory._descriptor = real
    memory.look()
    assert memory.reason == ""
    memory.ended(["c1"])
    memory.close()
    again = LiveCalls(file)
    assert [one["id"] for one in again.open()] == ["c0", "c2"]
    again.close()
    assert [one.levelname for one in caplog.records if str(file) in one.getMessage()] == ["ERROR"]
    with pytest.raises(OSError, match="live"):  # a folder that is not there is a wrong setting
        LiveCalls(tmp_path / "none" / "live.calls").open()


def test_a_load_of_workers_waits_and_says_why_once(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """The sibling with a file of another make: a mistake line for every poll before."""
    file = tmp_path / "register.db"

    async def act(stage: Scene, bus: Bus) -> None:
        connector = stage.connector
        assert isinstance(connector, RmrConnector)
        connector.progress._connection.execute("pragma busy_timeout = 0")
        with locked(file, partial(sqlite3.connect, isolation_level=None)):
            for _ in range(3):
                await connector.poll()
            wish = Message.new("worker.load.v1", "admin", {"full": True})
            with pytest.raises(Retry):
                await stage.handle(wish)
        await connector.poll()
        assert bus.bodies("worker.changed.v1")

    play("rmr", act, state_file=file, pause_s=0.01)
    assert len([one for one in caplog.records if one.levelname == "WARNING"]) == 1


def test_no_answer_of_a_door_is_bare(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever goes wrong within, the partner hears it in the words of the contract, so that it
    repeats; and the log names the kind of mistake, not what was in the card."""

    def broken(*_: Any) -> None:
        raise LookupError("Иванов")

    async def act(stage: Scene, _: Bus) -> None:
        monkeypatch.setattr("connectors.partners.sys112.mapping.card_in", broken)
        answer = await stage.send("PUT", CARD_PATH, CARD.body)
        assert answer.status == 500
        assert msgspec.json.decode(answer.body)["Code"] == "500"

    play("sys112", act)
    assert "LookupError" in caplog.text
    assert "Иванов" not in caplog.text
