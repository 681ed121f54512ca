"""What simulators are made of: a ledger that outlives a restart, faults that repeat by seed."""

import asyncio
import re
from pathlib import Path
from typing import Literal

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.types import Message, Receive, Scope, Send

from connectors.runtime.door.serving import HttpServer, bind
from connectors.runtime.partner.http import HttpClient
from connectors.simulators.kit.duration import seconds
from connectors.simulators.kit.faults import LISTENS_S, Faults, FaultyApp
from connectors.simulators.kit.ledger import Ledger
from connectors.simulators.kit.simulation import SimulatorSettings, spawn
from connectors.simulators.smp.simulator import Ambulance
from proto import catalogue, schemas
from tests.leap import leaping
from tests.ports import free_port
from tests.until import until


def test_a_key_is_applied_once_and_is_known_after_a_restart(tmp_path: Path) -> None:
    file = tmp_path / "ledger"
    ledger = Ledger(file)
    assert ledger.answer_of("k1") is None
    ledger.record("k1", {"id112": "a"}, 201, {"call": 1})
    assert ledger.answer_of("k1") == (201, {"call": 1})
    again = Ledger(file)
    assert again.entries == [{"key": "k1", "id112": "a"}]
    assert again.answer_of("k1") == (201, {"call": 1})
    assert (ledger.repeats, again.repeats) == (1, 1)


def test_the_ambulance_numbers_its_calls_on_after_a_restart(tmp_path: Path) -> None:
    # Its calls would be taken for repeats of those that had these numbers before.
    settings = SimulatorSettings(ledger=tmp_path / "ledger")
    example = catalogue.entry("incident.card.v1").example
    numbers = []
    for id112 in ("a", "b"):
        card = msgspec.json.encode(example | {"id112": id112})
        _, reply = Ambulance(settings).apply(f"key-{id112}", schemas.IncidentCard, card)
        numbers.append(reply["number_year"])
    assert numbers == [1, 2]


def statuses(faults: Faults, count: int) -> tuple[list[int], int]:
    """Return what `count` requests were answered, and how many of them did their work."""
    worked = 0
    seen: list[int] = []

    async def app(_: Scope, __: Receive, send: Send) -> None:
        nonlocal worked
        worked += 1
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b""})

    async def send(message: Message) -> None:
        if message["type"] == "http.response.start":
            seen.append(message["status"])

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def whole() -> None:
        faulty = FaultyApp(app, faults)
        for _ in range(count):
            await faulty({"type": "http", "path": "/x", "method": "POST"}, receive, send)

    asyncio.run(whole())
    return seen, worked


def test_faults_repeat_by_seed_and_some_lose_only_the_answer() -> None:
    seen, worked = statuses(Faults(fail=0.5, seed=3), 200)
    assert (seen, worked) == statuses(Faults(fail=0.5, seed=3), 200)
    good = seen.count(200)
    assert 60 < good < 140
    assert good < worked < 200


@pytest.mark.parametrize("faults", [Faults(down=True), Faults(down_after_s=0.0)])
def test_down_answers_nobody_and_works_for_nobody(faults: Faults) -> None:
    assert statuses(faults, 5) == ([503] * 5, 0)


def test_no_faults_is_no_difference() -> None:
    assert statuses(Faults(), 5) == ([200] * 5, 5)


def test_a_length_of_being_down_ends_and_switching_begins_it_anew() -> None:
    assert statuses(Faults(down=True, down_s=0.0), 3) == ([200] * 3, 3)
    assert statuses(Faults(down=True, down_s=60.0), 3) == ([503] * 3, 0)
    assert statuses(Faults(down_after_s=60.0, down_s=1.0), 3) == ([200] * 3, 3)


def test_what_was_set_for_a_time_ends_by_itself_and_what_is_set_later_holds() -> None:
    async def whole() -> None:
        faulty = FaultyApp(lambda *_: None, Faults(seed=7))  # type: ignore[arg-type]
        await switch(faulty, b'{"down": true, "delay_s": 0.5, "for_s": 20}')
        assert faulty.faults.down
        clock.leap(20)
        await until(lambda: faulty.faults == Faults(seed=7))
        await switch(faulty, b'{"down": true, "for_s": 20}')
        await switch(faulty, b'{"fail": 0.5, "for_s": null}')
        assert not clock.sleeps(20)
        assert faulty.faults == Faults(seed=7, down=True, fail=0.5)

    with leaping() as clock:
        asyncio.run(whole())


