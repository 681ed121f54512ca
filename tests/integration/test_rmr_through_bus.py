"""The register of medical workers through the whole bus: real processes, kills, memcached."""

import asyncio
import json
import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

from connectors.simulators.rmr import samples
from proto import BusClient, KeyPair
from proto.ops import OpsError, ops_request
from tests.integration.house import PATIENCE_S, ROOT, SMPBUS
from tests.integration.memcache import Memcache
from tests.ports import free_ports
from tests.until import wait_for

WORKERS = 300  # as many as the simulator makes up
SETTINGS = """
[bus]
listen = ["ipc://{folder}/bus.sock"]
keys_dir = "keys"
[ops]
listen = "ipc://{folder}/ops.sock"
events = "ipc://{folder}/events.sock"
http = ""
[store]
folder = "data"
free_bytes_min = 0

[connectors.rmr]
open = true
listen = "127.0.0.1:{figures}"
state_file = "register.db"
poll_s = 0.2
page_size = 10
pause_s = 0.05
[connectors.rmr.partner]
url = "http://127.0.0.1:{register}"
system = "РМР"
[connectors.rmr.lookup]
server = "127.0.0.1:{cache}"
secret_file = "lookup.secret"

[connectors.smp]
open = true
listen = "127.0.0.1:{door}"
[connectors.smp.partner]
url = "http://127.0.0.1:{ambulance}"
"""


class RegisterHouse:
    """Router, register, its connector, the ambulance's connector and system, and memcached."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="smpbus-", dir="/tmp"))
        self.cache = Memcache()
        names = ("figures", "register", "door", "ambulance")
        self.ports = dict(zip(names, free_ports(4), strict=True))
        self.config = self.folder / "smpbus.toml"
        told = SETTINGS.format(folder=self.folder, cache=self.cache.port, **self.ports)
        self.config.write_text(told, encoding="utf-8")
        for name in ("routes.toml", "permissions.toml"):
            shutil.copy(ROOT / "config" / name, self.folder / name)
        secret = self.folder / "lookup.secret"
        secret.write_text("0123456789abcdef" * 3)
        secret.chmod(0o600)
        for name in ("router", "rmr", "smp", "admin", "sys112"):
            KeyPair.new().save(self.folder / "keys", name)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def run(self, *arguments: str, given: str = "") -> str:
        done = subprocess.run(
            [str(SMPBUS), *arguments], input=given, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, *names: str) -> None:
        ports = self.ports
        commands = {
            "router": ["router", "--config", str(self.config)],
            "rmr": ["connector", "rmr", "--config", str(self.config)],
            "smp": ["connector", "smp", "--config", str(self.config)],
            "sim-rmr": ["sim", "rmr", "--listen", f"127.0.0.1:{ports['register']}", "--seed", "7"],
            "sim-smp": ["sim", "smp", "--listen", f"127.0.0.1:{ports['ambulance']}"],
        }
        for name in names:
            with (self.folder / f"{name}.log").open("ab") as log:
                command = [str(SMPBUS), *commands[name]]
                self.processes[name] = subprocess.Popen(command, stderr=log, stdout=log)

    def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def http(self, port: str, path: str, body: Any = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"http://127.0.0.1:{self.ports[port]}{path}", data)
        try:
            with urlopen(request, timeout=10) as answer:
                return json.loads(answer.read() or b"null")
        except (URLError, ConnectionError):
            return None

    def figures(self) -> Any:
        return self.http("figures", "/figures")

    def workers(self) -> Any:
        """The workers that the ambulance system holds."""
        return (self.http("ambulance", "/ledger") or {}).get("workers", {})

    def counters(self) -> Any:
        try:
            return ops_request(f"ipc://{self.folder}/ops.sock", "status")["counters"]
        except OpsError:
            return {}

    def ask(self, **asked: str) -> Any:
        """Ask who somebody is, as the ambulance's own connector may."""

        async def whole() -> Any:
            keys = self.folder / "keys"
            address = f"ipc://{self.folder}/bus.sock"
            key, public = keys / "admin.key", keys / "router.pub"
            async with BusClient(address, name="admin", key=key, server_key=public) as bus:
                reply = await bus.request("rmr", bus.message("worker.lookup.v1", asked))
                return json.loads(reply.body)["worker"]

        return asyncio.run(whole())

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()
        self.cache.kill()
        shutil.rmtree(self.folder)


@pytest.fixture
def house() -> Iterator[RegisterHouse]:
    built = RegisterHouse()
    yield built
    built.close()


def test_a_load_survives_kills_and_everybody_reaches_the_ambulance_once(
    house: RegisterHouse,
) -> None:
    house.cache.start()
    house.start("router", "sim-rmr", "sim-smp", "smp")
    wait_for(lambda: house.http("register", "/ledger"), "the register")
    house.http("register", "/faults", {"delay_s": 0.05})
    house.start("rmr")
    for least in (20, 100):
        wait_for(
            lambda least=least: (
                (house.figures() or {"load": {"loaded": 0}})["load"]["loaded"]  # type: ignore[misc]
                >= least
            ),
            "progress",
        )
        house.kill("rmr")
        house.start("rmr")
    wait_for(lambda: len(house.workers()) == WORKERS, "all workers")
    log = (house.folder / "rmr.log").read_text(encoding="utf-8")
    assert log.count("начата полная загрузка") == 1
    assert log.count("полная загрузка продолжена с") == 2
    asked = house.http("register", "/ledger")["asked"]["page"]
    assert asked <= WORKERS / 10 + 2 * 2  # a kill costs the page under way, not the load
    counters = house.counters()
    assert counters["accepted"] == WORKERS
    assert counters["dead"] == 0
    operations = [one["operation"] for one in house.http("ambulance", "/ledger")["entries"]]
    assert operations == ["Worker"] * WORKERS

    somebody = samples.workers(7, WORKERS)[41]
    found = house.ask(snils=somebody["snils"])
    assert found["id"] == somebody["id"]
    house.http("register", "/faults", {"down": True})
    # An earlier process loaded this one: memcached has it.
    assert house.ask(id=somebody["id"])["family"] == somebody["family"]
    house.cache.kill()  # now nobody is there but the connector itself
    assert house.ask(snils=somebody["snils"])["family"] == somebody["family"]
    house.http("register", "/faults", {"down": False})
    house.http("register", "/drive", {"remove": [somebody["id"]]})
    wait_for(lambda: somebody["id"] not in house.workers(), "the removal")

    wish = json.dumps({"type": "worker.load.v1", "body": {"full": True}})
    house.run("send", "-", "--name", "admin", "--config", str(house.config), given=wish)
    wait_for(lambda: (house.folder / "rmr.log").read_text().count("начата") == 2, "the load")
    process = house.processes.pop("rmr")
    process.terminate()
    assert process.wait(PATIENCE_S) == 0
