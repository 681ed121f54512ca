"""The town under siege: a router and real connectors with few descriptors, the partners' simulators
behind a proxy that can turn evil, a good peer and a good caller, each a process of its own."""

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, Final
from urllib.error import URLError
from urllib.request import urlopen

from connectors.runtime.door.token import digest_of, new_token
from connectors.simulators.demo.callers import make_callers, token_of
from connectors.simulators.demo.signing import make_signer
from proto.keys import KeyPair
from proto.ops import OpsError, ops_request
from tests.integration.house import (
    BREAKER,
    CALLED,
    DOCUMENTS,
    FEDERAL_SETTINGS,
    ROOT,
    SETTINGS,
    SMPBUS,
)
from tests.ports import free_ports
from tests.until import wait_for

NOFILE: Final = 512  # of the router and of each connector
LOG_PIECE: Final = 65536
ALL: Final = ("sys112", "smp", "rmis", "external", "remd", "vimis")
PEERS: Final = ("good", "villain", "norights", "admin")
PEERS_RIGHTS: Final = """
[peers.good]
publish = ["siege.*"]
consume = ["siege"]
[peers.villain]
publish = ["trap.*", "bulk.*", "grave.*"]
consume = ["trap", "grave"]
ask = ["trap"]
serve = ["trap"]
[peers.norights]
"""
# The villain's own queue lets what nobody takes expire; his bulk shares the queue "shelf" with the
# good peer's emergencies; "grave" makes dead letters.
OWN_ROUTES: Final = """
[destinations.siege]
[destinations.trap]
open_max = 3000
[destinations.shelf]
open_max = 4000
[destinations.grave]
backoff = { attempts_max = 1 }
[[routes]]
type = "siege.call.v1"
to = ["siege"]
[[routes]]
type = "siege.shelved.v1"
to = ["siege", "shelf"]
[[routes]]
type = "trap.*"
to = ["trap"]
[[routes]]
type = "bulk.*"
to = ["shelf"]
[[routes]]
type = "grave.*"
to = ["grave"]
"""
EXTERNAL: Final = """
[connectors.external]
listen = "127.0.0.1:{external_door}"
state_file = "{folder}/external.db"
[connectors.external.clients.platform]
token_file = "platform.token"
requests_per_minute = 60000
"""


class LogReader:
    """Reads what a process writes into its log file; `stands_still` is what the name says."""

    def __init__(self, stream: Any, file: Path) -> None:
        self.stands_still = threading.Event()
        self._stream = stream
        self._file = file
        self._thread = threading.Thread(target=self._read, daemon=True)
        self._thread.start()

    def _read(self) -> None:
        with self._file.open("ab") as kept:
            while piece := os.read(self._stream.fileno(), LOG_PIECE):
                kept.write(piece)
                kept.flush()
                while self.stands_still.is_set():
                    time.sleep(0.05)

    def end(self) -> None:
        """Read to the end; the process has to be gone."""
        self.stands_still.clear()
        self._thread.join(10)
        self._stream.close()


