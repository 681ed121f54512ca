"""A real router process on a folder of its own, for tests to start, kill, ask and stop."""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from proto import BlockingBusClient, BusClient, KeyPair
from proto.ops import OpsError, ops_request
from tests.until import wait_for

SMPBUS = str(Path(sys.executable).with_name("smpbus"))
LOOK_S = 0.05  # between two looks at whether something has come about


class RouterProcess:
    """`with RouterProcess(routes=..., permissions=...) as router:` starts one and waits for it.

    `permissions` and `routes` are TOML texts; every name in `peers` gets a key.
    """

    def __init__(
        self,
        *,
        peers: tuple[str, ...] = ("producer", "consumer"),
        routes: str = '[destinations.sink]\n[[routes]]\ntype = "test.*"\nto = ["sink"]\n',
        permissions: str = (
            '[peers.producer]\npublish = ["test.*"]\nask = ["sink"]\n'
            '[peers.consumer]\nconsume = ["sink"]\nserve = ["sink"]\n'
        ),
        bus: str = "",
        store: str = "free_bytes_min = 0",
        curve: bool = True,
        tcp: str = "tcp://127.0.0.1:*",
    ) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="smpbus-", dir="/tmp"))
        self.keys = self.folder / "keys"
        for name in ("router", *peers):
            KeyPair.new().save(self.keys, name)
        self.address = f"ipc://{self.folder}/bus.sock"
        self.ops = f"ipc://{self.folder}/ops.sock"
        self.events = f"ipc://{self.folder}/events.sock"
        self.config = self.folder / "smpbus.toml"
        self.config.write_text(
            f'[bus]\nlisten = ["{self.address}", "{tcp}"]\n'
            f'keys_dir = "keys"\nkey = "keys/router.key"\ncurve = {str(curve).lower()}\n{bus}\n'
            f'[ops]\nlisten = "{self.ops}"\nevents = "{self.events}"\nhttp = ""\n'
            f'[store]\nfolder = "data"\n{store}\n'
        )
        (self.folder / "routes.toml").write_text(routes)
        (self.folder / "permissions.toml").write_text(permissions)
        self.process: subprocess.Popen[bytes] | None = None
        self.log = self.folder / "router.log"

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None
    ) -> None:
        try:
            if self.process is not None and self.process.poll() is None:
                self.stop()
            if error is not None:
                print(self.log.read_text())
        finally:
            self.kill()
            shutil.rmtree(self.folder, ignore_errors=True)

    @property
    def pid(self) -> int:
        """The process id of the running router."""
        assert self.process is not None
        return self.process.pid

    def start(self, wait: bool = True) -> None:
        """Start the router; with `wait`, until it is at work."""
        environment = os.environ | {"SMPBUS_LANG": "ru"}
        with self.log.open("ab") as log:
            self.process = subprocess.Popen(
                [SMPBUS, "router", "--config", str(self.config)],
                stdout=log, stderr=log, env=environment,
            )  # fmt: skip
        if wait:
            self.wait_ready()

    def wait_ready(self, timeout_s: float = 30.0) -> None:
        """Wait until `status` says that it is at work."""
        assert self.process is not None
        ended = self.process.poll
        wait_for(lambda: self._is_ready() or ended() is not None, "the router", timeout_s)
        assert ended() is None, f"no router: {self.log.read_text()}"

    def _is_ready(self) -> bool:
        try:
            return bool(self.ask("status", timeout_s=0.5)["state"] == "running")
        except OpsError:
            return False

    def kill(self) -> None:
        """kill -9."""
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.process.wait(10)

    def stop(self) -> int:
        """SIGTERM; return the exit status."""
        assert self.process is not None
        self.process.send_signal(signal.SIGTERM)
        return self.process.wait(20)

    def ask(self, command: str, timeout_s: float = 5.0, **arguments: object) -> dict[str, Any]:
        """Ask the ops socket."""
        return ops_request(self.ops, command, timeout_s, **arguments)

    def tcp(self) -> str:
        """The address of the TCP listener."""
        listen: list[str] = self.ask("status")["listen"]
        return next(address for address in listen if address.startswith("tcp"))

    def client(self, name: str, **options: Any) -> BusClient:
        """An asyncio client with the key of `name`."""
        options.setdefault("key", self.keys / f"{name}.key")
        options.setdefault("server_key", self.keys / "router.pub")
        return BusClient(self.address, name=name, **options)

    def blocking(self, name: str, **options: Any) -> BlockingBusClient:
        """A blocking client with the key of `name`."""
        options.setdefault("key", self.keys / f"{name}.key")
        options.setdefault("server_key", self.keys / "router.pub")
        return BlockingBusClient(self.address, name=name, **options)

    def wait_until(self, command: str, done: Any, timeout_s: float = 20.0) -> dict[str, Any]:
        """Ask until `done(answer)`; return that answer.

        What is counted are the askings: a machine that stands still for a while takes none away.
        """
        for _ in range(round(timeout_s / LOOK_S)):
            answer = self.ask(command)
            if done(answer):
                return answer
            time.sleep(LOOK_S)
        raise AssertionError(f"still {answer}\n{self.log.read_text()}")
