"""The asyncio client of the bus.

    async with BusClient("ipc:///run/smpbus/bus.sock", name="smp", key=key, server_key=pub) as bus:
        await bus.publish(bus.message("call.status.v1", status, subject="112-4711"))
        async for delivery in bus.consume("smp"):
            delivery.ack()

`publish` returns when the router has the message on disk. What is published concurrently travels
in one frame. The client finds a lost router within a second, greets it again when it is back, and
repeats what was not accepted under the same ids, so that nothing is doubled.
"""

import asyncio
import contextlib
import logging
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final, Protocol, Self

import msgspec
import zmq

from . import attempts, frames
from .drain import BURST_MAX, DrainedSocket, contents, receive_frames, send_parts
from .errors import FATAL, BusError, Code, NotConnected, Refused, RequestFailed
from .keys import KeyFileError, KeyPair, load_public
from .message import NAME_GRAMMAR, NAME_LENGTH_MAX, Message
from .peer import Batch, Completed, Disconnected, Granting, Peer
from .wording import text

encode_json = msgspec.json.Encoder().encode

SOFTWARE: Final = "smpbus-python/1"
TICK_S: Final = 0.25
PING_AFTER_S: Final = 0.5
LOST_AFTER_S: Final = 2.0
COALESCE_LENGTH_MAX: Final = 256
COALESCE_BYTES_MAX: Final = 512 * 1024
GRANT_AFTER_S: Final = 1.0  # how soon a queue that was not given is asked for again; doubled up to
GRANT_LONGEST_S: Final = 5.0
BYE_MS: Final = 500
LOG: Final = logging.getLogger("smpbus.client")
_Settlement, _ACK = frames.Settlement, frames.ACK


class Retry(Exception):
    """Raised by a handler: deliver again, after `after_s` seconds if given, else by the policy.
    With `wish` the seconds are what the partner asks for, and the policy bounds them."""

    def __init__(self, reason: str, after_s: float | None = None, *, wish: bool = False) -> None:
        """Raises ValueError for a pause that is negative or no number."""
        if after_s is not None and not after_s >= 0:
            raise ValueError(f"a pause of {after_s} seconds")
        super().__init__(reason)
        self.after_s = after_s
        self.wish = wish


class Reject(Exception):
    """Raised by a handler: this message can never be delivered; make it a dead letter."""


class Delivery(msgspec.Struct, eq=False):  # made in one step: the hot path
    """One message to be settled: `ack`, `retry` or `reject`, once."""

    _consumer: "Consumer"
    id: int
    attempt: int
    message: Message
    generation: str = ""
    _bus: str | None = None  # that it came from; None is that of the consumer
    settled: bool = False

    __repr__ = object.__repr__  # nothing of the message

    @property
    def key(self) -> str:
        """The idempotency key for the partner: the same at every attempt, for ever, and never that
        of another message, whatever old copy of its journal the router was started on."""
        bus = self._consumer.client.bus if self._bus is None else self._bus
        return frames.key_of(bus, self.id, self.generation)

    def ack(self, note: str | None = None) -> None:
        """Done. `note` (the partner's answer, no personal data) is shown by `smpbus trace`, its
        first 300 characters."""
        if note is None:  # the hot path
            settlement = _Settlement(self.id, _ACK, None, None, self.generation)
        else:
            settlement = self._settlement(frames.ACK, note)
        self._consumer.settle(self, settlement)

    def retry(self, reason: str, after_s: float | None = None, *, wish: bool = False) -> None:
        """Not now: deliver again after `after_s` seconds, or by the destination's policy; with
        `wish` after that time as far as the policy allows it.

        Raises ValueError for a pause that is negative or no number; it is unsettled then.
        """
        self._consumer.settle(self, self._settlement(frames.RETRY, reason, after_s, wish=wish))

    def reject(self, reason: str) -> None:
        """Never: the message becomes a dead letter with this reason."""
        self._consumer.settle(self, self._settlement(frames.REJECT, reason))

    def _settlement(
        self, outcome: int, note: object, after_s: float | None = None, *, wish: bool = False
    ) -> frames.Settlement:
        return frames.settlement(self.id, outcome, note, after_s, self.generation, wish=wish)


