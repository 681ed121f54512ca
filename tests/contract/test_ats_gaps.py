"""What becomes of calls when the connector, the line or its rights are lost in their middle."""

import asyncio
import contextlib
import signal
import subprocess
import time
from collections.abc import Iterable
from itertools import chain
from pathlib import Path
from random import Random
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from connectors.partners.ats import AtsConnector
from connectors.partners.ats.ami import Packet
from connectors.partners.ats.line import Line
from connectors.partners.ats.unsent import MEMORY_MAX, Unsent
from connectors.runtime.door.serving import HttpServer, bind
from connectors.runtime.partner.http import HttpClient
from connectors.runtime.persons import find, places
from connectors.simulators.ats import SECRET, USER, create_app
from connectors.simulators.kit.simulation import SimulatorSettings
from proto.client import BusClient
from proto.message import Message
from proto.person import Search
from tests.bench.ami import PERMISSIONS, ROUTES
from tests.contract.stage import Bus, Scene
from tests.contract.switchboard import (
    distinct,
    drive,
    exchange,
    soundness,
)
from tests.integration.bus import SMPBUS, RouterProcess
from tests.ports import free_port
from tests.unit.connectors.ats_switch import LIVES, Life, Switch, Truth, queued
from tests.until import until

CALL = "telephony.call.v1"


def lived(*lives: Life) -> list[list[Packet]]:
    """Return the events of visits that go on side by side, one list for each step."""
    steps: list[list[Packet]] = [[]]
    switch = Switch(Random(1), lambda packet: steps[-1].append(packet))
    going = [life(switch, [str(200 + 3 * at + of) for of in range(3)], Truth("", ""))
             for at, life in enumerate(lives)]  # fmt: skip
    while going:
        switch.now += 0.01
        going = [one for one in going if next(one, "over") != "over"]
        steps.append([])
    return steps


def line_of(scene: Scene) -> Line:
    """Return the connector's line to the exchange."""
    connector = scene.connector
    assert isinstance(connector, AtsConnector)
    return connector._line


async def replay(http: HttpClient, steps: Iterable[list[Packet]]) -> None:
    """Have the exchange tell this; the last of it happens now."""
    packets = list(chain.from_iterable(steps))
    shift_s = time.time() - float(packets[-1]["Timestamp"])
    order = {"replay": text(packets), "shift_s": shift_s}
    await http.request("POST", "/drive", msgspec.json.encode(order))


def text(packets: Iterable[Packet]) -> str:
    parts = ["".join(f"{key}: {value}\n" for key, value in one.items()) for one in packets]
    return "Asterisk Call Manager\n" + "\n".join(parts) + "\n"


@pytest.mark.parametrize("answer", ["denied", "unknown"])
def test_a_list_that_is_refused_ends_no_call_and_is_said(
    bus: Bus, tmp_path: Path, caplog: pytest.LogCaptureFixture, answer: str
) -> None:
    """A right is missing, or the modules are not loaded yet: then it is asked again."""
    steps = lived(queued)
    odd = {"denied": {"denied": ["CoreShowChannels"]}, "unknown": {"unknown": {"QueueStatus": 3}}}

    async def work() -> None:
        async with exchange(bus, tmp_path) as scene:
            await until(lambda: line_of(scene).session)
            await replay(scene.http, steps[:4])
            await until(lambda: any(one["event"] == "answered" for one in bus.bodies(CALL)))
            await drive(scene, odd=odd[answer])
            await drive(scene, **{"break": True})
            await until(lambda: line_of(scene).session is None)
            await until(lambda: line_of(scene).session)
            await until(lambda: "отказ в" in caplog.text)
            assert not any(one["event"] == "ended" for one in bus.bodies(CALL))
            if answer == "unknown":
                await until(lambda: scene.connector.partner.outage.up)
            else:
                assert scene.connector.partner.outage.up is False
            await replay(scene.http, steps[4:])
            await until(lambda: any(one["event"] == "ended" for one in bus.bodies(CALL)))

    asyncio.run(work())
    (ended,) = [one for one in distinct(bus, CALL) if one["event"] == "ended"]
    assert ended["cause"] == "16"


