"""The ops socket: JSON in, JSON out, for operators, scripts and the console.

Request `{"command": "status", ...}`; answer `{"ok": true, "result": {...}}` or
`{"ok": false, "code": "...", "sentence": "..."}`. The file mode of its ipc path says who may
connect, `router.shell.operators` what he may ask for.
A live view subscribes to the events socket: frames `[topic, JSON]`, dropped when nobody listens.
"""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any, Final

import msgspec
import zmq

from proto.drain import DrainedSocket
from proto.message import UNREADABLE
from proto.nesting import decode_json
from router.shell.pace import Pace

REQUEST_BYTES_MAX: Final = 1024 * 1024
BURST_MAX: Final = 16
OPEN_MAX: Final = 32  # questions of all operators that are taken up at once
COST_MAX_S: Final = 0.005

Command = Callable[[dict[str, Any]], Awaitable[dict[str, Any]]]
Admit = Callable[[str, zmq.Frame], Awaitable[object]]


class OpsError(Exception):
    """A command that cannot be carried out: a code for programs, a sentence for people."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence


class OpsServer:
    """Answers commands on its own ROUTER socket; a slow command does not hold up the others."""

    def __init__(
        self, socket: "zmq.Socket[bytes]", commands: dict[str, Command], admit: Admit
    ) -> None:
        """`admit` says who asks for a command by a frame, or raises OpsError."""
        self._socket = socket
        self._commands = commands
        self._admit = admit
        self._tasks: set[asyncio.Task[None]] = set()
        self._pace = Pace()
        self._wire = DrainedSocket(socket, self._read_burst)

    def close(self) -> None:
        """Stop answering."""
        for task in self._tasks:
            task.cancel()
        self._wire.close()

    def _read_burst(self) -> bool:
        for _ in range(BURST_MAX):
            if len(self._tasks) >= OPEN_MAX:
                self._wire.pause()  # whoever asks more waits in the queue of his own connection
                return False
            try:
                parts = self._socket.recv_multipart(zmq.DONTWAIT, copy=False)
            except zmq.Again:
                return False
            task = asyncio.get_running_loop().create_task(self._serve(parts))
            self._tasks.add(task)
            task.add_done_callback(self._served)
        return True

    def _served(self, task: "asyncio.Task[None]") -> None:
        self._tasks.discard(task)
        self._wire.resume()

    async def _serve(self, parts: list[zmq.Frame]) -> None:
        # A REQ peer puts an empty frame before its question, and expects it back.
        address, question = [part.bytes for part in parts[:-1]], parts[-1]
        await self._pace.turn()
        began = time.thread_time()
        answer = await self._answer(question)
        # What the loop did for others while the store was asked is not this question's.
        self._pace.took(min(time.thread_time() - began, COST_MAX_S))
        try:
            self._socket.send_multipart([*address, msgspec.json.encode(answer)], zmq.DONTWAIT)
        except zmq.ZMQError:
            return  # whoever asked is gone
        self._wire.check()

    async def _answer(self, question: zmq.Frame) -> dict[str, Any]:
        try:
            request = decode_json(question.bytes, dict[str, Any])
            name = str(request.get("command"))
            command = self._commands.get(name)
            await self._admit(name if command is not None else "", question)
            if command is None:
                known = ", ".join(sorted(self._commands))
                raise OpsError("unknown_command", f"no such command; there are: {known}")
            return {"ok": True, "result": await command(request)}
        except UNREADABLE:
            return {"ok": False, "code": "bad_request", "sentence": "not a JSON object"}
        except OpsError as error:
            return {"ok": False, "code": error.code, "sentence": error.sentence}
        except Exception as error:  # the operator must hear of it; its text may quote a body
            return {"ok": False, "code": "failed", "sentence": type(error).__name__}


class EventSocket:
    """A PUB of events. `on_word` is called when somebody says anything, as who subscribes does:
    who is there is known by the connections, since words can be anything."""

    def __init__(self, socket: "zmq.Socket[bytes]", on_word: Callable[[], None]) -> None:
        self._socket = socket
        self._on_word = on_word
        self._wire = DrainedSocket(socket, self._read_burst)

    def publish(self, topic: str, event: dict[str, object]) -> None:
        """Send an event to whoever has subscribed to its topic; never blocks."""
        self._socket.send_multipart([topic.encode(), msgspec.json.encode(event)], zmq.DONTWAIT)

    def check(self) -> None:
        """Call after a run of events."""
        self._wire.check()

    def close(self) -> None:
        """Stop publishing."""
        self._wire.close()

    def _read_burst(self) -> bool:
        while True:
            try:
                self._socket.recv_multipart(zmq.DONTWAIT)
            except zmq.Again:
                return False
            self._on_word()
