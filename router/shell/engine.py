"""The turn: what the bus brings goes into the core, and what the core wants is carried out.

Read a bounded burst from the bus -> the core decides -> send what it wants sent -> hand the
gathered batch to the writer if that serves the group commit. What the writer has synced comes back
as the next turn, and so does a timer.

An engine is "starting", "running", "stopping" (it reads no more) and "stopped" (it writes no more);
"failed" when the journal has lost its place.
"""

import asyncio
import logging
import time
from collections.abc import Callable
from functools import partial
from typing import Final

import zmq

from proto import frames
from proto.drain import DrainedSocket, contents, receive_frames
from proto.wording import text
from router.core.clock import Now
from router.core.core import Core
from router.core.output import Batch, OpenDelivery
from router.settings import Settings
from router.shell.bus import Bus
from router.shell.clock import now
from router.shell.ops import EventSocket
from router.shell.peers import Peer
from router.shell.turns import Turns
from router.shell.writer import Writer

BURST_S: Final = 0.002
GATHER_MAX: Final = 4096
GATHERED_ROWS_MAX: Final = 16_384
STUCK_S: Final = 8.0
FAREWELL_MS: Final = 300
DEPTH_MAX: Final = 2
DEEP_LENGTH_MIN: Final = 1024
OUTCOMES_MAX: Final = 1024
LINGER_S: Final = 0.02
TIMER_S_MAX: Final = 3600.0

log = logging.getLogger("smpbus.router")


