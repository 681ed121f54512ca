"""A whole region on this machine: router, connectors, simulators and memcached, all real processes.

The folder, the settings and the programs are those of `smpbus demo`; added are the shared cache of
lookups, and a system of telematics with whoever shows the vehicles on a map.
"""

import asyncio
import base64
import json
import os
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

from connectors.simulators.demo.callers import token_of
from connectors.simulators.demo.folder import PARTNERS, DemoFolder, open_folder
from connectors.simulators.demo.readiness import wait_ready
from connectors.simulators.demo.screen import Screen
from connectors.simulators.demo.supervision import Supervisor, render
from proto.keys import KeyPair
from proto.ops import ops_request
from tests.integration.memcache import Memcache

ASKED = ("rmis", "tfoms", "rmr")  # who has cached questions
TELEMATICS, MAP = "telematics", "map"
READY_S = 90.0
ROUTES = f"""
# Where the vehicles are, for whoever shows them; an old place is of no use to anybody.
[destinations.{MAP}]
[[routes]]
type = "vehicle.position.v1"
source = "{TELEMATICS}"
to = ["{MAP}"]
"""
PERMISSIONS = f"""
[peers.{TELEMATICS}]
publish = ["vehicle.position.v1"]
[peers.{MAP}]
consume = ["{MAP}"]
"""


class Region:
    """All processes, in `path`; `pace_s` is the time between two steps of a simulated life."""

    def __init__(self, path: Path, pace_s: float) -> None:
        self.cache = Memcache()
        self.folder: DemoFolder = open_folder(path)
        self.folder.prepare()
        for name in (TELEMATICS, MAP):
            KeyPair.new().save(path / "keys", name)
        self._add("routes.toml", ROUTES)
        self._add("permissions.toml", PERMISSIONS)
        self._add("smpbus.toml", self._lookups())
        self._options = {name: self._simulator(name, pace_s) for name in PARTNERS}
        self._supervisor: Supervisor | None = None

    def start(self) -> None:
        """Start everything and wait until all answer."""
        self.cache.start()
        self._supervisor = Supervisor(self.folder, render(self.folder, self._options))
        asyncio.run(wait_ready(self.folder, Screen(), self._supervisor, READY_S))

    def stop(self) -> None:
        """Stop everything in order; the journal is at rest then."""
        if self._supervisor is not None:
            self._supervisor.stop()
            self._supervisor = None
        self.cache.kill()
        self.folder.close()

    def programs(self) -> dict[str, int]:
        """Return the pids by name: router, sys112, sim-sys112, ..., memcached."""
        found = {}
        if self._supervisor is not None:
            for pid in self._supervisor.children():
                words = Path(f"/proc/{pid}/cmdline").read_text().split("\0")
                at = next(i for i, word in enumerate(words) if word.endswith("/smpbus")) + 1
                verb, name = words[at], words[at + 1]
                prefix = {"connector": "", "sim": "sim-"}.get(verb)
                found[verb if prefix is None else prefix + name] = pid
        if self.cache.process is not None:
            found["memcached"] = self.cache.process.pid
        return found

    def status(self) -> dict[str, Any]:
        """Return what the router says of itself."""
        return ops_request(self.folder.ops, "status", 10.0)

    def ledger(self, system: str) -> Any:
        """Return what a simulator has applied; None while it does not answer."""
        return self._page(f"sim-{system}", "/ledger")

    def lookups(self) -> dict[str, dict[str, int]]:
        """Return the counters of lookups by kind, of all connectors that have any."""
        kinds: dict[str, dict[str, int]] = {}
        for name in ASKED:
            figures = self._page(name, "/figures") or {}
            for kind, counts in figures.get("lookup", {}).get("kinds", {}).items():
                kinds[f"{name} {kind}"] = counts
        return kinds

    @property
    def journal(self) -> Path:
        """The folder of the journal."""
        return self.folder.path / "store"

    def bus(self, name: str) -> tuple[str, Path, Path]:
        """Return the address, the key and the router's key for a peer of the region."""
        keys = self.folder.path / "keys"
        return f"ipc://{self.folder.run}/bus.sock", keys / f"{name}.key", keys / "router.pub"

    def _page(self, port: str, path: str) -> Any:
        request = Request(self.folder.url(port) + path)
        if (token := token_of(self.folder.path, port)).exists():
            request.add_header("Authorization", f"Bearer {token.read_text()}")
        try:
            with urlopen(request, timeout=30) as answer:
                return json.loads(answer.read())
        except URLError:
            return None

    def _add(self, name: str, words: str) -> None:
        with (self.folder.config / name).open("a", encoding="utf-8") as file:
            file.write(words)

    def _lookups(self) -> str:
        secret = self.folder.path / "keys" / "lookup.secret"
        secret.touch(mode=0o600)
        secret.write_bytes(base64.b64encode(os.urandom(32)))
        return "".join(
            f'\n[connectors.{name}.lookup]\nserver = "{self.cache.server}"\n'
            f'secret_file = "{secret}"\n'
            for name in ASKED
        )

    def _simulator(self, name: str, pace_s: float) -> str:
        connector = self.folder.ami if name == "ats" else self.folder.url(name)
        listen = self.folder.url(f"sim-{name}").removeprefix("http://")
        token = token_of(self.folder.path, name)
        proof = f" --token {token}" if token.exists() else ""
        return f"--listen {listen} --connector {connector} --pace {pace_s} --repeat 0.5{proof}"