class Consumer:
    """Deliveries of one destination, as an async iterator or in batches."""

    def __init__(self, client: "BusClient", destination: str, credit: int) -> None:
        self.client = client
        self.destination = destination
        self.credit = credit
        self._ready: deque[Delivery] = deque()
        self._held: dict[str, set[int]] = {}  # ids by generation
        self._settlements: list[frames.Settlement] = []
        self._waiter: asyncio.Future[None] | None = None
        self._closed = False

    def widen(self, credit: int) -> None:
        """Hold up to `credit` deliveries from now on."""
        self.credit = credit
        self.client.grant(self.destination, credit)

    def __aiter__(self) -> AsyncIterator[Delivery]:
        return self

    async def __anext__(self) -> Delivery:
        while not self._ready:
            await self._wait()
        return self._ready.popleft()

    async def batches(self) -> AsyncIterator[list[Delivery]]:
        """Yield all that has arrived, at least one delivery at a time."""
        while True:
            while not self._ready:
                try:
                    await self._wait()
                except StopAsyncIteration:
                    return
            batch = list(self._ready)
            self._ready.clear()
            yield batch

    def close(self) -> None:
        """Take no more: deliveries not yet looked at return to the router at once."""
        if not self._closed:
            self._closed = True
            self.client.forget_consumer(self)
            for delivery in self._ready:
                delivery.retry("consumer closed", 0)
            self._ready.clear()
            self.flush()
            self._wake()

    def settle(self, delivery: Delivery, settlement: frames.Settlement) -> None:
        """Queue one settlement; all of one turn of the loop travel together."""
        if delivery.settled:
            raise RuntimeError("this delivery is settled already")
        delivery.settled = True
        if held := self._held.get(delivery.generation):
            held.discard(delivery.id)
        if not self._settlements:
            self.client.soon(self.flush)
        self._settlements.append(settlement)

    def flush(self) -> None:
        """Send queued settlements now."""
        if self._settlements:
            settlements, self._settlements = self._settlements, []
            self.client.settle(settlements)

    def deliver(self, deliveries: list[frames.DeliveredMessage]) -> None:
        """Take what the router delivered. What is still held from before a reconnect is skipped:
        its settlement, when it comes, counts for the new session too."""
        ready, generation, held = self._ready, "", self._held.setdefault("", set())
        bus = self.client.bus
        for item in deliveries:
            if item.generation != generation:
                generation = item.generation  # one word for all: it is hashed once
                held = self._held.setdefault(generation, set())
            id = item.delivery
            if id not in held:
                held.add(id)
                ready.append(Delivery(self, id, item.attempt, item.message, generation, bus))
        self._wake()

    def drop_unread(self) -> None:
        """Forget what nobody has looked at yet: the router will deliver it again."""
        for delivery in self._ready:
            self._held[delivery.generation].discard(delivery.id)
        self._held = {word: ids for word, ids in self._held.items() if ids}
        self._ready.clear()

    def fail(self) -> None:
        """Wake a waiting reader so that it sees the client's fatal error."""
        self._wake()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)

    async def _wait(self) -> None:
        self.client.raise_if_dead()
        if self._closed:
            raise StopAsyncIteration
        self._waiter = asyncio.get_running_loop().create_future()
        await self._waiter


