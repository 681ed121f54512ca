"""The router daemon: owns the loop, the sockets and the clock, and does what the core wants.

One turn: read a bounded burst from the bus -> the core decides -> send what it wants sent -> hand
the gathered batch to the writer if it is idle. What the writer has synced comes back as the next
turn. Start: lock -> store -> restore -> bind -> self-test -> READY. Stop: read no more -> let the
writer finish -> BYE -> close.
"""

import asyncio
import contextlib
import gc
import logging
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from functools import partial
from typing import Any, Final

import uvloop
import zmq

from proto import frames
from proto.drain import DrainedSocket, contents, receive_frames, send_parts
from proto.errors import Code
from proto.exits import EX_CONFIG, EX_IOERR, EX_OK, StartError
from proto.keys import KeyFileError, KeyPair, handed_over
from proto.logs import configure_logs
from proto.message import now_ms
from proto.notify import notify
from proto.wording import set_language, text
from router.config import ConfigError, LoadedSettings, load, needs_restart
from router.core.core import Core, Now
from router.core.delivery import State
from router.core.generations import Generations
from router.core.output import Batch, OpenDelivery
from router.shell import report
from router.shell.accesses import NOTED, OperatorAccesses
from router.shell.gate import Gate, connections_within, raise_descriptor_limit
from router.shell.keyring import Keyring, start_authenticator
from router.shell.lock import lock_folder
from router.shell.operator import Operator
from router.shell.operators import Operators
from router.shell.ops import Command, EventSocket, OpsError, OpsServer
from router.shell.partnermetrics import Labels
from router.shell.partners import Partners
from router.shell.peers import ERRORS, GUESS, SHARE, UNREAD, Peer, Peers, learn_first_id
from router.shell.persons import Persons
from router.shell.pruning import Pruning
from router.shell.retention import Ending
from router.shell.room import Room
from router.shell.socket import IpcPath, bind, open_router, self_test
from router.shell.turns import Turns
from router.shell.writer import Writer
from router.store.contract import Store, StoreError
from router.store.head import head_of
from router.store.sqlite import SqliteStore

BURST_S: Final = 0.002
GATHER_MAX: Final = 4096
BEAT_S: Final = 1.0
CHOSEN_ID: Final = [
    frames.ERROR,
    frames.encode(frames.Error(Code.BAD_FRAME, "leave the routing id to libzmq")),
]
BARRED: Final = {
    ERRORS: frames.Error(Code.TOO_MANY_ERRORS, "too many errors: come back later"),
    SHARE: frames.Error(Code.TOO_MUCH, "more than a share while others publish: come back later"),
}
GATHERED_ROWS_MAX: Final = 16_384
OPS_CONNECTIONS_MAX: Final = 32
STUCK_S: Final = 8.0
FAREWELL_MS: Final = 300
DEPTH_MAX: Final = 2
DEEP_LENGTH_MIN: Final = 1024
OUTCOMES_MAX: Final = 1024
LINGER_S: Final = 0.02
GC_THRESHOLD: Final = 200_000
SWITCH_S: Final = 0.0002
TIDY_LAG_MAX: Final = 200_000
TIMER_S_MAX: Final = 3600.0
TRACE_LIMIT: Final = 1000
FOUND_LIMIT: Final = 10  # subjects of one number

log = logging.getLogger("smpbus.router")


