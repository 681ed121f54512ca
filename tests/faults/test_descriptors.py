"""Descriptors: whoever opens connections without end is shut out, and the process goes on."""

import contextlib
import socket as posix
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.integration.bus import RouterProcess
from tests.ports import free_ports

FEW_FILES = 4096
STORM = 5200


class FewFiles(RouterProcess):
    """A router that may open few files, and no more."""

    def start(self, wait: bool = True) -> None:
        """See RouterProcess."""
        import resource

        own = resource.getrlimit(resource.RLIMIT_NOFILE)
        super().start(wait=False)
        resource.prlimit(self.pid, resource.RLIMIT_NOFILE, (FEW_FILES, FEW_FILES))
        assert resource.getrlimit(resource.RLIMIT_NOFILE) == own
        if wait:
            self.wait_ready()


@contextlib.contextmanager
def storm(connect: Callable[[], posix.socket], count: int) -> Iterator[list[posix.socket]]:
    """Open `count` connections, as many as go, and hold them."""
    held: list[posix.socket] = []
    try:
        for _ in range(count):
            with contextlib.suppress(OSError):
                held.append(connect())
        yield held
    finally:
        for one in held:
            one.close()


def to_tcp(address: str) -> Callable[[], posix.socket]:
    host, _, port = address.removeprefix("tcp://").rpartition(":")
    return lambda: posix.create_connection((host, int(port)), 2)


def to_ipc(address: str) -> Callable[[], posix.socket]:
    def connect() -> posix.socket:
        one = posix.socket(posix.AF_UNIX)
        try:
            one.settimeout(2)
            one.connect(address.removeprefix("ipc://"))
        except OSError:
            one.close()
            raise
        return one

    return connect


def publish_one(router: RouterProcess) -> None:
    with router.blocking("producer") as bus:
        bus.publish(bus.message("test.message.v1", b"1", subject="call"))


@pytest.mark.fault("A16")
@pytest.mark.fault("D4")
@pytest.mark.parametrize("door", ["tcp", "ipc", "ops", "events"])
def test_a_storm_of_strangers_ends_nothing(door: str) -> None:
    """A stranger without a key took all descriptors and the router ended; now strangers are shut
    out, the oldest first, and a peer with a key is served meanwhile."""
    with FewFiles() as router:
        address = {
            "tcp": router.tcp(), "ipc": router.address, "ops": router.ops, "events": router.events
        }[door]  # fmt: skip
        connect = to_tcp(address) if door == "tcp" else to_ipc(address)
        with storm(connect, STORM):
            publish_one(router)
            assert router.process is not None
            assert router.process.poll() is None
            if door in ("tcp", "ipc"):
                bounds = router.ask("status")["bounds"]
                assert bounds["connections"] <= bounds["connections_max"] < FEW_FILES
                assert bounds["connections_shut"] > 0
        publish_one(router)
        assert router.stop() == 0
        assert "Traceback" not in router.log.read_text()


@pytest.mark.fault("D4")
def test_unfinished_requests_on_the_pages_are_bounded() -> None:
    """Unfinished GETs held descriptors for ever; now they are few, and the patience with each is
    short."""
    (port,) = free_ports(1)
    with FewFiles() as router:
        router.stop()
        text = router.config.read_text().replace('http = ""', f'http = "127.0.0.1:{port}"')
        router.config.write_text(text)
        router.start()

        def connect() -> posix.socket:
            one = posix.create_connection(("127.0.0.1", port), 2)
            with contextlib.suppress(OSError):
                one.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\n")
            return one

        with storm(connect, STORM):
            publish_one(router)
            assert router.process is not None
            assert router.process.poll() is None
            deadline = time.monotonic() + 20
            while not _is_alive(port):
                assert time.monotonic() < deadline, "the page does not come back"
        assert router.stop() == 0


def _is_alive(port: int) -> bool:
    with contextlib.suppress(OSError), posix.create_connection(("127.0.0.1", port), 2) as one:
        one.sendall(b"GET /livez HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        return one.recv(100).startswith(b"HTTP/1.1 200")
    return False


@pytest.mark.fault("D4")
def test_the_limit_of_open_files_is_raised_and_shown() -> None:
    """The soft limit of 1,024 was left as it was; it is raised as far as it may be."""
    import resource

    hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    with RouterProcess() as router:
        assert router.ask("status")["bounds"]["descriptors_max"] == hard
        found = Path(f"/proc/{router.pid}/limits").read_text()
        line = next(line for line in found.splitlines() if line.startswith("Max open files"))
        assert line.split()[3] == line.split()[4] == str(hard)