class PublishStream:
    """A pipelined publisher: at most `window` messages unaccepted, no future per message."""

    def __init__(self, client: "BusClient", window: int) -> None:
        self._client = client
        self._window = window
        self._open = 0
        self._room: asyncio.Future[None] | None = None
        self._refused: list[Refused] = []
        self._outcome: Outcome = self._on_outcome  # one object, so that runs of it are seen
        self.accepted = 0

    async def publish(self, message: Message) -> None:
        """Publish; waits only while the window is full. Raises an earlier message's Refused."""
        while self._open >= self._window:
            await self._wait()
        if self._refused:
            raise self._refused.pop(0)
        self._open += 1
        self._client.publish_soon(message, self._outcome)

    async def drain(self) -> None:
        """Wait until all is accepted. Raises the first Refused, if any."""
        while self._open:
            await self._wait()
        if self._refused:
            raise self._refused.pop(0)

    def _on_outcome(self, count: int, refused: list[Refused]) -> None:
        self._open -= count
        self.accepted += count - len(refused)
        self._refused.extend(refused)
        if self._room is not None and not self._room.done():
            self._room.set_result(None)

    async def _wait(self) -> None:
        self._client.raise_if_dead()
        if self._room is None or self._room.done():
            self._room = asyncio.get_running_loop().create_future()
        await asyncio.shield(self._room)  # others may wait for it too


Outcome = Callable[[int, list[Refused]], None]
Handler = Callable[[Delivery], Awaitable[str | None]]
Server = Callable[[Message], Awaitable[object]]


class _Coalesced:
    """Messages gathered in one turn of the loop, with whom to tell of each."""

    __slots__ = ("bytes", "messages", "outcomes")

    def __init__(self) -> None:
        self.messages: list[Message] = []
        self.outcomes: list[Outcome] = []
        self.bytes = 0