def test_classes_of_events_that_do_not_come_are_said(
    bus: Bus, tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("connectors.partners.ats.line.LOOK_S", 0.2)
    monkeypatch.setattr("connectors.partners.ats.rights.SETTLED_S", -60)

    async def work() -> None:
        async with exchange(bus, tmp_path) as scene:
            await until(lambda: line_of(scene).session)
            await drive(scene, odd={"mute": ["call"]})
            await replay(scene.http, lived(queued)[:2])
            await until(lambda: "события класса call не приходят" in caplog.text)
            await until(lambda: "события класса agent не приходят" in caplog.text)

    asyncio.run(work())


def test_actions_that_are_not_allowed_are_said_at_the_login(
    bus: Bus, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async def work() -> None:
        async with exchange(bus, tmp_path) as scene:
            await until(lambda: line_of(scene).session)
            await drive(scene, odd={"denied": ["Originate", "Getvar"]})
            await drive(scene, **{"break": True})
            await until(lambda: "не даёт пользователю действие Originate" in caplog.text)
            await until(lambda: "не даёт пользователю действие Getvar" in caplog.text)

    asyncio.run(work())


async def checked(scene: Scene) -> dict[str, bool]:
    """What `smpbus connector ats --check` says of the exchange."""
    loaded: Any = SimpleNamespace(settings=scene.connector.settings)
    found = await AtsConnector.probe("ats", loaded)
    return {sentence: good for good, sentence in found or ()}


def test_the_check_says_of_each_action_and_class_whether_it_is_there(
    bus: Bus, tmp_path: Path
) -> None:
    async def work() -> None:
        async with exchange(bus, tmp_path) as scene:
            await until(lambda: line_of(scene).session)
            found = await checked(scene)
            assert all(found.values())
            assert "действие Originate разрешено" in found
            assert "события класса call приходят" in found
            await drive(scene, odd={"denied": ["QueueStatus"], "mute": ["dialplan"]})
            bad = [sentence for sentence, good in (await checked(scene)).items() if not good]
            assert [("QueueStatus" in one, "класса dialplan" in one) for one in bad] == [
                (True, False),
                (False, True),
            ]

    asyncio.run(work())


def test_the_check_does_not_call_a_wrong_secret_well(bus: Bus, tmp_path: Path) -> None:
    async def work() -> None:
        async with exchange(bus, tmp_path, secret="wrong") as scene:
            assert await checked(scene) == {"АТС не приняла имя и секрет": False}

    asyncio.run(work())


def messages(count: int) -> list[Message]:
    return [Message.new("telephony.call.v1", "ats", {"n": n}, subject="s") for n in range(count)]


SETTINGS = """
[connectors.ats]
statistics_s = 1.0
live_calls_file = "ats.calls"
[connectors.ats.partner]
url = "tcp://127.0.0.1:{port}"
credentials_file = "ats.password"
"""


class House:
    """A real router, a real connector process that is killed, and the exchange."""

    def __init__(self, router: RouterProcess, http: HttpClient) -> None:
        self.router, self.http = router, http
        self.told: list[Any] = []
        self._process: subprocess.Popen[bytes] | None = None

    async def start(self) -> None:
        before = (await self.ledger())["logins"]
        self._launch()
        for _ in range(600):
            if (await self.ledger())["logins"] > before:
                return
            await asyncio.sleep(0.05)
        raise AssertionError("waited 30 s for the login")

    def _launch(self) -> None:
        config = str(self.router.config)
        self._process = subprocess.Popen([SMPBUS, "connector", "ats", "--config", config])

    def stop(self, how: signal.Signals) -> None:
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(how)
            self._process.wait(20)

    async def ledger(self) -> Any:
        return msgspec.json.decode((await self.http.request("GET", "/ledger")).body)

    async def hear(self, bus: BusClient) -> None:
        async for batch in bus.consume("sink", credit=2000).batches():
            for delivery in batch:
                if delivery.message.type == CALL:
                    self.told.append(delivery.message.json())
                delivery.ack()

    def count(self, kind: str) -> int:
        return sum(one["event"] == kind for one in self.told)


def test_a_connector_killed_in_the_middle_of_200_calls_loses_invents_and_leaves_open_none() -> None:
    steps = lived(*(LIVES[at % len(LIVES)] for at in range(200)))
    early, unheard, late = steps[:3], steps[3:5], steps[5:]
    real = {one["Uniqueid"] for step in steps for one in step if one.event == "Newchannel"}
    port = free_port()

    async def work(router: RouterProcess) -> list[Any]:
        told = SimulatorSettings(connector_url=f"tcp://127.0.0.1:{port}")
        pages = free_port()
        async with contextlib.AsyncExitStack() as stack:
            server = HttpServer(create_app(told), bind(f"127.0.0.1:{pages}", "test"))
            await server.start()
            stack.push_async_callback(server.stop)
            http = HttpClient(f"http://127.0.0.1:{pages}")
            stack.push_async_callback(http.close)
            house = House(router, http)
            stack.callback(house.stop, signal.SIGTERM)
            consumer = await stack.enter_async_context(router.client("consumer"))
            hearing = asyncio.create_task(house.hear(consumer))
            await house.start()
            await replay(http, early)
            await until(lambda: house.count("started") >= 200)
            house.stop(signal.SIGKILL)
            await replay(http, unheard)
            await house.start()
            await replay(http, late)
            await until(lambda: house.count("ended") == house.count("started"))
            hearing.cancel()
            await asyncio.gather(hearing, return_exceptions=True)
        return house.told

    with RouterProcess(peers=("ats", "consumer"), routes=ROUTES, permissions=PERMISSIONS) as router:
        password = router.folder / "ats.password"
        password.touch(mode=0o600)
        password.write_text(f"{USER}:{SECRET}\n")
        with router.config.open("a") as config:
            config.write(SETTINGS.format(port=port))
        bodies = asyncio.run(work(router))
    assert soundness(bodies) == []
    assert {one["call_id"] for one in bodies} <= real
    kept = [one for one in bodies if one["event"] == "ended" and one.get("unheard")]
    assert any(one.get("answered_at") and one.get("cause") == "16" for one in kept)


class TestUnsent:
    def test_what_does_not_fit_into_memory_is_read_back_in_order(self, tmp_path: Path) -> None:
        async def work() -> None:
            unsent = Unsent(tmp_path / "live", memory_max=10)
            unsent.open()
            given = messages(95)
            for one in given[:50]:
                unsent.put(one)
            taken = await unsent.get(7)
            for one in given[50:]:
                unsent.put(one)
            while len(taken) < 95:
                taken += await unsent.get(20)
            assert taken == given
            unsent.done(94)
            assert (tmp_path / "live.unsent").stat().st_size > 0
            unsent.done(1)
            assert (tmp_path / "live.unsent").stat().st_size == 0
            unsent.put(given[0])
            assert await unsent.get(5) == given[:1]
            unsent.close()

        asyncio.run(work())

    def test_whoever_starts_next_sends_what_was_left(self, tmp_path: Path) -> None:
        async def work() -> None:
            unsent = Unsent(tmp_path / "live", memory_max=10)
            unsent.open()
            given = messages(30)
            for one in given:
                unsent.put(one)
            await unsent.get(25)
            unsent.close()
            with (tmp_path / "live.unsent").open("ab") as file:
                file.write(b'{"message": "torn')
            again = Unsent(tmp_path / "live", memory_max=10)
            again.open()
            again.put(given[0])
            taken: list[Message] = []
            while len(taken) < 31:
                taken += await again.get(100)
            assert taken == [*given, given[0]]
            again.close()
            assert (tmp_path / "live.unsent").stat().st_mode & 0o777 == 0o600

        asyncio.run(work())

    def test_who_looks_for_a_person_finds_what_waits(self, tmp_path: Path) -> None:
        async def work() -> None:
            unsent = Unsent(tmp_path / "live")
            unsent.open()
            unsent.put(Message.new(CALL, "ats", {"number_from": "+79990000001"}, subject="s"))
            unsent.close()

        asyncio.run(work())
        (place,) = places({"ats": {"live_calls_file": "live"}}, tmp_path)
        search = Search(((("+79990000001",),),))
        assert [row.busy for row in find(place, search, ())] == [True]

    def test_without_a_file_it_is_bounded_and_says_what_it_loses(
        self, caplog: pytest.LogCaptureFixture
    ) -> None:
        async def work() -> None:
            unsent = Unsent(None)
            unsent.open()
            for one in messages(MEMORY_MAX + 3):
                unsent.put(one)
            assert (unsent.waiting, unsent.dropped) == (MEMORY_MAX, 3)

        asyncio.run(work())
        assert caplog.text.count("live_calls_file") == 1
