"""A real memcached for tests to start, stop and kill; and a server that only says it is one."""

import contextlib
import os
import signal
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator
from urllib.parse import unquote

from tests.ports import free_port
from tests.until import wait_for

PATIENCE_S = 20.0


class Memcache:
    """One memcached process on a port of its own."""

    def __init__(self) -> None:
        self.port = free_port()
        self.server = f"127.0.0.1:{self.port}"
        self.process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Start it and wait until it answers."""
        user = ["-u", "nobody"] if os.getuid() == 0 else []
        command = ["memcached", "-l", "127.0.0.1", "-p", str(self.port), "-U", "0", *user]
        process = self.process = subprocess.Popen(command, stderr=subprocess.DEVNULL)
        wait_for(lambda: self._answers() or process.poll() is not None, "memcached")
        assert process.poll() is None, "memcached ended"

    def _answers(self) -> bool:
        with contextlib.suppress(OSError):
            return self.say(b"version\r\n").startswith(b"VERSION")
        return False

    def say(self, command: bytes) -> bytes:
        """Return what one command is answered, as far as it comes at once."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as wire:
            wire.sendall(command)
            return wire.recv(65536)

    def keys(self) -> list[str]:
        """Return every key it holds, as the dump has it: URL-encoded."""
        with socket.create_connection(("127.0.0.1", self.port), 5) as wire:
            wire.sendall(b"lru_crawler metadump all\r\n")
            told = b""
            while not told.endswith(b"END\r\n"):
                told += wire.recv(65536)
        lines = told.decode().splitlines()
        return [line.split()[0].removeprefix("key=") for line in lines if line.startswith("key=")]

    def values(self) -> list[bytes]:
        """Return what lies under its keys, as any local user would read it."""
        found = []
        for key in self.keys():
            answer = self.say(b"get " + unquote(key).encode() + b"\r\n")
            head, _, rest = answer.partition(b"\r\n")
            found.append(rest[: int(head.split()[3])])
        return found

    def signal(self, number: int) -> None:
        """SIGSTOP, SIGCONT ..."""
        assert self.process is not None
        self.process.send_signal(number)

    def kill(self) -> None:
        """kill -9, also of a stopped one."""
        if self.process is not None:
            self.process.send_signal(signal.SIGKILL)
            self.process.wait(PATIENCE_S)
            self.process = None


Answer = Callable[[bytes, Callable[[bytes], None]], None]


@contextlib.contextmanager
def liar(answer: Answer) -> Iterator[str]:
    """Serve `answer(request, send)` at every request; yields HOST:PORT."""
    listener = socket.create_server(("127.0.0.1", 0))
    wires: list[socket.socket] = []

    def talk(wire: socket.socket) -> None:
        with contextlib.suppress(OSError), wire:
            while request := wire.recv(65536):
                answer(request, wire.sendall)

    def serve() -> None:
        with contextlib.suppress(OSError):
            while True:
                wire, _ = listener.accept()
                wires.append(wire)
                threading.Thread(target=talk, args=(wire,), daemon=True).start()

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{listener.getsockname()[1]}"
    finally:
        for one in (listener, *wires):
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        thread.join(PATIENCE_S)