class Daemon:
    """One running router."""

    def __init__(self, loaded: LoadedSettings) -> None:
        self.loaded = loaded
        self.settings = loaded.settings
        self._begun_with = loaded.settings
        self._ipc_paths: list[IpcPath] = []
        self.state = "starting"
        self.started_at = now_ms()
        self.addresses: list[str] = []
        self.store_path = self.settings.store.folder
        self.store_bytes = 0
        self.room: Room
        self.turns = 0
        self.turn_s = 0.0
        self.descriptors = 0
        self.core: Core
        self.gate: Gate
        self.peers: Peers
        self.partners: Partners
        self.accesses: OperatorAccesses
        self.labels = Labels()
        self.writer: Writer
        self.turn_taking: Turns
        self._pruning: Pruning
        self._ending: Ending
        self._operator = Operator(self)
        self._looking: asyncio.Future[tuple[int, int, bool]] | None = None
        self._tidying = False
        self._lingering: asyncio.TimerHandle | None = None
        self._timer: asyncio.TimerHandle | None = None
        self._timer_ms: int | None = None
        self._stopping = asyncio.Event()
        self._clock_doubted = False
        self._keyring: Keyring | None = None
        self._context: zmq.Context[Any] = zmq.Context()
        self._cleanup = contextlib.AsyncExitStack()

    @staticmethod
    def now() -> Now:
        """Return the time as the core wants it."""
        return Now(now_ms(), time.monotonic_ns() // 1_000_000)

    def live(self) -> dict[str, bool]:
        """Return the checks of liveness: the loop turns, and the store lets go of batches."""
        return {"store is not stuck": self.writer.stuck_s() < STUCK_S}

    def ready(self) -> dict[str, bool]:
        """Return the checks of readiness: would a message be accepted now."""
        return {"running": self.state == "running", "disk has room": not self.core.store_full}

    # -- start ------------------------------------------------------------------------------------

    async def run(self) -> None:
        """Run until asked to stop. Raises StartError."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._reload_logged)
        async with self._cleanup:
            await self._start()
            await self._serve()
            await self._stop()

    async def _start(self) -> None:
        store_folder = self.settings.store.folder
        descriptor = lock_folder(store_folder, self.loaded.path)
        self._cleanup.callback(os.close, descriptor)
        key = self._load_keys()
        self.room = Room(store_folder, self.settings.store.free_bytes_min)
        self.room.make_way()
        await self._open_store(SqliteStore(store_folder))
        self._cleanup.callback(self._context.destroy, 0)
        self.descriptors = raise_descriptor_limit()
        self._open_ops()  # a long backlog takes seconds to take up: `status` says so meanwhile
        await self._restore()
        if self._keyring is not None:
            authenticator = start_authenticator(self._context, self._keyring)
            self._cleanup.callback(authenticator.stop)
            self.core.names = self._keyring.names
        self._open_bus(key)
        self._judge_disk()

    def _load_keys(self) -> KeyPair | None:
        bus = self.settings.bus
        if not bus.curve:
            log.warning(text("router.no_curve"))
            return None
        try:
            self._keyring = Keyring(bus.keys_dir)
            return KeyPair.load(handed_over(bus.key.name) or bus.key)
        except KeyFileError as error:
            sentence = text("router.key_failed", reason=error, where=self.loaded.where("bus.key"))
            raise StartError(sentence, EX_CONFIG) from None

    async def _open_store(self, store: Store) -> None:
        self.writer = Writer(store, self._written)
        self._pruning = Pruning(self.writer, lambda: self.settings.store)
        self._ending = Ending(self.writer, lambda: self.settings.retention, self._operator.drop)
        try:
            self._opened = opened = await self.writer.query(lambda s: s.open(now_ms()))
        except StoreError as error:
            raise _untrusted(error) from None
        self._cleanup.push_async_callback(self.writer.close)
        self.core = Core(self.settings, opened.bus, opened.epoch, random.Random())
        self.core.generations = Generations(opened.generations)
        self.partners = Partners(self.core)
        for destination, totals in opened.totals.items():
            self.core.queue_of(destination).totals.update(totals)
        for destination, reason in opened.holds.items():
            self.core.queue_of(destination).hold = reason
        self.store_bytes = await self.writer.query(lambda s: s.size_bytes())

    async def _restore(self) -> None:
        """Take up what is open. On the writer's thread: nothing else changes the core yet."""
        core, opened, now = self.core, self._opened, self.now()
        try:
            await self.writer.query(
                lambda s: core.restore(
                    s.filed(),
                    list(s.recent()),
                    opened.next_n,
                    opened.next_delivery,
                    now,
                    opened.newest_ms,
                )
            )
        except StoreError as error:
            raise _untrusted(error) from None
        if count := sum(queue.open for queue in core.queues.values()):
            log.info(text("router.restored", count=count))

    def _open_bus(self, key: KeyPair | None) -> None:
        bus = self.settings.bus
        socket = open_router(self._context, key, bus.frame_bytes_max, bus.frames_unread_max)
        first_id = learn_first_id(socket)
        most = connections_within(self.descriptors, bus.connections_max)
        if most < bus.connections_max:
            fields = {"limit": self.descriptors, "most": most, "wanted": bus.connections_max}
            log.warning(text("router.few_descriptors", **fields))
        self.gate = self._guard(socket, "bus", most, bus.session_timeout_ms / 1000)
        self.peers = Peers(bus, self.gate, first_id)
        self.turn_taking = Turns(self.peers)
        self.core.supply_bytes = self.peers.supply_bytes
        for address in bus.listen:
            bound = self._bind(socket, address, bus.ipc_mode, "bus.listen")
            self.addresses.append(bound)
            if key is not None:
                self_test(self._context, bound, key.public)
        self._bus = DrainedSocket(socket, self._read_burst)
        self._cleanup.callback(self._bus.close)

    def _bind(self, socket: "zmq.Socket[bytes]", address: str, mode: str, key: str) -> str:
        where = self.loaded.where(key)
        bound = bind(socket, address, mode, where)
        if address.startswith("ipc:///"):
            self._ipc_paths.append(IpcPath(socket, address, mode, where))
        return bound

    def _guard(
        self, socket: "zmq.Socket[bytes]", name: str, most: int, patience_s: float = 0.0
    ) -> Gate:
        gate = Gate(socket, name, most, patience_s)
        self._cleanup.callback(gate.close)
        return gate

    def _open_ops(self) -> None:
        ops, where = self.settings.ops, self.loaded.where
        socket: zmq.Socket[bytes] = self._context.socket(zmq.ROUTER)
        socket.setsockopt(zmq.LINGER, 100)
        socket.setsockopt(zmq.MAXMSGSIZE, 1024 * 1024)
        self._guard(socket, "ops", OPS_CONNECTIONS_MAX)
        self._bind(socket, ops.listen, ops.ipc_mode, "ops.listen")
        self.accesses = OperatorAccesses(self.settings.store)
        self._cleanup.push_async_callback(self.accesses.close)
        operators = Operators(lambda: self.settings.ops)
        self._cleanup.callback(operators.close)
        self._ops = OpsServer(socket, self._commands(), operators.admit)
        self._cleanup.callback(self._ops.close)
        events: zmq.Socket[bytes] = self._context.socket(zmq.XPUB)
        events.setsockopt(zmq.LINGER, 0)
        events.setsockopt(zmq.XPUB_VERBOSER, 1)
        self._events_gate = self._guard(events, "events", OPS_CONNECTIONS_MAX)
        self._bind(events, ops.events, ops.ipc_mode, "ops.events")
        self._events = EventSocket(events, self._observe)
        self._cleanup.callback(self._events.close)
        if ops.http:
            from router.shell.pages import Pages, listen  # a whole HTTP server, for who wants one

            pages = Pages(self, listen(ops.http, where("ops.http")))
            self._cleanup.push_async_callback(pages.close)

    # -- turning ----------------------------------------------------------------------------------

    async def _serve(self) -> None:
        self.state = "running"
        self.gate.begin(0 if self._keyring is None else len(self.addresses))  # see self_test
        log.info(text("router.running", addresses=", ".join(self.addresses)))
        notify("READY=1")
        while not self._stopping.is_set():
            self._beat()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), BEAT_S)

    def _read_burst(self) -> bool:
        began = time.perf_counter()
        bus, peers, turns, now = self._bus, self.peers, self.turn_taking, self.now()
        more = not turns.is_full
        while more and time.perf_counter() - began < BURST_S:
            if not bus.has_more():
                more = False
                break
            received = receive_frames(bus.socket)
            # The key is read off the very frame in hand: a routing id proves nothing.
            key = str(received[-1].get("User-Id")).encode() if self._keyring is not None else b""
            id = received[0].bytes
            peer = peers.get(id) or self._meet(id, key, received[-1])
            if peer.dismissed or peer.key != key or peer.party.cut:
                continue
            if peer.begun or peer.waiting or (turns.is_over(peer.party) and says_publish(received)):
                turns.put_off(peer, received)
            else:
                self._take(peer, received, now)
            more = not turns.is_full
            if self._is_full(self.core.out.batch):
                bus.pause()  # the disk is behind: let senders wait in their own queues
                more = False
        if turns:
            self._go_on(now)
        self._flush()
        self.turns += 1
        self.turn_s = time.perf_counter() - began
        return more or turns.may_go_on()

    def _take(self, peer: Peer, received: list[zmq.Frame], now: Now) -> None:
        """Give a frame to the core."""
        peers, parts = self.peers, [contents(frame) for frame in received[1:]]
        if peer.marks and parts[0] == frames.PONG:
            self._take_pong(peer, parts, now)
        if peers.exceeds_share(peer, len(parts[-1])):
            self.turn_taking.cut(peer)
            return
        begin = partial(self.core.begin, peer.id, peer.key, parts, now)
        self._account(peer, parts[0] == frames.PUBLISH, begin)
        if peer.begun:
            self.turn_taking.wait(peer, len(parts[-1]))

    def _go_on(self, now: Now) -> None:
        """Let those go on who wait and whose turn has come, each a step."""
        core, turns, until = self.core, self.turn_taking, time.perf_counter() + BURST_S
        for peer in turns:
            if self._is_full(core.out.batch):
                self._bus.pause()
                return
            if time.perf_counter() > until:
                return
            if peer.begun:
                self._account(peer, True, partial(core.proceed, peer.id, now))
                if not peer.begun:
                    turns.end(peer)
            elif peer.party.cut:
                turns.leave(peer)
                self.peers.bar_for_share(peer.party)
                self._bar(peer)
            elif peer.dismissed:
                turns.leave(peer)
            elif received := turns.next_of(peer):
                self._take(peer, received, now)
            else:
                turns.leave(peer)

    def _account(self, peer: Peer, published: bool, work: Callable[[], bool]) -> None:
        """Have the core do a piece of work for a peer, and count what it costs."""
        core, peers = self.core, self.peers
        batch, faults = core.out.batch, core.faults
        rows, size = rows_of(batch), batch.size
        peer.begun = work()
        rows = rows_of(batch) - rows
        if core.faults != faults and peers.blame(peer, core.faults - faults):
            self._bar(peer)
            return
        peers.charge(peer, rows, published)
        if rows:
            self.turn_taking.count(peer.party, rows, batch.size - size)

    def _is_full(self, batch: Batch) -> bool:
        """Whether a batch holds as much as one write to the disk should."""
        if batch.size >= self.settings.bus.gather_bytes_max:
            return True
        rows = len(batch.outcomes) + len(batch.attempts)
        return len(batch.messages) >= GATHER_MAX or rows >= GATHERED_ROWS_MAX

    def _flush(self) -> None:
        """Carry out what the core wants."""
        core = self.core
        out = core.out
        while out.sends:
            sends, out.sends = out.sends, []
            unsent: dict[bytes, list[list[bytes]]] = {}
            for peer, parts in sends:
                if peer in unsent or not self._send(peer, parts):
                    unsent.setdefault(peer, []).append(parts)
            for peer, lost in unsent.items():
                core.unsent(peer, lost, self.now())
        self._bus.check()
        if out.events:
            events, out.events = out.events, []
            for topic, event in events:
                self._events.publish(topic, event)
            self._events.check()
        if out.batch:
            self._hand_over(out.batch)
        self._schedule()

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
            self.writer.write(self.core.take_batch())
            self.turn_taking.begin()

    async def commit(self) -> None:
        """Wait until all that the core has gathered so far is on disk."""
        batch = self.core.out.batch
        while batch is self.core.out.batch and batch:
            self._write()
            await asyncio.sleep(0)
        await self.writer.query(lambda store: None)
        self._flush()

    def _send(self, id: bytes, parts: list[bytes]) -> bool:
        """Return whether a frame is on its way. Not if its peer is unknown (it left) or clogged (it
        does not read): either way its hands are empty."""
        peers, size = self.peers, len(parts[1])
        peer = peers.get(id)
        if peer is not None:
            if peer.dismissed or not peers.is_there(peer):
                return False
            if not peers.has_room(peer, size):
                peers.dismiss(peer, UNREAD, self._name_of(peer))
                return False
        try:
            send_parts(self._bus.socket, (id, *parts))
        except zmq.ZMQError:
            return False
        if peer is not None and peers.note_sent(peer, size):
            self._mark(peer)
        return True

    # -- peers ------------------------------------------------------------------------------------

    def _name_of(self, peer: Peer) -> str | None:
        session = self.core.sessions.get(peer.id)
        return session.name if session else self.core.names.get(peer.key)

    def _meet(self, id: bytes, key: bytes, frame: zmq.Frame) -> Peer:
        """Take up a peer whose first frame this is, or turn it away with one sentence."""
        peers = self.peers
        peer = peers.meet(id, key, frame)
        if peers.is_chosen(id):
            self._send(id, CHOSEN_ID)
            peers.dismiss(peer, GUESS, self._name_of(peer))
            if peers.guess(peer):
                self._bar(peer)
        elif peers.barred_s(peer):
            self._bar(peer)
        return peer

    def _bar(self, peer: Peer) -> None:
        """End all sessions and connections of a peer's key, which is not listened to for a time."""
        peer.party.cut = False
        for one in list(peer.party.peers):
            if not one.dismissed:
                why = peer.party.why
                self._send(one.id, [frames.ERROR, frames.encode(BARRED[why])])
                self.peers.dismiss(one, why, self._name_of(one))
                self.core.gone(one.id, self.now(), BARRED[why].code)

    def _mark(self, peer: Peer) -> None:
        """Find out what a peer reads, and let go of the slowest if all have too much to read."""
        with contextlib.suppress(zmq.ZMQError):
            send_parts(self._bus.socket, (peer.id, *self.peers.mark(peer)))
        if slowest := self.peers.slowest():
            self.peers.dismiss(slowest, UNREAD, self._name_of(slowest))
            self.core.gone(slowest.id, self.now(), "unreachable")

    def _take_pong(self, peer: Peer, parts: list[bytes], now: Now) -> None:
        with contextlib.suppress(frames.FrameError):
            pong = frames.read(parts, frames.ROUTER_READS)
            session = self.core.sessions.get(peer.id)
            if isinstance(pong, frames.Ping) and self.peers.answered(peer, pong.nonce) and session:
                self.core.feed(session, self.peers.supply_bytes - peer.unread, now)

    def _tidy_peers(self) -> None:
        self.peers.tidy(self.core.sessions.__contains__)

    def _written(
        self, batch: Batch, duplicates: dict[int, int], loaded: list[list[OpenDelivery]]
    ) -> None:
        self.core.persisted(batch, duplicates, self.now(), loaded)
        self.turn_taking.written()
        self._flush()
        if self.state == "running":
            self._bus.resume()
            if self.turn_taking:
                self._bus.wake()

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
        self.core.tick(self.now())
        self._flush()

    # -- once a second ----------------------------------------------------------------------------

    def _beat(self) -> None:
        self.core.beat(self.now())
        self._tell_clock()
        self.core.observed = len(self._events_gate) > 0
        self._tell_partners()
        self._refresh_keys()
        self._tidy_peers()
        self._mend_paths()
        self._judge_disk()
        self._look_at_store()
        if all(self.live().values()):
            notify("WATCHDOG=1")
        self._pruning.beat(self.now())
        self._ending.beat(self.now())
        self._tidy()
        self._flush()

    def _tell_clock(self) -> None:
        doubted = self.core.is_clock_doubted(self.now())
        if doubted != self._clock_doubted:
            self._clock_doubted = doubted
            log.warning(text("router.clock_doubted" if doubted else "router.clock_believed"))

    def _mend_paths(self) -> None:
        for one in self._ipc_paths:
            if told := one.mend():
                log.error(text(told, path=one.path))

    def _tell_partners(self) -> None:
        for event in self.partners.watch():
            if self.core.observed:
                self._events.publish("partner", event)
                self._events.check()

    def _tidy(self) -> None:
        """Let the store catch up with what it puts off, in steps that delay nobody."""
        if not self._tidying:
            self._tidying = True
            self.writer.query(lambda s: s.tidy()).add_done_callback(self._tidied)

    def _tidied(self, left: "asyncio.Future[int]") -> None:
        self._tidying = False
        if not left.cancelled() and left.exception() is None:
            behind = left.result()
            if behind > TIDY_LAG_MAX or (behind and not self.writer.depth):
                self._tidy()

    def _refresh_keys(self, force: bool = False) -> None:
        if self._keyring is not None and self._keyring.refresh(force):
            self.core.know(self._keyring.names, self.now())

    def keys(self) -> dict[str, Any]:
        """Return whose keys are in force, and which files admit nobody and why."""
        ring = self._keyring
        if ring is None:
            return {}
        return {"admitted": sorted(ring.names.values()), "refused": ring.refused}

    def _judge_disk(self) -> None:
        """Refuse new messages while there is little room, emergencies last."""
        core, room = self.core, self.room
        core.room_bytes = room.judge(core.unsynced_bytes())
        core.urgent_bytes = room.urgent_bytes
        core.store_full = room.is_full

    def _look_at_store(self) -> None:
        if self._looking is None or self._looking.done():
            self._looking = self.writer.query(_figures_of)
            self._looking.add_done_callback(self._looked_at)

    def _looked_at(self, answer: "asyncio.Future[tuple[int, int, bool]]") -> None:
        if answer.cancelled() or answer.exception() is not None:
            return
        self.store_bytes, self.room.inside_bytes, is_in_place = answer.result()
        if not is_in_place and self.state == "running":
            self.state = "failed"
            self.writer.rescue()

    # -- commands ---------------------------------------------------------------------------------

    def _commands(self) -> dict[str, Any]:
        async def status(_: dict[str, Any]) -> dict[str, Any]:
            return report.status(self)

        async def queues(_: dict[str, Any]) -> dict[str, Any]:
            return {"queues": report.queue_rows(self)}

        async def sessions(_: dict[str, Any]) -> dict[str, Any]:
            return {"sessions": report.session_rows(self)}

        async def partners(_: dict[str, Any]) -> dict[str, Any]:
            return {"partners": self.partners.rows()}

        async def metrics(_: dict[str, Any]) -> dict[str, Any]:
            return {"text": report.metrics_page(self).decode()}

        async def versions(_: dict[str, Any]) -> dict[str, Any]:
            return report.versions()

        async def reload(_: dict[str, Any]) -> dict[str, Any]:
            return self._reload()

        operator = self._operator
        commands = operator.commands() | Persons(self, operator).commands() | {
            "queues": queues, "sessions": sessions, "partners": partners, "metrics": metrics,
            "trace": self._trace, "reload": reload,
        }  # fmt: skip
        waiting = {
            name: self._when_started(self._noted(name, command))
            for name, command in commands.items()
        }
        return waiting | {"status": status, "version": versions}

    def _noted(self, name: str, command: Command) -> Command:
        async def answer(request: dict[str, Any]) -> dict[str, Any]:
            result = await command(request)
            await self.accesses.note(name, request, result)
            return result

        return answer if name in NOTED else command

    def _when_started(self, command: Command) -> Command:
        async def answer(request: dict[str, Any]) -> dict[str, Any]:
            if self.state == "starting":
                raise OpsError("starting", text("router.starting"))
            return await command(request)

        return answer

    async def _trace(self, request: dict[str, Any]) -> dict[str, Any]:
        subject = request.get("subject")
        if not isinstance(subject, str) or not subject:
            raise OpsError("bad_request", "trace needs a subject")
        await self.commit()  # what was settled a moment ago belongs to the story
        hops, more = await self._story(subject)
        others: list[str] = []
        if not hops:  # a number by which another system knows it?
            number = subject
            search = self.writer.search(lambda store: store.subject_steps(number, FOUND_LIMIT))
            found = [one async for step in search for one in step]
            subject, *others = found or [subject]
            hops, more = await self._story(subject)
        return {"subject": subject, "others": others, "messages": hops, "earlier": more}

    async def _story(self, subject: str) -> tuple[list[dict[str, Any]], int]:
        """Return the newest messages of a subject, in order, and how many earlier ones it has."""
        search = self.writer.search(lambda store: store.trace_steps(subject, TRACE_LIMIT))
        hops: list[dict[str, Any]] = []
        more = 0
        async for step in search:
            told = [row for row in step if "id" in row]
            hops += [self._hop(row) for row in told]
            more += len(step) - len(told)
        return hops[::-1], more

    def _hop(self, row: dict[str, Any]) -> dict[str, Any]:
        message, row["size"] = head_of(row.pop("head"), row["size"])
        row["type"] = message.type
        row["priority"] = message.priority
        row["time"] = message.time
        row["correlation_id"] = message.correlation_id
        for delivery in row["deliveries"]:
            delivery["generation"] = self.core.generations.of(delivery["delivery"])
            state = delivery["state"]
            delivery["settled_at"] = delivery.pop("ended_at")
            delivery["due"] = None
            if state is not None:
                delivery["state"] = State(state).name.lower()
                continue
            held = self.core.find(delivery["delivery"])
            delivery["state"] = _OPEN_WORDS[held.state] if held else "pending"
            if held is None and (message.not_before or 0) > now_ms():
                delivery["state"], delivery["due"] = "delayed", message.not_before
            if held:
                delivery["due"] = held.due
                delivery["attempts"] = held.attempts
                delivery["delivered_at"] = held.delivered_at
        return row

    def _observe(self) -> None:
        """Make events from a word on the socket for them on, while anybody is connected to it."""
        self.core.observed = True

    def _reload(self) -> dict[str, Any]:
        """Put routes, permissions and limits in force, or refuse the whole with one sentence."""
        try:
            loaded = load(self.loaded.path, self.loaded.overrides)
        except ConfigError as error:
            raise OpsError("config", str(error)) from None
        self._refresh_keys(force=True)
        self.loaded = loaded
        self.settings = loaded.settings
        self.peers.configure(loaded.settings.bus)
        self.gate.patience_s = loaded.settings.bus.session_timeout_ms / 1000
        logging.getLogger().setLevel(loaded.settings.log.level.upper())
        self.core.configure(loaded.settings, self.now())
        self._flush()
        log.info(text("router.reloaded", file=loaded.path))
        ignored = needs_restart(self._begun_with, loaded.settings)
        if ignored:
            log.warning(text("router.reload_ignored", keys=", ".join(ignored)))
        return {"digest": loaded.digest, "ignored": ignored}

    def _reload_logged(self) -> None:
        if self.state == "starting":  # what is taken up may not change meanwhile
            asyncio.get_running_loop().call_later(BEAT_S, self._reload_logged)
            return
        notify("RELOADING=1")
        try:
            self._reload()
        except OpsError as error:
            log.error(error.sentence)
        notify("READY=1")

    # -- stop -------------------------------------------------------------------------------------

    async def _write_all(self) -> None:
        while self.writer.depth or self.core.out.batch:
            self._flush()
            self._write()
            await asyncio.sleep(0.005)

    async def _stop(self) -> None:
        notify("STOPPING=1")
        self._pruning.close()
        self._ending.close()
        self.state = "stopping"
        self._bus.pause()
        log.info(text("router.stopping"))
        await self._write_all()
        self.core.farewell()
        self._flush()
        await self._write_all()  # whoever could not be told has given back what it held
        self.state = "stopped"
        self._bus.socket.setsockopt(zmq.LINGER, FAREWELL_MS)
        log.info(text("router.stopped"))