class BusClient:
    """A session on the bus; see the module's docstring. One per process is enough."""

    def __init__(
        self,
        address: str,
        *,
        name: str,
        key: KeyPair | Path | None = None,
        server_key: bytes | Path | None = None,
        connect_timeout_s: float = 10.0,
    ) -> None:
        """`key` and `server_key` may be None only for a router that runs without CURVE."""
        self.address = address
        self.name = name
        self._key = KeyPair.load(key) if isinstance(key, Path) else key
        self._server_key_file = server_key if isinstance(server_key, Path) else None
        self._server_key = load_public(server_key) if isinstance(server_key, Path) else server_key
        self._connect_timeout_s = connect_timeout_s
        self._peer = Peer(name, SOFTWARE)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._wire: DrainedSocket | None = None
        self._monitor: DrainedSocket | None = None
        self._pauses = attempts.Pauses()
        self._attempt: asyncio.TimerHandle | None = None
        self._grant_s, self._grant_at = GRANT_AFTER_S, 0.0
        self._coalesced: _Coalesced | None = None
        self._completions: dict[int, Callable[[Batch], None]] = {}
        self._consumers: dict[str, Consumer] = {}
        self._servers: dict[str, Server] = {}
        self._requests: dict[int, asyncio.Future[frames.Reply]] = {}
        self._request_number = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._welcomed = asyncio.Event()
        self._heard_at = 0.0
        self._ticked_at = 0.0
        self._ticker: asyncio.Task[None] | None = None
        self.on_error: Callable[[frames.Error], None] = tell_error
        self.on_granting: Callable[[Granting], None] = partial(tell_granting, self)
        self.reconnects = 0
        self.trouble = ""  # why no session comes about, where more is known than silence
        self.bus = ""  # the store's own name, from the first WELCOME on

    # -- life ---------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.start()
        try:
            await asyncio.wait_for(self._welcomed.wait(), self._connect_timeout_s)
        except TimeoutError:
            await self.close()
            within = f"{self._connect_timeout_s:g} s"
            sentence = f"no answer from the router at {self.address} in {within}"
            raise NotConnected(self.trouble or sentence) from None
        except BaseException:
            await self.close()
            raise
        if self._peer.fatal:
            await self.close()
            raise self._peer.fatal
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    async def start(self) -> None:
        """Begin connecting and return at once; for connectors, which outlive an absent router."""
        self._loop = asyncio.get_running_loop()
        self._connect()
        self._ticker = asyncio.create_task(self._tick_forever())

    async def wait_welcomed(self) -> None:
        """Wait until the router has welcomed this session. Raises BusError if it never will."""
        await self._welcomed.wait()
        self.raise_if_dead()

    async def close(self) -> None:
        """Say BYE, stop reading, give unsent frames a moment to leave."""
        for consumer in list(self._consumers.values()):
            consumer.close()
        if self._ticker is not None:
            self._ticker.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._ticker
            self._ticker = None
        for task in self._tasks:
            task.cancel()
        if self._attempt is not None:
            self._attempt.cancel()
        if self._wire is not None:
            self._peer.bye("closed")
            self._send_outbox()
            # A router that is away will not take the BYE: then there is nothing to wait for.
            self._disconnect(BYE_MS if self.connected else 0)
        self._context.term()

    @property
    def refused(self) -> dict[str, str]:
        """The destinations that the router does not give now, each with the code that says why."""
        return {name: code for name, code in self._peer.refused.items() if code}

    @property
    def connected(self) -> bool:
        """Whether the router has welcomed this session and is still heard."""
        return self._peer.welcome is not None

    def raise_if_dead(self) -> None:
        """Raise the error that ended this session for good, if one did."""
        if self._peer.fatal:
            raise self._peer.fatal

    # -- publishing ---------------------------------------------------------------------------

    def message(self, type: str, body: object = b"", **envelope: object) -> Message:
        """Make a message from this peer; see `Message.new` for the envelope's keywords."""
        return Message.new(type, self.name, body, **envelope)  # type: ignore[arg-type]

    async def publish(self, message: Message) -> None:
        """Publish one message; returns when it is on the router's disk. Raises Refused."""
        done: asyncio.Future[None] = self._loop.create_future()

        def settle(_: int, refused: list[Refused]) -> None:
            if done.done():
                return
            if refused:
                done.set_exception(refused[0])
            else:
                done.set_result(None)

        self.raise_if_dead()
        self.publish_soon(message, settle)
        await done

    async def publish_many(self, messages: Sequence[Message]) -> list[Refused | None]:
        """Publish several in as few frames as they fit in; returns for each None or why it was
        refused. One that no frame can hold is refused (`body_too_large`), and the others go."""
        self.raise_if_dead()
        self._flush_coalesced()
        results: list[Refused | None] = [None] * len(messages)
        waits: list[asyncio.Future[None]] = []
        for start in range(0, len(messages), frames.BATCH_LENGTH_MAX):
            part = messages[start : start + frames.BATCH_LENGTH_MAX]
            done: asyncio.Future[None] = self._loop.create_future()
            batch = self._peer.publish(part)
            self._completions[batch.number] = partial(_note_results, results, start, done)
            waits.append(done)
        self._send_outbox()
        for wait in waits:
            await wait
        return results

    def stream(self, window: int = 1000) -> PublishStream:
        """Return a pipelined publisher with at most `window` messages unaccepted."""
        return PublishStream(self, window)

    def publish_soon(self, message: Message, outcome: Outcome) -> None:
        """Add to the frame of this turn of the loop; `outcome(count, refused)` is called once for
        every run of messages that share it."""
        gathered = self._coalesced
        if gathered is None:
            gathered = self._coalesced = _Coalesced()
            self._loop.call_soon(self._flush_if, gathered)
        gathered.messages.append(message)
        gathered.outcomes.append(outcome)
        gathered.bytes += len(message.body)
        if len(gathered.messages) >= COALESCE_LENGTH_MAX or gathered.bytes >= COALESCE_BYTES_MAX:
            self._flush_coalesced()
            self._send_outbox()

    def _flush_if(self, gathered: _Coalesced) -> None:
        if self._coalesced is gathered:
            self._flush_coalesced()
            self._send_outbox()

    def _flush_coalesced(self) -> None:
        gathered, self._coalesced = self._coalesced, None
        if gathered is not None:
            batch = self._peer.publish(gathered.messages)
            self._completions[batch.number] = partial(_tell, gathered.outcomes)

    # -- consuming ----------------------------------------------------------------------------

    def consume(self, destination: str, *, credit: int = 64) -> Consumer:
        """Return the deliveries of `destination`, at most `credit` of them unsettled.

        A destination that the router does not give yet (no such queue, no right) is asked for
        again until it does; `refused` says so, and one line. Raises ValueError for what is no name
        or no credit.
        """
        if destination in self._consumers:
            raise ValueError(f"{destination} is consumed by this client already")
        check_name(destination)
        if not 0 <= credit <= frames.WINDOW_MAX:
            raise ValueError(f"a credit of {credit}, of {frames.WINDOW_MAX}")
        consumer = Consumer(self, destination, credit)
        self._consumers[destination] = consumer
        self.grant(destination, credit)
        return consumer

    def grant(self, destination: str, credit: int) -> None:
        """Say how many deliveries of `destination` are taken at a time, for a consumer of it."""
        self._peer.credit(destination, credit)
        self._send_outbox()

    async def handle(self, destination: str, handler: Handler, *, credit: int = 64) -> None:
        """Run `handler` for each delivery, concurrently up to `credit`, until cancelled.

        Its return value (or None) becomes the note of the ack; `Retry` and `Reject` settle so; any
        other exception is a retry under its class name only, since its text may hold personal data.
        """
        consumer = self.consume(destination, credit=credit)
        try:
            async for delivery in consumer:
                self._spawn(_handle_one(handler, delivery))
        finally:
            consumer.close()

    def forget_consumer(self, consumer: Consumer) -> None:
        """Withdraw the credit of a consumer that closes."""
        self._consumers.pop(consumer.destination, None)
        serving = consumer.destination in self._servers
        self._peer.withdraw(consumer.destination, serving=serving)
        self._send_outbox()

    def settle(self, settlements: list[frames.Settlement]) -> None:
        """Send settlements; while the router is away they wait for it."""
        self._peer.settle(settlements)
        self._send_outbox()

    def soon(self, callback: Callable[[], None]) -> None:
        """Call at the end of this turn of the loop."""
        self._loop.call_soon(callback)

    # -- request and reply ----------------------------------------------------------------------

    async def request(
        self, destination: str, message: Message, *, timeout_s: float = 5.0
    ) -> frames.Reply:
        """Ask whoever serves `destination`; `timeout_s` is above 0 and at most 600 seconds.

        Raises RequestFailed with the code and a sentence, ValueError for another time limit or what
        is no name.
        """
        self.raise_if_dead()
        timeout_ms = check_question(destination, timeout_s)
        if self._peer.welcome is None:
            raise RequestFailed(Code.NO_CONSUMER, "the router is away; a question is not kept")
        self._request_number += 1
        number = self._request_number
        answer: asyncio.Future[frames.Reply] = self._loop.create_future()
        self._peer.request(frames.Request(number, destination, timeout_ms, message))
        self._requests[number] = answer
        self._send_outbox()
        try:
            # The router answers at the deadline; the margin is for a router that is gone.
            reply = await asyncio.wait_for(answer, timeout_s + 1.0)
        except TimeoutError:
            raise RequestFailed(Code.TIMEOUT, f"no answer in {timeout_s:g} s") from None
        finally:
            self._requests.pop(number, None)
        if reply.code:
            raise RequestFailed(reply.code, reply.sentence)
        return reply

    def serve(self, destination: str, server: Server) -> None:
        """Answer requests to `destination` with what `server(message)` returns (JSON or bytes).

        A destination that the router does not give yet is asked for again, as by `consume`.
        """
        check_name(destination)
        self._servers[destination] = server
        self._peer.serve(destination)
        self._send_outbox()

    async def _answer(self, request: frames.Request, server: Server) -> None:
        try:
            body = await server(request.message)
            encoded = body if isinstance(body, bytes) else encode_json(body)
            reply = frames.Reply(request.request, body=encoded)
        except asyncio.CancelledError:
            raise
        except BusError as error:
            code = frames.words(error.code, frames.CODE_LENGTH_MAX)
            reply = frames.Reply(request.request, code, frames.words(error.sentence))
        except BaseException as error:  # the asker must hear of it; the text may hold personal data
            reply = frames.Reply(request.request, Code.FAILED, frames.words(type(error).__name__))
        self._peer.reply(reply)
        self._send_outbox()

    def report(self, report: object) -> None:
        """Tell operators how this process is: a `PeerReport` of `report`, or JSON of its shape as
        bytes. Never waits; the newest replaces the one before. Raises ValueError when too long."""
        self._peer.report(report if isinstance(report, bytes) else encode_json(report))
        self._send_outbox()

    # -- the wire -----------------------------------------------------------------------------

    def _connect(self) -> None:
        self._attempt = None
        socket: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        configure_dealer(socket, self._key, self._server_key)
        self._monitor = DrainedSocket(
            socket.get_monitor_socket(attempts.WATCHED), self._read_monitor
        )
        socket.setsockopt(zmq.IPV6, int("[" in self.address))
        socket.connect(self.address)
        self._wire = DrainedSocket(socket, self._read_burst)
        self._heard_at = time.monotonic()
        self._peer.greet()
        self._send_outbox()

    def _disconnect(self, linger_ms: int = 0) -> None:
        if self._wire is not None:
            self._wire.socket.disable_monitor()
            self._wire.socket.setsockopt(zmq.LINGER, linger_ms)
            self._wire.close()
            self._wire = None
        if self._monitor is not None:
            self._monitor.socket.setsockopt(zmq.LINGER, 0)
            self._monitor.close()  # disable_monitor leaves it open, and term() would wait for it
            self._monitor = None

    def _reconnect(self) -> None:
        """The connection or the session is over: try again after a pause."""
        self.reconnects += 1
        self._welcomed.clear()
        self._send_outbox()  # it may hold a BYE
        self._peer.lost()
        for consumer in self._consumers.values():
            consumer.drop_unread()
        self._fail_requests(Code.NO_CONSUMER, "the router went away")
        self._disconnect(BYE_MS)
        if self._attempt is not None:
            self._attempt.cancel()
        self._attempt = self._loop.call_later(self._pauses.lost(time.monotonic()), self._connect)

    def _fail_requests(self, code: str, sentence: str) -> None:
        for answer in self._requests.values():
            if not answer.done():
                answer.set_exception(RequestFailed(code, sentence))

    def _read_monitor(self) -> bool:
        monitor = self._monitor
        ended = False
        for event in attempts.told(monitor.socket) if monitor is not None else ():
            if event == attempts.UNKNOWN_KEY:
                reason = "the router does not know this key, or it was revoked"
                self._on_fatal(BusError(Code.UNKNOWN_NAME, reason))
                return False
            if event in attempts.HANDSHAKE:
                self._turned_away()
            ended = ended or event in attempts.ENDED
        if ended and self._peer.fatal is None:
            self._reconnect()
        return False

    def _turned_away(self) -> None:
        """Somebody listens at the address, and the greeting fails: with keys in use mostly because
        the router has another one now, which its file may hold already."""
        self.trouble = text("client.no_handshake", address=self.address)
        if self._server_key_file is not None:
            with contextlib.suppress(KeyFileError):
                self._server_key = load_public(self._server_key_file)

    def _read_burst(self) -> bool:
        wire = self._wire
        if wire is None:
            return False
        for _ in range(BURST_MAX):
            if not wire.has_more():
                break
            parts = [contents(frame) for frame in receive_frames(wire.socket)]
            self._heard_at = time.monotonic()
            try:
                events = self._peer.receive(parts)
            except frames.FrameError as error:
                events = [frames.Error(error.code, error.sentence, error.verb)]
            for event in events:
                self._on_event(event)
            if self._wire is not wire:
                return False
        else:
            self._send_outbox()
            return True
        self._send_outbox()
        return False

    def _on_event(self, event: object) -> None:
        match event:
            case Completed(batch):
                self._complete(batch)
            case frames.Deliver(destination, deliveries):
                if consumer := self._consumers.get(destination):
                    consumer.deliver(deliveries)
            case frames.Welcome():
                self.bus = event.bus
                self.trouble = ""
                self._pauses.welcomed(self._heard_at)
                self._welcomed.set()
            case Granting():
                self._grant_s, self._grant_at = GRANT_AFTER_S, self._heard_at + GRANT_AFTER_S
                self.on_granting(event)
            case Disconnected():
                self._reconnect()
            case frames.Reply():
                answer = self._requests.get(event.request)
                if answer is not None and not answer.done():
                    answer.set_result(event)
            case frames.Request():
                if server := self._servers.get(event.destination):
                    self._spawn(self._answer(event, server))
                else:  # whoever asks need not wait for nothing
                    sentence = f"{self.name} answers no questions to {event.destination}"
                    self._peer.reply(frames.Reply(event.request, Code.NO_CONSUMER, sentence))
            case frames.Error():
                self.on_error(event)
                if event.verb == frames.REQUEST.decode():  # it does not say which one
                    self._fail_requests(event.code, event.sentence)
                if self._peer.fatal is not None:
                    self._on_fatal(self._peer.fatal)

    def _on_fatal(self, fatal: BusError) -> None:
        self._peer.fatal = fatal
        self._welcomed.set()
        for consumer in self._consumers.values():
            consumer.fail()
        self._fail_requests(fatal.code, fatal.sentence)
        for event in self._peer.refuse_all(Refused(fatal.code, fatal.sentence)):
            self._on_event(event)

    def _complete(self, batch: Batch) -> None:
        if completion := self._completions.pop(batch.number, None):
            completion(batch)

    def _send_outbox(self) -> None:
        while self._peer.ready:
            for event in self._peer.take_ready():
                self._on_event(event)
        wire = self._wire
        if wire is None:
            return
        outbox = self._peer.take_outbox()
        for at, parts in enumerate(outbox):
            # HWM 0 on the dealer: what is unaccepted is bounded by whoever publishes.
            try:
                send_parts(wire.socket, parts)
            except zmq.Again:  # the connection is gone, and its monitor has not said so yet
                self._peer.unsent(outbox[at:])
                self._loop.call_soon(self._gone, wire)
                return
        wire.check()

    def _gone(self, wire: DrainedSocket) -> None:
        if self._wire is wire and self._peer.fatal is None:
            self._reconnect()

    async def _tick_forever(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._tick()

    def _tick(self) -> None:
        if self._wire is None or self._peer.fatal:
            return
        if self._monitor is not None:
            self._monitor.check()
        now = time.monotonic()
        late_s, self._ticked_at = now - self._ticked_at, now
        if late_s >= PING_AFTER_S:  # we stood still: what was said meanwhile is not read yet
            self._heard_at = max(self._heard_at, now - PING_AFTER_S)
        silent_s = now - self._heard_at
        if silent_s >= LOST_AFTER_S:
            self._reconnect()
        elif self._peer.refused and now >= self._grant_at and self.connected:
            self._grant_s = min(self._grant_s * 2, GRANT_LONGEST_S)
            self._grant_at = now + self._grant_s
            self._peer.ask_again()
            self._send_outbox()
        elif silent_s >= PING_AFTER_S and self.connected:
            self._peer.ping()
            self._send_outbox()
        else:
            self._wire.check()

    def _spawn(self, work: Awaitable[None]) -> None:
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)


