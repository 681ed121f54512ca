"""The blocking client, for scripts: no event loop, no threads.

    with BlockingBusClient("ipc:///run/smpbus/bus.sock", name="importer", ...) as bus:
        bus.publish(bus.message("incident.card.v1", card, subject="112-4711"))

It speaks only inside its calls, so a script that pauses longer than the router's session timeout
is simply greeted again at its next call.
"""

import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Self

import zmq

from proto import frames
from proto.client import LOST_AFTER_S, PING_AFTER_S, SOFTWARE, configure_dealer, encode_json
from proto.errors import BusError, Code, NotConnected, Refused, RequestFailed
from proto.keys import KeyPair, load_public
from proto.message import Message
from proto.peer import Completed, Disconnected, Peer


class BlockingBusClient:
    """A session on the bus whose calls block; every call takes its own time limit in seconds."""

    def __init__(
        self,
        address: str,
        *,
        name: str,
        key: KeyPair | Path | None = None,
        server_key: bytes | Path | None = None,
        timeout_s: float = 10.0,
    ) -> None:
        """`key` and `server_key` may be None only for a router that runs without CURVE."""
        self.address = address
        self.name = name
        self.timeout_s = timeout_s
        self._key = KeyPair.load(key) if isinstance(key, Path) else key
        self._server_key = load_public(server_key) if isinstance(server_key, Path) else server_key
        self._peer = Peer(name, SOFTWARE)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket: zmq.Socket[bytes] | None = None
        self._monitor: zmq.Socket[bytes] | None = None
        self._deliveries: deque[frames.DeliveredMessage] = deque()
        self._replies: dict[int, frames.Reply] = {}
        self._request_number = 0
        self._heard_at = 0.0

    def __enter__(self) -> Self:
        self._connect()
        try:
            self._pump_until(lambda: self._peer.welcome is not None, self.timeout_s)
        except BusError:
            self.close()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Say BYE and close."""
        if self._socket is not None:
            welcomed = self._peer.welcome is not None
            self._peer.bye("closed")
            self._send_outbox()
            self._disconnect(500 if welcomed else 0)
        self._context.term()

    def message(self, type: str, body: object = b"", **envelope: object) -> Message:
        """Make a message from this peer; see `Message.new` for the envelope's keywords."""
        return Message.new(type, self.name, body, **envelope)  # type: ignore[arg-type]

    def publish(self, message: Message) -> None:
        """Publish one message; returns when it is on the router's disk. Raises Refused."""
        if refused := self.publish_many([message])[0]:
            raise refused

    def publish_many(self, messages: Sequence[Message]) -> list[Refused | None]:
        """Publish several in one frame; returns for each None or why it was refused.

        Raises NotConnected after the time limit: what became of the messages is then not known,
        and a repeat under the same ids does no harm.
        """
        results: list[Refused | None] = []
        for start in range(0, len(messages), frames.BATCH_LENGTH_MAX):
            batch = self._peer.publish(messages[start : start + frames.BATCH_LENGTH_MAX])
            number = batch.number
            try:
                self._pump_until(lambda n=number: n not in self._peer.unaccepted, self.timeout_s)  # type: ignore[misc]
            except NotConnected:
                self._peer.unaccepted.pop(number, None)
                raise
            results += [batch.refused.get(index) for index in range(len(batch.messages))]
        return results

    def request(
        self, destination: str, message: Message, *, timeout_s: float = 5.0
    ) -> frames.Reply:
        """Ask whoever serves `destination`. Raises RequestFailed with the code and a sentence."""
        self._request_number += 1
        number = self._request_number
        self._peer.request(frames.Request(number, destination, int(timeout_s * 1000), message))
        try:
            self._pump_until(lambda: number in self._replies, timeout_s + 1.0)
        except NotConnected:
            raise RequestFailed(Code.TIMEOUT, f"no answer in {timeout_s:g} s") from None
        reply = self._replies.pop(number)
        if reply.code:
            raise RequestFailed(reply.code, reply.sentence)
        return reply

    def consume(
        self, destination: str, *, credit: int = 16, timeout_s: float | None = None
    ) -> Iterator[frames.DeliveredMessage]:
        """Yield deliveries; settle each with `ack`, `retry` or `reject`.

        Ends when nothing has come for `timeout_s` seconds; None waits for ever.
        """
        self._peer.credit(destination, credit)
        while True:
            if not self._deliveries:
                try:
                    self._pump_until(lambda: bool(self._deliveries), timeout_s)
                except NotConnected:
                    self._peer.withdraw(destination)
                    self._send_outbox()
                    return
            yield self._deliveries.popleft()

    def ack(self, delivery: frames.DeliveredMessage, note: str | None = None) -> None:
        """Settle: done; `note` is shown by `smpbus trace`."""
        self._settle(frames.ACK, delivery, None, note)

    def retry(
        self, delivery: frames.DeliveredMessage, reason: str, after_s: float | None = None
    ) -> None:
        """Settle: not now; again after `after_s` seconds or by the destination's policy."""
        after_ms = None if after_s is None else int(after_s * 1000)
        self._settle(frames.RETRY, delivery, after_ms, reason[:300])

    def reject(self, delivery: frames.DeliveredMessage, reason: str) -> None:
        """Settle: never; the message becomes a dead letter."""
        self._settle(frames.REJECT, delivery, None, reason[:300])

    def report(self, report: object) -> None:
        """Tell operators how this process is: a `proto.report.PeerReport`, or JSON of its shape as
        bytes. The newest replaces the one before. Raises ValueError when too long."""
        self._peer.report(report if isinstance(report, bytes) else encode_json(report))
        self._send_outbox()

    def _settle(
        self, outcome: int, of: frames.DeliveredMessage, after_ms: int | None, note: str | None
    ) -> None:
        settlement = frames.Settlement(of.delivery, outcome, after_ms, note, of.generation)
        self._peer.settle([settlement])
        self._send_outbox()

    def _connect(self) -> None:
        self._disconnect(0)
        self._deliveries.clear()
        self._socket = self._context.socket(zmq.DEALER)
        configure_dealer(self._socket, self._key, self._server_key)
        self._monitor = self._socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_AUTH)
        self._socket.connect(self.address)
        self._heard_at = time.monotonic()
        self._peer.greet()

    def _disconnect(self, linger_ms: int) -> None:
        if self._socket is not None:
            self._socket.disable_monitor()
            self._socket.close(linger_ms)
            self._socket = None
        if self._monitor is not None:
            self._monitor.close(0)  # disable_monitor leaves it open, and term() would wait for it
            self._monitor = None

    def _send_outbox(self) -> None:
        if self._socket is not None:
            for parts in self._peer.take_outbox():
                self._socket.send_multipart(parts)

    def _pump_until(self, done: Callable[[], bool], timeout_s: float | None) -> None:
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            self._send_outbox()
            if self._peer.fatal:
                raise self._peer.fatal
            if done():
                return
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                raise NotConnected(
                    f"no answer from the router at {self.address} in {timeout_s:g} s"
                )
            self._read(min(0.1, deadline - now) if deadline is not None else 0.1)
            self._keep_alive()

    def _read(self, wait_s: float) -> None:
        socket = self._socket
        if socket is None:
            raise NotConnected("this client is closed")
        if not socket.poll(int(wait_s * 1000) + 1):
            return
        self._heard_at = time.monotonic()
        for event in self._peer.receive(socket.recv_multipart()):
            match event:
                case Disconnected():
                    self._connect()
                case frames.Deliver(_, deliveries):
                    self._deliveries.extend(deliveries)
                case frames.Reply():
                    self._replies[event.request] = event
                case Completed() | frames.Welcome() | frames.Error() | frames.Request():
                    pass

    def _keep_alive(self) -> None:
        if self._monitor is not None and self._monitor.poll(0):
            reason = "the router does not know this key, or it was revoked"
            self._peer.fatal = BusError(Code.UNKNOWN_NAME, reason)
            return
        silent_s = time.monotonic() - self._heard_at
        if silent_s >= LOST_AFTER_S:
            self._connect()
        elif silent_s >= PING_AFTER_S and self._peer.welcome is not None:
            self._peer.ping()