_OPEN_WORDS: Final = {
    State.DELAYED: "delayed",
    State.WAITING: "pending",
    State.READY: "pending",
    State.IN_FLIGHT: "in_flight",
    State.RETRYING: "retrying",
}


def _figures_of(store: Store) -> tuple[int, int, bool]:
    return store.size_bytes(), store.empty_bytes(), store.is_in_place()


def says_publish(received: list[zmq.Frame]) -> bool:
    """Whether what came is a PUBLISH."""
    return len(received) > 1 and received[1].bytes == frames.PUBLISH


def rows_of(batch: Batch) -> int:
    """Return how many rows of a batch cost work: messages, and attempts that came to nothing."""
    return len(batch.messages) + len(batch.attempts)


def _untrusted(error: StoreError) -> StartError:
    return StartError(text("router.store_untrusted", reason=error), EX_IOERR)


def run(loaded: LoadedSettings) -> int:
    """Run a router until it is told to stop; return its exit status."""
    set_language(loaded.settings.log.language)
    configure_logs(loaded.settings.log.level)

    # The hot path makes no cycles, so the collector would only walk what is open, again and again.
    gc.set_threshold(GC_THRESHOLD, 20, 20)
    # The store's thread needs the interpreter for microseconds between statements: the default
    # 5 ms wait for it would be longer than a commit.
    sys.setswitchinterval(SWITCH_S)

    async def main() -> None:
        await Daemon(loaded).run()

    try:
        uvloop.run(main())
    except StartError as error:
        print(text("log.error", sentence=error.sentence), file=sys.stderr)
        return error.exit_code
    return EX_OK
