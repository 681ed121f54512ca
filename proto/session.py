"""The asyncio client's session: one connection after another to the router, greeted and watched.

It finds a lost router within two seconds, greets it again when it is back, and repeats what
`Peer` says. What the router says goes to whoever has registered for its kind in `on`.
"""

import asyncio
import contextlib
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any, Final

import zmq

from . import attempts, clock, frames
from .dealer import (
    BYE_MS,
    GRANT_AFTER_S,
    GRANT_LONGEST_S,
    LOST_AFTER_S,
    PING_AFTER_S,
    SOFTWARE,
    configure_dealer,
)
from .drain import BURST_MAX, DrainedSocket, contents, receive_frames, send_parts
from .errors import BusError, Code, Refused
from .keys import KeyFileError, KeyPair, load_public
from .peer import Disconnected, Event, Peer
from .wording import text

TICK_S: Final = 0.25


class Session:
    """What `BusClient` and its parts share: the peer, the wire, the loop."""

    loop: asyncio.AbstractEventLoop

    def __init__(
        self, address: str, name: str, key: KeyPair | Path | None, server_key: bytes | Path | None
    ) -> None:
        self.address = address
        self.peer = Peer(name, SOFTWARE)
        self.welcomed = asyncio.Event()
        self.reconnects = 0
        self.trouble = ""  # why no session comes about, where more is known than silence
        self.bus = ""  # the store's own name, from the first WELCOME on
        self.on: dict[type[object], Callable[[Any], None]] = {
            frames.Welcome: self._on_welcome,
            Disconnected: self._on_disconnected,
        }
        self.on_lost: list[Callable[[], None]] = []  # this connection; there will be another
        self.on_fatal: list[Callable[[BusError], None]] = []  # there will be none
        self._key = KeyPair.load(key) if isinstance(key, Path) else key
        self._server_key_file = server_key if isinstance(server_key, Path) else None
        self._server_key = load_public(server_key) if isinstance(server_key, Path) else server_key
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._wire: DrainedSocket | None = None
        self._monitor: DrainedSocket | None = None
        self._clock = clock.in_force()
        self._pauses = attempts.Pauses()
        self._attempt: clock.Timer | None = None
        self._grant_s, self._grant_at = GRANT_AFTER_S, 0.0
        self._tasks: set[asyncio.Task[None]] = set()
        self._heard_at = 0.0
        self._ticked_at = 0.0
        self._ticker: asyncio.Task[None] | None = None

    # -- life ---------------------------------------------------------------------------------

    @property
    def connected(self) -> bool:
        """Whether the router has welcomed this session and is still heard."""
        return self.peer.welcome is not None

    def raise_if_dead(self) -> None:
        """Raise the error that ended this session for good, if one did."""
        if self.peer.fatal:
            raise self.peer.fatal

    def start(self) -> None:
        """Begin connecting, on the loop that runs."""
        self.loop = asyncio.get_running_loop()
        self._connect()
        self._ticker = asyncio.create_task(self._tick_forever())

    async def close(self) -> None:
        """Say BYE, stop reading, give unsent frames a moment to leave."""
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
            self.peer.bye("closed")
            self.send()
            # A router that is away will not take the BYE: then there is nothing to wait for.
            self._disconnect(BYE_MS if self.connected else 0)
        self._context.term()

    def spawn(self, work: Awaitable[None]) -> None:
        """Do some work beside; what is not done when the session closes is cancelled."""
        task = asyncio.ensure_future(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def end(self, fatal: BusError) -> None:
        """No router will take this session any more."""
        self.peer.fatal = fatal
        self.welcomed.set()
        for tell in self.on_fatal:
            tell(fatal)
        self._hand_on(self.peer.refuse_all(Refused(fatal.code, fatal.sentence)))

    # -- the wire -----------------------------------------------------------------------------

    def send(self) -> None:
        """Send what the peer has to say."""
        while self.peer.ready:
            self._hand_on(self.peer.take_ready())
        wire = self._wire
        if wire is None:
            return
        outbox = self.peer.take_outbox()
        for at, parts in enumerate(outbox):
            # HWM 0 on the dealer: what is unaccepted is bounded by whoever publishes.
            try:
                send_parts(wire.socket, parts)
            except zmq.Again:  # the connection is gone, and its monitor has not said so yet
                self.peer.unsent(outbox[at:])
                self.loop.call_soon(self._gone, wire)
                return
        wire.check()

    def _hand_on(self, events: list[Event]) -> None:
        for event in events:
            self.on[type(event)](event)

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
        self._heard_at = self._clock.monotonic()
        self.peer.greet()
        self.send()

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

    def reconnect(self) -> None:
        """The connection or the session is over: try again after a pause."""
        self.reconnects += 1
        self.welcomed.clear()
        self.send()  # it may hold a BYE
        self.peer.lost()
        for tell in self.on_lost:
            tell()
        self._disconnect(BYE_MS)
        if self._attempt is not None:
            self._attempt.cancel()
        pause_s = self._pauses.lost(self._clock.monotonic())
        self._attempt = self._clock.call_later(pause_s, self._connect)

    def _gone(self, wire: DrainedSocket) -> None:
        if self._wire is wire and self.peer.fatal is None:
            self.reconnect()

    def _read_burst(self) -> bool:
        wire, on = self._wire, self.on
        if wire is None:
            return False
        for _ in range(BURST_MAX):
            if not wire.has_more():
                break
            parts = [contents(frame) for frame in receive_frames(wire.socket)]
            self._heard_at = self._clock.monotonic()
            try:
                events = self.peer.receive(parts)
            except frames.FrameError as error:
                events = [frames.Error(error.code, error.sentence, error.verb)]
            for event in events:
                on[type(event)](event)
            if self._wire is not wire:
                return False
        else:
            self.send()
            return True
        self.send()
        return False

    def _read_monitor(self) -> bool:
        monitor = self._monitor
        ended = False
        for event in attempts.events(monitor.socket) if monitor is not None else ():
            if event == attempts.UNKNOWN_KEY:
                reason = "the router does not know this key, or it was revoked"
                self.end(BusError(Code.UNKNOWN_NAME, reason))
                return False
            if event in attempts.HANDSHAKE:
                self._turned_away()
            ended = ended or event in attempts.ENDED
        if ended and self.peer.fatal is None:
            self.reconnect()
        return False

    def _turned_away(self) -> None:
        """Somebody listens at the address, and the greeting fails: with keys in use mostly because
        the router has another one now, which its file may hold already."""
        self.trouble = text("client.no_handshake", address=self.address)
        if self._server_key_file is not None:
            with contextlib.suppress(KeyFileError):
                self._server_key = load_public(self._server_key_file)

    def _on_welcome(self, welcome: frames.Welcome) -> None:
        self.bus = welcome.bus
        self.trouble = ""
        self._pauses.welcomed(self._heard_at)
        self.welcomed.set()

    def _on_disconnected(self, _: Disconnected) -> None:
        self.reconnect()

    def note_granting(self) -> None:
        """A queue is refused, or given again: ask soon for what is refused."""
        self._grant_s, self._grant_at = GRANT_AFTER_S, self._heard_at + GRANT_AFTER_S

    async def _tick_forever(self) -> None:
        while True:
            await self._clock.sleep(TICK_S)
            self._tick()

    def _tick(self) -> None:
        if self._wire is None or self.peer.fatal:
            return
        if self._monitor is not None:
            self._monitor.check()
        now = self._clock.monotonic()
        late_s, self._ticked_at = now - self._ticked_at, now
        if late_s >= PING_AFTER_S:  # we stood still: what was said meanwhile is not read yet
            self._heard_at = max(self._heard_at, now - PING_AFTER_S)
        silent_s = now - self._heard_at
        if silent_s >= LOST_AFTER_S:
            self.reconnect()
        elif self.peer.refused and now >= self._grant_at and self.connected:
            self._grant_s = min(self._grant_s * 2, GRANT_LONGEST_S)
            self._grant_at = now + self._grant_s
            self.peer.ask_again()
            self.send()
        elif silent_s >= PING_AFTER_S and self.connected:
            self.peer.ping()
            self.send()
        else:
            self._wire.check()
