"""One bad item of a page, a table or a queue is set aside; what is behind it goes on."""

import asyncio
import copy
import json
import logging
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.partners.rmis import RmisConnector
from connectors.partners.rmr import RmrConnector
from connectors.runtime.bus import ingress
from connectors.simulators.kit.simulation import SimulatorSettings
from connectors.simulators.rmr import samples
from connectors.simulators.rmr.simulator import create_app as create_rmr
from proto import frames
from proto.errors import Code
from tests.contract.stage import Bus, scene
from tests.integration.postgres import Postgres
from tests.integration.sqlhouse import House, events
from tests.until import wait_for

GOOD = {
    "kind": "card",
    "call_id": "2026-1",
    "state": "confirmed",
    "at": "2026-11-23T09:20:00+03:00",
}
SECRET = "Секретова"


class PickyBus(Bus):
    """Refuses for good whatever holds `disliked`, and takes the rest."""

    disliked = b"\0"

    def _answers(self, verb: bytes, payload: bytes) -> Iterator[list[bytes]]:
        if verb != frames.PUBLISH:
            yield from super()._answers(verb, payload)
            return
        publish = msgspec.msgpack.decode(payload, type=frames.Publish)
        bad = [n for n, one in enumerate(publish.messages) if self.disliked in one.body]
        self.accepted += [one for n, one in enumerate(publish.messages) if n not in bad]
        if bad:
            told = [frames.Refusal(n, Code.BODY_TOO_LARGE, "no") for n in bad]
            yield [frames.REFUSED, frames.encode(frames.RefusedBatch(publish.batch, told))]
        if len(bad) < len(publish.messages):
            yield [frames.ACCEPTED, frames.encode(frames.Accepted([publish.batch]))]


@pytest.fixture
def bus() -> Iterator[PickyBus]:
    folder = Path(tempfile.mkdtemp(prefix="smpbus-", dir="/tmp"))
    yield PickyBus(f"ipc://{folder}/bus.sock")
    shutil.rmtree(folder)


def hospitals(bus: Bus, folder: Path, changes: list[Any]) -> RmisConnector:
    """Poll once a hospitals' system that has these changes; return the connector."""

    async def page(_: Request) -> Response:
        told = {"changes": changes, "cursor": "7", "more": False}
        return Response(msgspec.json.encode(told), media_type="application/json")

    def create(_: SimulatorSettings) -> Starlette:
        return Starlette(routes=[Route("/changes", page)])

    async def work() -> RmisConnector:
        settings: dict[str, Any] = {"state_file": folder / "numbers.db", "poll_s": 3600.0}
        async with scene(bus, RmisConnector, create, SimulatorSettings(), **settings) as stage:
            connector = stage.connector
            assert isinstance(connector, RmisConnector)
            for call in {str(one.get("body", {}).get("call_id")) for one in changes}:
                connector.memory.note_asked("card", call, call, f"call-{call}")
            await connector.poll()
            assert connector.memory.cursor == "7", "the poll stands still"
            return connector

    return asyncio.run(work())


