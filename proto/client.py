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
import time
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Final, Self

import msgspec
import zmq

from proto import frames
from proto.drain import BURST_MAX, DONTWAIT, DrainedSocket
from proto.errors import BusError, Code, NotConnected, Refused, RequestFailed
from proto.keys import KeyPair, load_public
from proto.message import Message
from proto.peer import Batch, Completed, Disconnected, Peer

encode_json = msgspec.json.Encoder().encode

SOFTWARE: Final = "smpbus-python/1"
TICK_S: Final = 0.25
PING_AFTER_S: Final = 0.5
LOST_AFTER_S: Final = 2.0
COALESCE_LENGTH_MAX: Final = 256
COALESCE_BYTES_MAX: Final = 512 * 1024


class Retry(Exception):
    """Raised by a handler: deliver again, after `after_s` seconds if given, else by the policy.
    With `wish` the seconds are what the partner asks for, and the policy bounds them."""

    def __init__(self, reason: str, after_s: float | None = None, *, wish: bool = False) -> None:
        super().__init__(reason)
        self.after_s = after_s
        self.wish = wish


class Reject(Exception):
    """Raised by a handler: this message can never be delivered; make it a dead letter."""


class Delivery:
    """One message to be settled: `ack`, `retry` or `reject`, once."""

    __slots__ = ("_consumer", "attempt", "id", "message", "settled")

    def __init__(self, consumer: "Consumer", id: int, attempt: int, message: Message) -> None:
        self._consumer = consumer
        self.id = id
        self.attempt = attempt
        self.message = message
        self.settled = False

    @property
    def key(self) -> str:
        """The idempotency key for the partner: the same at every attempt, for ever."""
        return f"{self._consumer.client.bus}-{self.id}"

    def ack(self, note: str | None = None) -> None:
        """Done. `note` (the partner's answer, no personal data) is shown by `smpbus trace`."""
        self._consumer.settle(self, frames.Settlement(self.id, frames.ACK, None, note))

    def retry(self, reason: str, after_s: float | None = None, *, wish: bool = False) -> None:
        """Not now: deliver again after `after_s` seconds, or by the destination's policy; with
        `wish` after that time as far as the policy allows it."""
        after_ms = None if after_s is None else int(after_s * 1000)
        self._consumer.settle(
            self, frames.Settlement(self.id, frames.RETRY, after_ms, reason[:300], wish)
        )

    def reject(self, reason: str) -> None:
        """Never: the message becomes a dead letter with this reason."""
        self._consumer.settle(self, frames.Settlement(self.id, frames.REJECT, None, reason[:300]))