@pytest.mark.parametrize("spoil", ["drip", "giant"])
def test_an_answer_without_end_ends_when_nobody_listens(spoil: Literal["drip", "giant"]) -> None:
    """It went on for a minute with all of a processor: what is sent to nobody does not fail."""

    async def play() -> None:
        ended = asyncio.Event()
        faulty = FaultyApp(Starlette(), Faults(spoil=spoil))

        async def watched(scope: Scope, receive: Receive, send: Send) -> None:
            await faulty(scope, receive, send)
            ended.set()

        where = f"127.0.0.1:{free_port()}"
        server = HttpServer(watched, bind(where, "test"))
        await server.start()
        host, _, port = where.partition(":")
        reader, writer = await asyncio.open_connection(host, int(port))
        writer.write(b"GET /x HTTP/1.1\r\nhost: x\r\n\r\n")
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        assert await reader.read(1)
        assert not ended.is_set()
        writer.close()
        await asyncio.wait_for(ended.wait(), LISTENS_S / 2)
        await server.stop()

    asyncio.run(play())


async def switch(faulty: FaultyApp, body: bytes) -> None:
    """POST /faults."""

    async def receive() -> Message:
        return {"type": "http.request", "body": body, "more_body": False}

    async def send(_: Message) -> None:
        """Nobody reads the answer."""

    await faulty({"type": "http", "path": "/faults", "method": "POST"}, receive, send)


def test_a_ledger_is_read_on_from_where_one_was() -> None:
    ledger = Ledger()
    for key in ("a", "b", "c"):
        ledger.record(key, {}, 200, None)

    async def whole() -> None:
        port = free_port()
        server = HttpServer(Starlette(routes=[ledger.page()]), bind(f"127.0.0.1:{port}", "test"))
        await server.start()
        async with HttpClient(f"http://127.0.0.1:{port}/ledger") as client:
            told = [
                await client.request("GET", f"/entries{after}")
                for after in ("", "?after=1", "?after=9", "?after=-1")
            ]
        await server.stop()
        pages = [msgspec.json.decode(one.body) for one in told[:3]]
        assert [page["count"] for page in pages] == [3, 3, 3]
        assert [len(page["entries"]) for page in pages] == [3, 2, 0]
        assert pages[1]["entries"] == [{"key": "b"}, {"key": "c"}]
        assert told[3].status == 400

    asyncio.run(whole())


def test_refused_for_good_is_not_worked_on() -> None:
    seen, worked = statuses(Faults(refuse=0.5, seed=1), 200)
    assert set(seen) == {200, 422}
    assert worked == seen.count(200)


def test_garbage_is_of_every_kind_and_repeats_by_seed() -> None:
    seen, worked = statuses(Faults(spoil="any", seed=2), 200)
    assert (seen, worked) == statuses(Faults(spoil="any", seed=2), 200)
    assert {200, 302} == set(seen)
    assert 80 < worked < 180  # pages and redirects do no work


@pytest.mark.parametrize(
    ("typed", "length_s"),
    [("30", 30.0), ("30s", 30.0), ("10m", 600.0), ("2h", 7200.0), ("500ms", 0.5), ("1.5M", 90.0)],
)
def test_lengths_of_time_are_typed_as_people_do(typed: str, length_s: float) -> None:
    assert seconds(typed) == length_s


@pytest.mark.parametrize("typed", [" ", "s", "-3s", "10 минут", "1d", "1e3"])
def test_what_is_no_length_of_time_is_refused(typed: str) -> None:
    with pytest.raises(ValueError, match=re.escape(typed)):
        seconds(typed)


def test_a_simulated_life_that_ends_by_a_mistake_is_told(caplog: pytest.LogCaptureFixture) -> None:
    async def mistaken() -> None:
        raise ZeroDivisionError

    async def play() -> None:
        tasks: set[asyncio.Task[None]] = set()
        spawn(tasks, mistaken())
        spawn(tasks, asyncio.sleep(0))
        assert len(tasks) == 2
        await asyncio.wait(tasks)
        await asyncio.sleep(0)  # whoever waits for a task's end is called in the next turn
        assert not tasks

    asyncio.run(play())
    (told,) = caplog.records
    assert told.exc_info is not None
    assert told.exc_info[0] is ZeroDivisionError