class Town:
    """All processes in one folder; `connectors` are those that are wanted, of ALL."""

    def __init__(self, connectors: tuple[str, ...]) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="smpbus-", dir="/tmp"))
        self.connectors = connectors
        names = [f"{name}{end}" for name in (*ALL, "tfoms") for end in ("", "_door", "_evil")]
        names += ["ami", "bus", "page"]
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.config = self.folder / "smpbus.toml"
        self.ops_address = f"ipc://{self.folder}/ops.sock"
        self.processes: dict[str, subprocess.Popen[bytes]] = {}
        self._started: dict[str, tuple[list[str], int, int]] = {}
        self.readers: dict[str, LogReader] = {}
        self._configure()

    # -- files ----------------------------------------------------------------------------------

    def _configure(self) -> None:
        self.store_bytes_min(256 << 20)
        for name in ("routes.toml", "permissions.toml"):
            shutil.copy(ROOT / "config" / name, self.folder / name)
        routes = self.folder / "routes.toml"
        text = routes.read_text(encoding="utf-8").replace(", longest_ms = 60000", "")
        quick = text.replace("1000000 }", "1000000, first_ms = 100, longest_ms = 500 }")
        routes.write_text(quick + OWN_ROUTES, encoding="utf-8")
        with (self.folder / "permissions.toml").open("a", encoding="utf-8") as permissions:
            permissions.write(PEERS_RIGHTS)
        for name in ("router", *self.connectors, *PEERS):
            KeyPair.new().save(self.folder / "keys", name)
        token = new_token()
        (self.folder / "platform.token").write_text(digest_of(token) + "\n", encoding="ascii")
        make_signer(self.folder / "keys")
        told = {"folder": str(self.folder), "ports": self.ports, "token": token,
                "connectors": self.connectors}  # fmt: skip
        (self.folder / "siege.json").write_text(json.dumps(told), encoding="utf-8")

    def store_bytes_min(self, bytes_min: int) -> None:
        """Write smpbus.toml with this much room to be left free on the disk."""
        # Where a connector looks for its partner, the proxy is.
        partners = {name: self.ports[f"{name}_evil"] for name in ALL}
        ports = self.ports | partners
        told = SETTINGS.format(folder=self.folder, **ports)
        documents = {
            f"{name}_documents": DOCUMENTS.format(
                name=name, path=path, port=ports[name], folder=self.folder, breaker=BREAKER
            )
            for name, path in (("remd", "emdr"), ("vimis", "receiver"))
        }
        told += FEDERAL_SETTINGS.format(breaker=BREAKER, folder=self.folder, **documents, **ports)
        told += EXTERNAL.format(folder=self.folder, **ports)
        told += make_callers(self.folder, CALLED)
        bus = f'"ipc://{self.folder}/bus.sock"'
        told = told.replace(f"[{bus}]", f'[{bus}, "tcp://127.0.0.1:{self.ports["bus"]}"]')
        told = told.replace('http = ""', f'http = "127.0.0.1:{self.ports["page"]}"')
        told = told.replace("[store]\n", f"[store]\nfree_bytes_min = {bytes_min}\n")
        self.config.write_text(told, encoding="utf-8")

    # -- processes ------------------------------------------------------------------------------

    def start(self, name: str, command: list[str], *, nice: int = 0, nofile: int = 0) -> None:
        """Start a process whose lines go through a LogReader."""

        def prepare() -> None:
            if nice:
                os.nice(nice)
            if nofile:
                resource.setrlimit(resource.RLIMIT_NOFILE, (nofile, nofile))

        self._started[name] = (command, nice, nofile)
        process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, cwd=ROOT, preexec_fn=prepare
        )
        self.processes[name] = process
        self.readers[name] = LogReader(process.stdout, self.folder / f"{name}.log")

    def start_again(self, name: str) -> None:
        """Start anew what has ended, as a supervisor does, so that the siege goes on."""
        command, nice, nofile = self._started[name]
        self.end(name)
        self.start(name, command, nice=nice, nofile=nofile)
        if name == "router":
            soon(lambda: self.queue("siege"), 30.0)

    def start_all(self) -> None:
        """Start everything but attackers, and wait until it is at work."""
        config = ["--config", str(self.config)]
        self.start("router", [str(SMPBUS), "router", *config], nofile=NOFILE)
        self.start_module("evil", nice=5)
        for name in self.connectors:
            self.start(name, [str(SMPBUS), "connector", name, *config], nofile=NOFILE)
            if name != "external":
                self.start(f"sim-{name}", [str(SMPBUS), *self._simulator(name)], nice=5)
        wait_for(lambda: self.sessions() >= len(self.connectors), "all sessions")
        for name in self.connectors:
            if name != "external":
                wait_for(lambda name=name: self.ledger(name) is not None, f"sim-{name}")  # type: ignore[misc]
        self.start_module("good")
        if "sys112" in self.connectors:
            self.start_module("caller", nice=1)

    def start_module(self, module: str, *arguments: str, name: str = "", nice: int = 0) -> str:
        """Start a module of this package; it is given the folder first."""
        name = name or module
        command = [sys.executable, "-m", f"tests.siege.{module}", str(self.folder), *arguments]
        self.start(name, command, nice=nice)
        return name

    def _simulator(self, name: str) -> list[str]:
        here = f"127.0.0.1:{self.ports[name]}"
        door = f"http://127.0.0.1:{self.ports[f'{name}_door']}"
        kept = str(self.folder / f"{name}.sim")
        pace = ["--pace", "0.3", "--repeat", "0.5", "--ledger", kept]
        if (token := token_of(self.folder, name)).exists():
            pace += ["--token", str(token)]
        return ["sim", name, "--listen", here, "--connector", door, *pace]

    def end(self, name: str, timeout_s: float = 20.0) -> int | None:
        """SIGTERM; return the exit status, None when it had to be killed."""
        process = self.processes.pop(name)
        code: int | None = None
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
        try:
            code = process.wait(timeout_s)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
        self.readers.pop(name).end()
        return code

    def close(self, *, keep: bool = False) -> None:
        """End everything; `keep` leaves the folder."""
        for process in self.processes.values():
            process.kill()
        for name in list(self.processes):
            self.end(name)
        if not keep:
            shutil.rmtree(self.folder, ignore_errors=True)

    # -- asking ---------------------------------------------------------------------------------

    def ops(self, command: str, timeout_s: float = 5.0, **fields: Any) -> dict[str, Any]:
        """Ask the router. Raises OpsError."""
        return ops_request(self.ops_address, command, timeout_s, **fields)

    def sessions(self) -> int:
        """Return how many sessions there are; -1 when nobody answers. Raises AssertionError when a
        process has ended."""
        for name, process in self.processes.items():
            if process.poll() is not None:
                raise AssertionError(f"{name} has ended: {self.log(name)[-1000:]}")
        with contextlib.suppress(OpsError):
            status = self.ops("status")
            return int(status["sessions"]) if status["state"] == "running" else -1
        return -1

    def queue(self, name: str) -> dict[str, Any]:
        """Return the row of a destination; {} when nobody answers."""
        with contextlib.suppress(OpsError):
            rows = self.ops("status")["queues"]
            return next((row for row in rows if row["destination"] == name), {})
        return {}

    def ledger(self, system: str) -> Any:
        """Return what a simulator tells of itself, None when it does not answer."""
        try:
            with urlopen(f"http://127.0.0.1:{self.ports[system]}/ledger", timeout=10) as answer:
                return json.loads(answer.read())
        except (URLError, OSError):
            return None

    def log(self, name: str) -> str:
        """Return what a process has written."""
        file = self.folder / f"{name}.log"
        return file.read_text(encoding="utf-8", errors="replace") if file.exists() else ""


def soon(done: Callable[[], Any], timeout_s: float) -> bool:
    """Return whether `done` becomes true within the time."""
    deadline = time.monotonic() + timeout_s
    while not done():
        if time.monotonic() > deadline:
            return False
        time.sleep(0.1)
    return True