class Consumer:
    """Deliveries of one destination, as an async iterator or in batches."""

    def __init__(self, client: "BusClient", destination: str, credit: int) -> None:
        self.client = client
        self.destination = destination
        self.credit = credit
        self._ready: deque[Delivery] = deque()
        self._held: set[int] = set()
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
        self._held.discard(delivery.id)
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
        for item in deliveries:
            if item.delivery not in self._held:
                self._held.add(item.delivery)
                self._ready.append(Delivery(self, item.delivery, item.attempt, item.message))
        self._wake()

    def drop_unread(self) -> None:
        """Forget what nobody has looked at yet: the router will deliver it again."""
        for delivery in self._ready:
            self._held.discard(delivery.id)
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
        self._server_key = load_public(server_key) if isinstance(server_key, Path) else server_key
        self._connect_timeout_s = connect_timeout_s
        self._peer = Peer(name, SOFTWARE)
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._wire: DrainedSocket | None = None
        self._monitor: zmq.Socket[bytes] | None = None
        self._coalesced: _Coalesced | None = None
        self._completions: dict[int, Callable[[Batch], None]] = {}
        self._consumers: dict[str, Consumer] = {}
        self._servers: dict[str, Server] = {}
        self._requests: dict[int, asyncio.Future[frames.Reply]] = {}
        self._request_number = 0
        self._tasks: set[asyncio.Task[None]] = set()
        self._welcomed = asyncio.Event()
        self._heard_at = 0.0
        self._ticker: asyncio.Task[None] | None = None
        self.on_error: Callable[[frames.Error], None] = lambda _: None
        self.reconnects = 0
        self.bus = ""  # the store's own name, from the first WELCOME on

    # -- life ---------------------------------------------------------------------------------

    async def __aenter__(self) -> Self:
        await self.start()
        try:
            await asyncio.wait_for(self._welcomed.wait(), self._connect_timeout_s)
        except TimeoutError:
            await self.close()
            raise NotConnected(
                f"no answer from the router at {self.address} in {self._connect_timeout_s:g} s"
            ) from None
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
        if self._wire is not None:
            self._peer.bye("closed")
            self._send_outbox()
            # A router that is away will not take the BYE: then there is nothing to wait for.
            self._wire.socket.setsockopt(zmq.LINGER, 500 if self.connected else 0)
            self._disconnect()
        self._context.term()

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
        """Publish several in one frame; returns for each None or why it was refused."""
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
        """Return the deliveries of `destination`, at most `credit` of them unsettled."""
        if destination in self._consumers:
            raise ValueError(f"{destination} is consumed by this client already")
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
        """Ask whoever serves `destination`. Raises RequestFailed with the code and a sentence."""
        self.raise_if_dead()
        if self._peer.welcome is None:
            raise RequestFailed(Code.NO_CONSUMER, "the router is away; a question is not kept")
        self._request_number += 1
        number = self._request_number
        answer: asyncio.Future[frames.Reply] = self._loop.create_future()
        self._requests[number] = answer
        self._peer.request(frames.Request(number, destination, int(timeout_s * 1000), message))
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
        """Answer requests to `destination` with what `server(message)` returns (JSON or bytes)."""
        self._servers[destination] = server
        if destination not in self._peer.windows:
            self._peer.credit(destination, 0)
            self._send_outbox()

    async def _answer(self, request: frames.Request, server: Server) -> None:
        try:
            body = await server(request.message)
            encoded = body if isinstance(body, bytes) else encode_json(body)
            reply = frames.Reply(request.request, body=encoded)
        except BusError as error:
            reply = frames.Reply(request.request, error.code, error.sentence)
        except Exception as error:  # the asker must hear of it; the text may hold personal data
            reply = frames.Reply(request.request, Code.FAILED, type(error).__name__)
        self._peer.reply(reply)
        self._send_outbox()

    def report(self, report: object) -> None:
        """Tell operators how this process is: a `proto.report.PeerReport`, or JSON of its shape as
        bytes. Never waits; the newest replaces the one before. Raises ValueError when too long."""
        self._peer.report(report if isinstance(report, bytes) else encode_json(report))
        self._send_outbox()

    # -- the wire -----------------------------------------------------------------------------

    def _connect(self) -> None:
        socket: zmq.Socket[bytes] = self._context.socket(zmq.DEALER)
        configure_dealer(socket, self._key, self._server_key)
        self._monitor = socket.get_monitor_socket(zmq.EVENT_HANDSHAKE_FAILED_AUTH)
        socket.connect(self.address)
        self._wire = DrainedSocket(socket, self._read_burst)
        self._heard_at = time.monotonic()
        self._peer.greet()
        self._send_outbox()

    def _disconnect(self) -> None:
        if self._wire is not None:
            self._wire.socket.disable_monitor()
            self._wire.close()
            self._wire = None
        if self._monitor is not None:
            self._monitor.close(0)  # disable_monitor leaves it open, and term() would wait for it
            self._monitor = None

    def _reconnect(self) -> None:
        self.reconnects += 1
        self._welcomed.clear()
        for consumer in self._consumers.values():
            consumer.drop_unread()
        for answer in self._requests.values():
            if not answer.done():
                answer.set_exception(RequestFailed(Code.NO_CONSUMER, "the router went away"))
        self._disconnect()
        self._connect()

    def _read_burst(self) -> bool:
        wire = self._wire
        if wire is None:
            return False
        for _ in range(BURST_MAX):
            try:
                parts = wire.socket.recv_multipart(DONTWAIT)
            except zmq.Again:
                break
            self._heard_at = time.monotonic()
            for event in self._peer.receive(parts):
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
                self._welcomed.set()
            case Disconnected():
                self._reconnect()
            case frames.Reply():
                answer = self._requests.get(event.request)
                if answer is not None and not answer.done():
                    answer.set_result(event)
            case frames.Request():
                if server := self._servers.get(event.destination):
                    self._spawn(self._answer(event, server))
            case frames.Error():
                self.on_error(event)
                self._on_error()

    def _on_error(self) -> None:
        if self._peer.fatal is None:
            return
        self._welcomed.set()
        for consumer in self._consumers.values():
            consumer.fail()
        for number in list(self._peer.unaccepted):
            batch = self._peer.unaccepted.pop(number)
            refusal = Refused(self._peer.fatal.code, self._peer.fatal.sentence)
            batch.refused = dict.fromkeys(range(len(batch.messages)), refusal)
            self._complete(batch)

    def _complete(self, batch: Batch) -> None:
        if completion := self._completions.pop(batch.number, None):
            completion(batch)

    def _send_outbox(self) -> None:
        wire = self._wire
        if wire is None:
            return
        for parts in self._peer.take_outbox():
            # HWM 0 on the dealer: what is unaccepted is bounded by whoever publishes.
            wire.socket.send_multipart(parts, DONTWAIT)
        wire.check()

    async def _tick_forever(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            self._tick()

    def _tick(self) -> None:
        if self._wire is None or self._peer.fatal:
            return
        if self._monitor is not None and self._monitor.poll(0):
            reason = "the router does not know this key, or it was revoked"
            self._peer.fatal = BusError(Code.UNKNOWN_NAME, reason)
            self._on_error()
            return
        silent_s = time.monotonic() - self._heard_at
        if silent_s >= LOST_AFTER_S:
            self._reconnect()
        elif silent_s >= PING_AFTER_S and self._peer.welcome is not None:
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
    socket.setsockopt(zmq.RECONNECT_IVL, 50)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 500)
    if key is not None and server_key is not None:
        socket.curve_publickey = key.public
        socket.curve_secretkey = key.secret
        socket.curve_serverkey = server_key


async def _handle_one(handler: Handler, delivery: Delivery) -> None:
    try:
        note = await handler(delivery)
    except Retry as retry:
        delivery.retry(str(retry), retry.after_s, wish=retry.wish)
    except Reject as reject:
        delivery.reject(str(reject))
    except asyncio.CancelledError:
        if not delivery.settled:
            delivery.retry("consumer stopped", 0)
        raise
    except Exception as error:
        if not delivery.settled:
            delivery.retry(type(error).__name__)
    else:
        if not delivery.settled:
            delivery.ack(note)


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