class Engine:
    """Turns the core over between the bus and the writer."""

    def __init__(self, core: Core, writer: Writer, bus: Bus, events: EventSocket) -> None:
        self.core = core
        self.writer = writer
        self.bus = bus
        self.turns = Turns(bus.peers)
        self.state = "starting"
        self.turn_count = 0
        self.turn_s = 0.0  # that the latest turn took
        self._events = events
        self._inbound = DrainedSocket(bus.socket, self._read_burst)
        self._inbound.pause()  # until it begins: the core is not to be touched while it is restored
        self._lingering: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ms: int | None = None

    def live(self) -> dict[str, bool]:
        """Return the checks of liveness: the loop turns, and the store lets go of batches."""
        return {"store is not stuck": self.writer.stuck_s() < STUCK_S}

    def ready(self) -> dict[str, bool]:
        """Return the checks of readiness: would a message be accepted now."""
        return {"running": self.state == "running", "disk has room": not self.core.store_full}

    def begin(self) -> None:
        """The start is over: messages are taken from now on."""
        self.state = "running"
        self._inbound.resume()
        # Of those whom the gate turned away so far some were our own: see self_test.
        self.bus.gate.begin(len(self.bus.addresses) if self.bus.has_keys else 0)

    def configure(self, settings: Settings) -> None:
        """Put routes, permissions and limits in force."""
        self.bus.configure(settings.bus)
        self.core.configure(settings, now())
        self.flush()

    # -- reading ----------------------------------------------------------------------------------

    def _read_burst(self) -> bool:
        began = time.perf_counter()
        bus, peers, turns, at = self.bus, self.bus.peers, self.turns, now()
        inbound, has_keys = self._inbound, bus.has_keys
        more = not turns.is_full
        while more and time.perf_counter() - began < BURST_S:
            if not inbound.has_more():
                more = False
                break
            received = receive_frames(bus.socket)
            # The key is read off the very frame in hand: a routing id proves nothing.
            key = str(received[-1].get("User-Id")).encode() if has_keys else b""
            id = received[0].bytes
            peer = peers.get(id) or bus.meet(id, key, received[-1])
            if peer.dismissed or peer.key != key or peer.party.cut:
                continue
            if peer.begun or peer.waiting or (turns.is_over(peer.party) and says_publish(received)):
                turns.put_off(peer, received)
            else:
                self._take(peer, received, at)
            more = not turns.is_full
            if self._is_full(self.core.out.batch):
                inbound.pause()  # the disk is behind: let senders wait in their own queues
                more = False
        if turns:
            self._go_on(at)
        self.flush()
        self.turn_count += 1
        self.turn_s = time.perf_counter() - began
        return more or turns.may_go_on()

    def _take(self, peer: Peer, received: list[zmq.Frame], at: Now) -> None:
        """Give a frame to the core."""
        parts = [contents(frame) for frame in received[1:]]
        if peer.marks and parts[0] == frames.PONG:
            self.bus.take_pong(peer, parts, at)
        if self.bus.peers.exceeds_share(peer, len(parts[-1])):
            self.turns.cut(peer)
            return
        begin = partial(self.core.begin, peer.id, peer.key, parts, at)
        self._account(peer, parts[0] == frames.PUBLISH, begin)
        if peer.begun:
            self.turns.wait(peer, len(parts[-1]))

    def _go_on(self, at: Now) -> None:
        """Let those go on who wait and whose turn has come, each a step."""
        core, turns, until = self.core, self.turns, time.perf_counter() + BURST_S
        for peer in turns:
            if self._is_full(core.out.batch):
                self._inbound.pause()
                return
            if time.perf_counter() > until:
                return
            if peer.begun:
                self._account(peer, True, partial(core.proceed, peer.id, at))
                if not peer.begun:
                    turns.end(peer)
            elif peer.party.cut:
                turns.leave(peer)
                self.bus.peers.bar_for_share(peer.party)
                self.bus.bar(peer)
            elif peer.dismissed:
                turns.leave(peer)
            elif received := turns.next_of(peer):
                self._take(peer, received, at)
            else:
                turns.leave(peer)

    def _account(self, peer: Peer, published: bool, work: Callable[[], bool]) -> None:
        """Have the core do a piece of work for a peer, and count what it costs."""
        core, peers = self.core, self.bus.peers
        batch, faults = core.out.batch, core.faults
        rows, size = rows_of(batch), batch.size
        peer.begun = work()
        rows = rows_of(batch) - rows
        if core.faults != faults and peers.blame(peer, core.faults - faults):
            self.bus.bar(peer)
            return
        peers.charge(peer, rows, published)
        if rows:
            self.turns.count(peer.party, rows, batch.size - size)

    def _is_full(self, batch: Batch) -> bool:
        """Whether a batch holds as much as one write to the disk should."""
        if batch.size >= self.core.settings.bus.gather_bytes_max:
            return True
        rows = len(batch.outcomes) + len(batch.attempts)
        return len(batch.messages) >= GATHER_MAX or rows >= GATHERED_ROWS_MAX

    # -- carrying out -----------------------------------------------------------------------------

    def flush(self) -> None:
        """Carry out what the core wants."""
        core, send = self.core, self.bus.send
        out = core.out
        while out.sends:
            sends, out.sends = out.sends, []
            unsent: dict[bytes, list[list[bytes]]] = {}
            for peer, parts in sends:
                if peer in unsent or not send(peer, parts):
                    unsent.setdefault(peer, []).append(parts)
            for peer, lost in unsent.items():
                core.unsent(peer, lost, now())
        self._inbound.check()
        if out.events:
            events, out.events = out.events, []
            for topic, event in events:
                self._events.publish(topic, event)
            self._events.check()
        if out.batch:
            self._hand_over(out.batch)
        self._schedule()

    def publish_events(self, topic: str, events: list[dict[str, object]]) -> None:
        """Publish events that the core does not make, if anybody watches."""
        if events and self.core.observed:
            for event in events:
                self._events.publish(topic, event)
            self._events.check()

    def _hand_over(self, batch: Batch) -> None:
        """Give the gathered batch to the writer when that serves the group commit.

        An idle writer takes whatever a sender waits for. Behind a batch in hand a second one may
        queue if it is large: then the disk never waits for the loop, and groups stay big.
        """
        depth = self.writer.depth
        if batch.hurries:
            if not depth or (depth < DEPTH_MAX and len(batch.messages) >= DEEP_LENGTH_MIN):
                self._write()
        elif not depth and len(batch.outcomes) >= OUTCOMES_MAX:
            self._write()
        elif not depth and self._lingering is None:
            # Nobody waits for a settlement to be on disk: let it travel with what follows.
            loop = asyncio.get_running_loop()
            self._lingering = loop.call_later(LINGER_S, self._write)

    def _write(self) -> None:
        if self._lingering is not None:
            self._lingering.cancel()
            self._lingering = None
        if self.state == "stopped":
            return  # the journal is closed, or about to be
        if self.core.out.batch and self.writer.depth < DEPTH_MAX:
            self.writer.write(self.core.take_batch(), self._written)
            self.turns.begin()

    def _written(
        self, batch: Batch, duplicates: dict[int, int], loaded: list[list[OpenDelivery]]
    ) -> None:
        self.core.persisted(batch, duplicates, now(), loaded)
        self.turns.written()
        self.flush()
        if self.state == "running":
            self._inbound.resume()
            if self.turns:
                self._inbound.wake()

    async def commit(self) -> None:
        """Wait until all that the core has gathered so far is on disk."""
        batch = self.core.out.batch
        while batch is self.core.out.batch and batch:
            self._write()
            await asyncio.sleep(0)
        await self.writer.query(lambda store: None)
        self.flush()

    # -- time -------------------------------------------------------------------------------------

    def _schedule(self) -> None:
        due = self.core.next_timer_ms()
        if due is None or (self._timer_ms is not None and self._timer_ms <= due):
            return
        if self._timer is not None:
            self._timer.cancel()
        self._timer_ms = due
        delay = min(max(0.0, due / 1000 - time.monotonic()), TIMER_S_MAX)  # a peer chose it
        self._timer = asyncio.get_running_loop().call_later(delay, self._fire)

    def _fire(self) -> None:
        self._timer = self._timer_ms = None
        self.core.tick(now())
        self.flush()

    # -- end --------------------------------------------------------------------------------------

    def fail(self) -> None:
        """The journal has lost its place: save what it holds, and end the process."""
        if self.state == "running":
            self.state = "failed"
            self.writer.rescue()

    async def stop(self) -> None:
        """Read no more, let the writer finish, say BYE to all, and close the bus."""
        self.state = "stopping"
        self._inbound.pause()
        log.info(text("router.stopping"))
        await self._write_all()
        self.core.farewell()
        self.flush()
        await self._write_all()  # whoever could not be told has given back what it held
        self.state = "stopped"
        self.bus.socket.setsockopt(zmq.LINGER, FAREWELL_MS)
        self.close()
        log.info(text("router.stopped"))

    def close(self) -> None:
        """Close the bus, whatever waits to be sent."""
        self._inbound.close()
        self.bus.gate.close()

    async def _write_all(self) -> None:
        while self.writer.depth or self.core.out.batch:
            self.flush()
            self._write()
            await asyncio.sleep(0.005)


def says_publish(received: list[zmq.Frame]) -> bool:
    """Whether what came is a PUBLISH."""
    return len(received) > 1 and received[1].bytes == frames.PUBLISH


def rows_of(batch: Batch) -> int:
    """Return how many rows of a batch cost work: messages, and attempts that came to nothing."""
    return len(batch.messages) + len(batch.attempts)