@pytest.mark.fault("D9")
def test_a_change_that_is_none_holds_up_no_other(
    bus: PickyBus, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A sibling: one change of an unknown type made the whole page unreadable, and the poll asked
    for the same page for ever; each is read for itself, and told to the administrator."""
    changes = [
        {"id": "c-1", "type": "not.known.v1", "body": {"family": SECRET}},
        {"type": "transfer.state.v1", "body": GOOD},
        {"id": "c-3", "type": "transfer.state.v1", "body": GOOD},
    ]
    hospitals(bus, tmp_path, changes)
    assert len(bus.bodies("transfer.state.v1")) == 1
    told = [(one["about"], one["path"]) for one in bus.bodies("input.rejected.v1")]
    assert told == [("c-1", "changes[0].type"), ("", "changes[1].id")]
    assert SECRET not in str(bus.accepted) + caplog.text


@pytest.mark.fault("D9")
def test_a_page_longer_than_what_may_be_open_at_once_is_taken_in_parts(
    bus: PickyBus, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A sibling: a page of more messages than may wait for the bus was "busy" at every poll."""
    monkeypatch.setattr(ingress, "OPEN_MAX", 60)
    monkeypatch.setattr(ingress, "OFFER_MAX", 50)
    changes = [
        {"id": f"c-{n}", "type": "transfer.state.v1", "body": GOOD | {"call_id": f"2026-{n}"}}
        for n in range(130)
    ]
    hospitals(bus, tmp_path, changes)
    assert len({one.id for one in bus.accepted}) == 130


@pytest.mark.fault("D9")
def test_a_record_that_the_bus_never_takes_does_not_end_a_load(
    bus: PickyBus, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A sibling: a load of the register stood for ever at the page of one record that the bus
    refused; it is set aside, with a line and counted, and everybody behind it comes."""
    people = samples.workers(7, 35)
    bus.disliked = json.dumps(people[12]["id"]).encode()

    async def work() -> None:
        settings: dict[str, Any] = {"state_file": tmp_path / "register.db"}
        settings |= {"page_size": 10, "pause_s": 0.01}

        def create(told: SimulatorSettings) -> Any:
            return create_rmr(told, copy.deepcopy(people))

        async with scene(bus, RmrConnector, create, SimulatorSettings(), **settings) as stage:
            connector = stage.connector
            assert isinstance(connector, RmrConnector)
            await connector.poll()
            assert not connector.progress.position.loading
            assert connector.set_aside() == 1

    with caplog.at_level(logging.INFO, "smpbus.connector"):
        asyncio.run(work())
    assert len(bus.bodies("worker.changed.v1")) == 34
    lines = [one.getMessage() for one in caplog.records if "body_too_large" in one.getMessage()]
    assert len(lines) == 1
    assert people[12]["family"] not in caplog.text


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    with Postgres() as postgres, House(postgres) as started:
        yield started


@pytest.mark.fault("D9")
def test_a_row_that_the_vendors_trigger_refuses_holds_up_no_other(house: House) -> None:
    """A sibling: one message that a trigger in the inbox refuses was an "outage" of the database,
    and took every INSERT of its group along at each attempt."""
    house.clear()
    house.owner.execute(
        "CREATE FUNCTION picky() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NEW.payload->>'a' = '2' THEN RAISE EXCEPTION 'no %', NEW.payload; END IF;"
        " RETURN NEW; END $$;"
        " CREATE TRIGGER picky BEFORE INSERT ON smpbus.inbox FOR EACH ROW EXECUTE FUNCTION picky()"
    )
    house.pause()
    with house.blocking("sys112") as client:
        for n in range(6):
            body = json.dumps({"a": n, "who": SECRET}).encode()
            client.publish(client.message("incident.odd.v1", body, subject=f"{n}"))
    house.resume()
    rows = "SELECT count(*) FROM smpbus.inbox"
    wait_for(lambda: house.owner.execute(rows).fetchone() == (5,), "the other five")
    wait_for(lambda: "SQLSTATE P0001" in house.told(), "the line")
    assert SECRET not in house.told()
    assert "Unable to complete" not in house.told(), "the database is well"
    house.owner.execute("DROP TRIGGER picky ON smpbus.inbox")
    wait_for(lambda: house.owner.execute(rows).fetchone() == (6,), "the one, its rule mended")


@pytest.mark.fault("D9")
def test_a_row_that_cannot_be_marked_does_not_stop_the_outbox(house: House) -> None:
    """A sibling: a trigger of the vendor's that refuses the mark of one row kept every row of its
    round trip unmarked, and all of them were published again for ever."""
    house.clear()
    house.owner.execute(
        "CREATE FUNCTION stubborn() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN"
        " IF NEW.subject = '112-2' THEN RAISE EXCEPTION 'never'; END IF; RETURN NEW; END $$;"
        " CREATE TRIGGER stubborn BEFORE UPDATE ON smpbus.outbox FOR EACH ROW"
        " EXECUTE FUNCTION stubborn()"
    )
    house.publish("112-1", "one")
    house.publish("112-2", "stubborn")
    house.publish("112-1", "two")
    wait_for(lambda: house.states() == {"accepted": 2, "waiting": 1}, "the others")
    house.publish("112-3", "three")
    wait_for(lambda: house.states() == {"accepted": 3, "waiting": 1}, "what came later")
    told = [line for line in house.told().splitlines() if "строка" in line]
    assert len(told) == 1, "once, not at each look"
    assert "SQLSTATE P0001" in told[0]
    assert "Unable to complete" not in house.told(), "the database is well"
    house.owner.execute("DROP TRIGGER stubborn ON smpbus.outbox")
    found = events(house.read())
    assert found == {"112-1": ["one", "two"], "112-2": ["stubborn"], "112-3": ["three"]}