def configure_dealer(
    socket: "zmq.Socket[bytes]", key: KeyPair | None, server_key: bytes | None
) -> None:
    """Set what every client socket of the bus needs."""
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SNDHWM, 0)
    socket.setsockopt(zmq.RCVHWM, 0)
    socket.setsockopt(zmq.RECONNECT_IVL, -1)  # see proto/attempts.py
    if key is not None and server_key is not None:
        socket.curve_publickey = key.public
        socket.curve_secretkey = key.secret
        socket.curve_serverkey = server_key


def check_name(destination: str) -> None:
    """Raise ValueError for what cannot be the name of a destination."""
    if len(destination) > NAME_LENGTH_MAX or not re.match(NAME_GRAMMAR, destination):
        raise ValueError("a destination's name is lower case letters, digits, _ and -, at most 64")


def check_question(destination: str, timeout_s: float) -> int:
    """Return the time limit of a question in milliseconds. Raises ValueError."""
    check_name(destination)
    if not 0 < timeout_s <= frames.REQUEST_S_MAX:
        raise ValueError(f"a question may wait up to {frames.REQUEST_S_MAX:g} s, not {timeout_s}")
    return max(1, int(timeout_s * 1000))


def tell_error(error: frames.Error) -> None:
    """Say what the router did not take; queues that it does not give are told by `tell_granting`,
    the end of a session by whoever holds it."""
    if error.verb != "CREDIT" and error.code not in FATAL:
        try:
            meaning = text(f"codes.{error.code}")
        except KeyError:  # of a newer router
            meaning = ""
        told = {"verb": error.verb, "code": error.code, "sentence": error.sentence}
        LOG.warning(text("client.error", **told, meaning=meaning).rstrip())


