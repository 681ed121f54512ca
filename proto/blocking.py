"""The blocking client, for scripts: no event loop, no threads.

    with BlockingBusClient("ipc:///run/smpbus/bus.sock", name="importer", ...) as bus:
        bus.publish(bus.message("incident.card.v1", card, subject="112-4711"))

It speaks only inside its calls, so a script that pauses longer than the router's session timeout
is simply greeted again at its next call.
"""

import contextlib
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Self

import zmq

from . import attempts, frames
from .dealer import (
    BYE_MS,
    GRANT_AFTER_S,
    GRANT_LONGEST_S,
    LOST_AFTER_S,
    PING_AFTER_S,
    SOFTWARE,
    check_name,
    check_question,
    configure_dealer,
    encode_json,
    tell_error,
    tell_granting,
)
from .drain import DONTWAIT
from .errors import BusError, Code, NotConnected, Refused, RequestFailed
from .keys import KeyFileError, KeyPair, load_public
from .message import Message
from .peer import Disconnected, Granting, Peer
from .wording import text


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
        self._server_key_file = server_key if isinstance(server_key, Path) else None
        self._server_key = load_public(server_key) if isinstance(server_key, Path) else server_key
        self._peer = Peer(name, SOFTWARE)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket: zmq.Socket[bytes] | None = None
        self._monitor: zmq.Socket[bytes] | None = None
        self._deliveries: deque[frames.DeliveredMessage] = deque()
        self._replies: dict[int, frames.Reply] = {}
        self._request_number = 0
        self._asking: int | None = None  # the question that waits for its answer
        self._heard_at = 0.0
        self._pauses = attempts.Pauses()
        self._connect_at: float | None = None
        self._grant_s, self._grant_at = GRANT_AFTER_S, 0.0
        self.trouble = ""  # why no session comes about, where more is known than silence

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
            self._disconnect(BYE_MS if welcomed else 0)
        self._context.term()

    def message(self, type: str, body: object = b"", **envelope: object) -> Message:
        """Make a message from this peer; see `Message.new` for the envelope's keywords."""
        return Message.new(type, self.name, body, **envelope)  # type: ignore[arg-type]

    def publish(self, message: Message) -> None:
        """Publish one message; returns when it is on the router's disk. Raises Refused."""
        if refused := self.publish_many([message])[0]:
            raise refused

    def publish_many(self, messages: Sequence[Message]) -> list[Refused | None]:
        """Publish several in as few frames as they fit in; returns for each None or why it was
        refused. One that no frame can hold is refused (`body_too_large`), and the others go.

        Raises NotConnected after the time limit: what became of the messages is then not known,
        and a repeat under the same ids does no harm.
        """
        results: list[Refused | None] = []
        for start in range(0, len(messages), frames.BATCH_LENGTH_MAX):
            batch = self._peer.publish(messages[start : start + frames.BATCH_LENGTH_MAX])
            try:
                self._pump_until(lambda one=batch: one.done, self.timeout_s)  # type: ignore[misc]
            except NotConnected:
                self._peer.forget(batch)
                raise
            results += [batch.refused.get(index) for index in range(len(batch.messages))]
        return results

    def request(
        self, destination: str, message: Message, *, timeout_s: float = 5.0
    ) -> frames.Reply:
        """Ask whoever serves `destination`; `timeout_s` is above 0 and at most 600 seconds.

        Raises RequestFailed with the code and a sentence, ValueError for another time limit or what
        is no name.
        """
        timeout_ms = check_question(destination, timeout_s)
        self._request_number += 1
        number = self._request_number
        try:
            # What is said before the greeting is not kept: a question is asked once.
            self._pump_until(lambda: self._peer.welcome is not None, timeout_s)
            self._asking = number
            self._peer.request(frames.Request(number, destination, timeout_ms, message))
            self._pump_until(lambda: number in self._replies, timeout_s + 1.0)
        except NotConnected:
            raise RequestFailed(Code.TIMEOUT, f"no answer in {timeout_s:g} s") from None
        finally:
            self._asking = None
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
        check_name(destination)
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
        """Settle: done; `note` is shown by `smpbus trace`, its first 300 characters."""
        self._settle(delivery, frames.ACK, note)

    def retry(
        self, delivery: frames.DeliveredMessage, reason: str, after_s: float | None = None
    ) -> None:
        """Settle: not now; again after `after_s` seconds or by the destination's policy.

        Raises ValueError for a pause that is negative or no number; it is unsettled then.
        """
        self._settle(delivery, frames.RETRY, reason, after_s)

    def reject(self, delivery: frames.DeliveredMessage, reason: str) -> None:
        """Settle: never; the message becomes a dead letter."""
        self._settle(delivery, frames.REJECT, reason)

    def report(self, report: object) -> None:
        """Tell operators how this process is: a `PeerReport` of `report`, or JSON of its shape as
        bytes. The newest replaces the one before. Raises ValueError when too long."""
        self._peer.report(report if isinstance(report, bytes) else encode_json(report))
        self._send_outbox()

    def _settle(
        self,
        delivery: frames.DeliveredMessage,
        outcome: int,
        note: str | None,
        after_s: float | None = None,
    ) -> None:
        settlement = frames.settlement(
            delivery.delivery, outcome, note, after_s, delivery.generation
        )
        self._peer.settle([settlement])
        self._send_outbox()

    def _connect(self) -> None:
        self._connect_at = None
        self._disconnect(0)
        self._socket = self._context.socket(zmq.DEALER)
        configure_dealer(self._socket, self._key, self._server_key)
        self._monitor = self._socket.get_monitor_socket(attempts.WATCHED)
        self._socket.setsockopt(zmq.IPV6, int("[" in self.address))
        self._socket.connect(self.address)
        self._heard_at = time.monotonic()
        self._peer.greet()

    def _fail_question(self, code: str, sentence: str) -> None:
        if self._asking is not None:
            reply = frames.Reply(self._asking, frames.words(code), frames.words(sentence))
            self._replies[self._asking] = reply

    def _lost(self) -> None:
        """The connection or the session is over: try again after a pause."""
        now = time.monotonic()
        self._fail_question(Code.NO_CONSUMER, "the router went away")
        self._send_outbox()  # it may hold a BYE
        self._peer.lost()
        self._deliveries.clear()
        self._disconnect(BYE_MS)
        self._connect_at = now + self._pauses.lost(now)

    def _disconnect(self, linger_ms: int) -> None:
        if self._socket is not None:
            self._socket.disable_monitor()
            self._socket.close(linger_ms)
            self._socket = None
        if self._monitor is not None:
            self._monitor.close(0)  # disable_monitor leaves it open, and term() would wait for it
            self._monitor = None

    def _send_outbox(self) -> None:
        if self._socket is None:
            return
        outbox = self._peer.take_outbox()
        for at, parts in enumerate(outbox):
            try:
                self._socket.send_multipart(parts, DONTWAIT)
            except zmq.Again:  # the connection is gone; its monitor will say so
                self._peer.unsent(outbox[at:])
                return

    def _pump_until(self, done: Callable[[], bool], timeout_s: float | None) -> None:
        if self._context.closed:
            raise NotConnected("this client is closed")
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            self._send_outbox()
            if self._peer.fatal:
                raise self._peer.fatal
            if done():
                return
            now = time.monotonic()
            if deadline is not None and now >= deadline:
                sentence = f"no answer from the router at {self.address} in {timeout_s:g} s"
                raise NotConnected(self.trouble or sentence)
            self._read(min(0.1, deadline - now) if deadline is not None else 0.1)
            self._keep_alive(time.monotonic())

    def _read(self, wait_s: float) -> None:
        socket = self._socket
        if socket is None:
            at = self._connect_at
            time.sleep(wait_s if at is None else min(wait_s, max(0.0, at - time.monotonic())))
            return
        if not socket.poll(int(wait_s * 1000) + 1):
            return
        self._heard_at = time.monotonic()
        try:
            events = self._peer.receive(socket.recv_multipart())
        except frames.FrameError as error:
            events = [frames.Error(error.code, error.sentence, error.verb)]
        for event in events:
            match event:
                case Disconnected():
                    self._lost()
                case frames.Welcome():
                    self.trouble = ""
                    self._pauses.welcomed(self._heard_at)
                case frames.Deliver(_, deliveries):
                    self._deliveries.extend(deliveries)
                case frames.Reply():
                    self._replies[event.request] = event
                case frames.Request():  # whoever asks need not wait for nothing
                    sentence = f"{self.name} answers no questions"
                    self._peer.reply(frames.Reply(event.request, Code.NO_CONSUMER, sentence))
                case frames.Error():
                    tell_error(event)
                    if event.verb == frames.REQUEST.decode():
                        self._fail_question(event.code, event.sentence)
                case Granting():
                    tell_granting(self, event)

    def _keep_alive(self, now: float) -> None:
        if self._socket is None:
            if self._connect_at is not None and now >= self._connect_at:
                self._connect()
            return
        if self._watch() and self._peer.fatal is None:
            self._lost()
            return
        silent_s = now - self._heard_at
        if silent_s >= LOST_AFTER_S:
            self._lost()
        elif self._peer.welcome is None:
            return
        elif self._peer.refused and now >= self._grant_at:
            self._grant_s = min(self._grant_s * 2, GRANT_LONGEST_S)
            self._grant_at = now + self._grant_s
            self._peer.ask_again()
        elif silent_s >= PING_AFTER_S:
            self._peer.ping()

    def _watch(self) -> bool:
        """Look at what became of the connection; return whether it ended."""
        ended = False
        for event in attempts.events(self._monitor) if self._monitor is not None else ():
            if event == attempts.UNKNOWN_KEY:
                reason = "the router does not know this key, or it was revoked"
                self._peer.fatal = BusError(Code.UNKNOWN_NAME, reason)
            elif event in attempts.HANDSHAKE:
                self.trouble = text("client.no_handshake", address=self.address)
                if self._server_key_file is not None:
                    with contextlib.suppress(KeyFileError):
                        self._server_key = load_public(self._server_key_file)
            ended = ended or event in attempts.ENDED
        return ended
