"""A real router on a journal of its own, and peers beside it, to be measured."""

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from proto.keys import KeyPair
from proto.ops import OpsError, ops_request
from tests.bench import machine


class BenchRouter:
    """A router in `folder`, on whatever journal is there."""

    def __init__(self, folder: Path, transport: str = "ipc", curve: bool = True) -> None:
        self.folder = folder
        self.keys = folder / "keys" if curve else None
        for name in ("router", "producer", "consumer"):
            KeyPair.new().save(folder / "keys", name)
        address = {"ipc": f"ipc://{folder}/bus.sock", "tcp": "tcp://127.0.0.1:*"}[transport]
        self.ops = f"ipc://{folder}/ops.sock"
        config = (
            f'[bus]\nlisten = ["{address}"]\ncurve = {str(curve).lower()}\nkeys_dir = "keys"\n'
            f'key = "keys/router.key"\n[ops]\nlisten = "{self.ops}"\n'
            f'events = "ipc://{folder}/events.sock"\nhttp = ""\n'
            f'[store]\nfolder = "data"\nfree_bytes_min = 0\n[log]\nlevel = "error"\n'
        )
        (folder / "smpbus.toml").write_text(config)
        (folder / "routes.toml").write_text(
            "[destinations.sink]\nopen_max = 10000000\n[destinations.dead]\n"
            '[[routes]]\ntype = "bench.*"\nto = ["sink"]\n'
            '[[routes]]\ntype = "dead.*"\nto = ["dead"]\n'
        )
        (folder / "permissions.toml").write_text(
            '[peers.producer]\npublish = ["bench.*", "dead.*"]\n[peers.consumer]\nconsume = ["*"]\n'
        )
        command = [str(Path(sys.executable).with_name("smpbus")), "router"]
        command += ["--config", str(folder / "smpbus.toml")]
        self._command = command
        self.start()

    def start(self) -> float:
        """Start the router; returns after how many seconds it answered `status`."""
        began = time.monotonic()
        self.process = subprocess.Popen(self._command)
        self._wait(lambda status: True)
        answers_s = time.monotonic() - began
        self.address = str(self._wait(lambda status: status["state"] == "running")["listen"][0])
        return answers_s

    def _wait(self, done: Callable[[dict[str, Any]], bool]) -> dict[str, Any]:
        for _ in range(1000):
            try:
                if done(status := self.status(1.0)):
                    return status
            except OpsError:
                if self.process.poll() is not None:
                    raise
            time.sleep(0.02)
        raise TimeoutError("the router did not start in 20 s")

    def status(self, timeout_s: float = 5.0) -> dict[str, Any]:
        """Ask the router for its status."""
        status: dict[str, Any] = ops_request(self.ops, "status", timeout_s)
        return status

    def cpu_s(self) -> float:
        """Return how much processor time the router has used."""
        return machine.cpu_s(self.process.pid)

    def memory_mb(self, field: str) -> float:
        """Return a line of /proc/PID/status (VmRSS, VmHWM) in MB."""
        return machine.memory_mb(self.process.pid, field)

    def peer(self, role: str, **plan: float) -> "subprocess.Popen[str]":
        """Start a process of tests.bench.peers; a consumer says "ready" first."""
        command = [sys.executable, "-m", "tests.bench.peers", role, self.address]
        command += [str(self.keys or ""), json.dumps(plan)]
        return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)

    def stop(self) -> None:
        """Stop the router."""
        self.process.terminate()
        self.process.wait(60)

    def kill(self) -> None:
        """End it as a power loss of its process would: kill -9."""
        self.process.kill()
        self.process.wait()


def result_of(peer: "subprocess.Popen[str]", timeout_s: float = 300) -> dict[str, float]:
    """Wait for a peer's end and return what it measured."""
    out, _ = peer.communicate(timeout=timeout_s)
    if peer.returncode:
        raise SystemExit(f"a benchmark peer ended with {peer.returncode}")
    result: dict[str, float] = json.loads(out.splitlines()[-1])
    return result