class Named(Protocol):
    """A client of either kind."""

    address: str
    name: str


def tell_granting(client: Named, granting: Granting) -> None:
    """Say which queue the router does not give us, and when it does again."""
    fields = {"queue": granting.destination, "address": client.address, "name": client.name}
    if granting.code:
        LOG.error(text("client.not_given", code=granting.code, **fields))
    else:
        LOG.info(text("client.given", **fields))


async def _handle_one(handler: Handler, delivery: Delivery) -> None:
    try:
        settle_as(delivery, await handler(delivery))
    except asyncio.CancelledError:
        if not delivery.settled:
            delivery.retry("consumer stopped", 0)
        raise
    except BaseException as error:
        # Also what is no Exception: of a library in another language, or a plug-in's exit().
        settle_as(delivery, error)


def settle_as(delivery: Delivery, outcome: object) -> None:
    """Settle by what a handler returned (the note of an ack) or raised, unless it did so itself.

    Of an exception that is neither Retry nor Reject only the kind is told: its text may hold
    personal data.
    """
    if delivery.settled:
        return
    match outcome:
        case Retry():
            try:
                delivery.retry(str(outcome), outcome.after_s, wish=outcome.wish)
            except (TypeError, ValueError):
                delivery.retry(str(outcome))
        case Reject():
            delivery.reject(str(outcome))
        case BaseException():
            delivery.retry(type(outcome).__name__)
        case _:
            delivery.ack(outcome)  # type: ignore[arg-type]  # what is no text is told by its kind


def _note_results(
    results: list[Refused | None], start: int, done: "asyncio.Future[None]", batch: Batch
) -> None:
    for index, refusal in batch.refused.items():
        results[start + index] = refusal
    if not done.done():
        done.set_result(None)


def _tell(outcomes: list[Outcome], batch: Batch) -> None:
    for outcome, count, refused in _runs(outcomes, batch.refused):
        outcome(count, refused)


def _runs(
    outcomes: list[Outcome], refused: dict[int, Refused]
) -> Iterator[tuple[Outcome, int, list[Refused]]]:
    """Group neighbours that share an outcome, so that a stream of 1,000 is told once."""
    start = 0
    while start < len(outcomes):
        outcome = outcomes[start]
        end = start + 1
        while end < len(outcomes) and outcomes[end] is outcome:
            end += 1
        part = [refused[i] for i in range(start, end) if i in refused] if refused else []
        yield outcome, end - start, part
        start = end
