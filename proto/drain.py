"""One ZeroMQ socket on an asyncio loop: read in bounded bursts, straight from its descriptor.

libzmq's descriptor is edge-triggered: it says that something changed, once. So after every read
and every write the socket's EVENTS must be looked at again before sleeping, or the loop hangs on
data that has already arrived. `zmq.asyncio` does this with a future per message; draining in
bursts costs about two thirds of that and keeps the order of work in our hands.
"""

import asyncio
from collections.abc import Callable, Sequence

import zmq

BURST_MAX = 64
COPIED_MAX = 16 * 1024
# Plain numbers: pyzmq's enums cost a microsecond at each use.
DONTWAIT = int(zmq.DONTWAIT)
_MORE = int(zmq.SNDMORE) | DONTWAIT
_EVENTS = int(zmq.EVENTS)
_POLLIN = int(zmq.POLLIN)


def send_parts(socket: "zmq.Socket[bytes]", parts: Sequence[bytes]) -> None:
    """Send one message without waiting, as `send_multipart` does, which looks at each part first
    and adds up enums. Raises zmq.ZMQError."""
    send = socket.send
    for part in parts[:-1]:
        send(part, _MORE)
    send(parts[-1], DONTWAIT)


def receive_frames(socket: "zmq.Socket[bytes]") -> list[zmq.Frame]:
    """Receive one message without waiting, as frames, which know whether more follow: to ask the
    socket costs as much as to receive. Raises zmq.Again."""
    receive = socket.recv
    frame = receive(DONTWAIT, False)
    frames = [frame]
    while frame.more:
        frame = receive(DONTWAIT, False)
        frames.append(frame)
    return frames


def contents(frame: zmq.Frame) -> bytes:
    """Return what is in a frame: a copy, or of a long one its buffer, which is to be decoded."""
    return frame.bytes if len(frame) < COPIED_MAX else frame.buffer  # type: ignore[return-value]


class DrainedSocket:
    """Calls `on_burst` when something may be received."""

    def __init__(self, socket: "zmq.Socket[bytes]", on_burst: Callable[[], bool]) -> None:
        """`on_burst` reads up to a burst of messages and returns whether more may wait."""
        self.socket = socket
        self._on_burst = on_burst
        self._loop = asyncio.get_running_loop()
        self._scheduled = False
        self._closed = False
        self._paused = False
        self._descriptor = int(socket.getsockopt(zmq.FD))
        self._loop.add_reader(self._descriptor, self._drain)
        self.check()

    def check(self) -> None:
        """Look at EVENTS and drain on the next turn of the loop; call after each send."""
        if self._scheduled or self._closed or self._paused:
            return
        if self.has_more():
            self._scheduled = True
            self._loop.call_soon(self._resume)

    def wake(self) -> None:
        """Drain on the next turn of the loop, whatever there is to receive."""
        if not (self._scheduled or self._closed or self._paused):
            self._scheduled = True
            self._loop.call_soon(self._resume)

    def has_more(self) -> bool:
        """Whether a message can be received: to be told so by zmq.Again is four times as dear."""
        return bool(int(self.socket.getsockopt(_EVENTS)) & _POLLIN)

    def _resume(self) -> None:
        self._scheduled = False
        if not self._closed and not self._paused:
            self._drain()

    def pause(self) -> None:
        """Read no more until `resume`; the descriptor would stay readable and spin the loop."""
        if not self._paused:
            self._paused = True
            self._loop.remove_reader(self._descriptor)

    def resume(self) -> None:
        """Read again."""
        if self._paused and not self._closed:
            self._paused = False
            self._loop.add_reader(self._descriptor, self._drain)
            self.check()

    def _drain(self) -> None:
        if self._on_burst() and not (self._closed or self._paused or self._scheduled):
            self._scheduled = True
            self._loop.call_soon(self._resume)

    def close(self) -> None:
        """Stop reading and close the socket; what is unsent is given `linger` to leave."""
        if not self._closed:
            self._closed = True
            self._loop.remove_reader(self._descriptor)
            self.socket.close()
