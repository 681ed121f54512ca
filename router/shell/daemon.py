"""The router daemon: starts, serves and stops.

Start: lock -> store -> restore -> bind -> self-test -> READY. Serve: the engine turns by itself,
and once a second there is a look round. Stop: read no more -> let the writer finish -> BYE ->
close.
"""

import asyncio
import contextlib
import gc
import logging
import os
import random
import signal
import sys
from functools import partial
from typing import Any, Final

import uvloop
import zmq

from proto.exits import EX_CONFIG, EX_IOERR, EX_OK, StartError
from proto.keys import KeyFileError, KeyPair, handed_over
from proto.logs import configure_logs
from proto.message import now_ms
from proto.notify import notify
from proto.wording import set_language, text
from router.config import LoadedSettings
from router.core.clock import Now
from router.core.core import Core
from router.shell import commands
from router.shell.accesses import OperatorAccesses
from router.shell.bus import Bus
from router.shell.clock import now
from router.shell.disk import Disk
from router.shell.engine import Engine
from router.shell.gate import Gate, connections_within, raise_descriptor_limit
from router.shell.keyring import Keyring, start_authenticator
from router.shell.lock import lock_folder
from router.shell.operator import Operator
from router.shell.operators import Operators
from router.shell.ops import Command, EventSocket, OpsServer
from router.shell.partners import Partners
from router.shell.reload import Reload
from router.shell.report import Report
from router.shell.room import Room
from router.shell.socket import IpcPath, bind, self_test
from router.shell.writer import Writer
from router.store.contract import Opened, StoreError
from router.store.sqlite import SqliteStore

BEAT_S: Final = 1.0
OPS_CONNECTIONS_MAX: Final = 32
GC_THRESHOLD: Final = 200_000
SWITCH_S: Final = 0.0002

log = logging.getLogger("smpbus.router")


class Daemon:
    """One router process."""

    def __init__(self, loaded: LoadedSettings) -> None:
        self._loaded = loaded
        self._started_at = now_ms()
        self._ipc_paths: list[IpcPath] = []
        self._clock_doubted = False
        self._stopping = asyncio.Event()
        self._context: zmq.Context[Any] = zmq.Context()
        self._cleanup = contextlib.AsyncExitStack()
        self._keyring: Keyring | None = None
        self._engine: Engine
        self._disk: Disk
        self._partners: Partners
        self._events_gate: Gate
        self._reload: Reload | None = None  # until the start is over

    async def run(self) -> None:
        """Run until asked to stop. Raises StartError."""
        loop = asyncio.get_running_loop()
        for number in (signal.SIGTERM, signal.SIGINT):
            loop.add_signal_handler(number, self._stopping.set)
        loop.add_signal_handler(signal.SIGHUP, self._hang_up)
        async with self._cleanup:
            self._reload = await self._start()
            await self._serve()
            await self._stop()

    # -- start ------------------------------------------------------------------------------------

    async def _start(self) -> Reload:
        store = self._loaded.settings.store
        descriptor = lock_folder(store.folder, self._loaded.path)
        self._cleanup.callback(os.close, descriptor)
        key = self._load_keys()
        room = Room(store.folder, store.free_bytes_min)
        room.make_way()
        writer, opened = await self._open_store()
        self._cleanup.callback(self._context.destroy, 0)
        core = self._make_core(opened)
        descriptors = raise_descriptor_limit()
        ops, events = self._bind_ops()
        watched = EventSocket(events, partial(_observe, core))
        self._cleanup.callback(watched.close)
        engine = self._engine = Engine(
            core, writer, self._make_bus(core, key, descriptors), watched
        )
        self._cleanup.callback(engine.close)
        operator = Operator(engine)
        self._disk = Disk(engine, room, operator.drop)
        await self._disk.begin()
        self._partners = Partners(core)
        accesses = OperatorAccesses(store)
        self._cleanup.push_async_callback(accesses.close)
        report = Report(
            engine, self._disk, self._partners, accesses, self._keyring,
            store.folder, descriptors, self._started_at,
        )  # fmt: skip
        reload = Reload(engine, self._keyring, self._loaded)
        # A long backlog takes seconds to take up: `status` says so meanwhile.
        self._answer(ops, commands.table(report, operator, reload), report)
        await self._restore(opened)
        if self._keyring is not None:
            authenticator = start_authenticator(self._context, self._keyring)
            self._cleanup.callback(authenticator.stop)
            core.know(self._keyring.names, now())
        self._bind_bus(key)
        self._disk.judge()
        return reload

    def _load_keys(self) -> KeyPair | None:
        bus = self._loaded.settings.bus
        if not bus.curve:
            log.warning(text("router.no_curve"))
            return None
        try:
            self._keyring = Keyring(bus.keys_dir)
            return KeyPair.load(handed_over(bus.key.name) or bus.key)
        except KeyFileError as error:
            where = self._loaded.where("bus.key")
            sentence = text("router.key_failed", reason=error, where=where)
            raise StartError(sentence, EX_CONFIG) from None

    async def _open_store(self) -> tuple[Writer, Opened]:
        writer = Writer(SqliteStore(self._loaded.settings.store.folder))
        try:
            opened = await writer.query(lambda store: store.open(now_ms()))
        except StoreError as error:
            raise _untrusted(error) from None
        self._cleanup.push_async_callback(writer.close)
        return writer, opened

    def _make_core(self, opened: Opened) -> Core:
        core = Core(self._loaded.settings, opened.bus, opened.epoch, random.Random())
        core.inherit(opened.generations, opened.totals, opened.holds)
        return core

    async def _restore(self, opened: Opened) -> None:
        """Take up what is open. On the writer's thread: nothing else changes the core yet."""
        core, at = self._engine.core, now()
        try:
            await self._engine.writer.query(
                lambda store: core.restore(
                    store.filed(),
                    list(store.recent()),
                    opened.next_n,
                    opened.next_delivery,
                    at,
                    opened.newest_ms,
                )
            )
        except StoreError as error:
            raise _untrusted(error) from None
        if count := sum(queue.open for queue in core.queues.values()):
            log.info(text("router.restored", count=count))

    # -- sockets ----------------------------------------------------------------------------------

    def _make_bus(self, core: Core, key: KeyPair | None, descriptors: int) -> Bus:
        settings = self._loaded.settings.bus
        most = connections_within(descriptors, settings.connections_max)
        if most < settings.connections_max:
            fields = {"limit": descriptors, "most": most, "wanted": settings.connections_max}
            log.warning(text("router.few_descriptors", **fields))
        return Bus(self._context, key, settings, most, core)

    def _bind_bus(self, key: KeyPair | None) -> None:
        settings, bus = self._loaded.settings.bus, self._engine.bus
        for address in settings.listen:
            bound = self._bind(bus.socket, address, settings.ipc_mode, "bus.listen")
            bus.addresses.append(bound)
            if key is not None:
                self_test(self._context, bound, key.public)

    def _bind_ops(self) -> "tuple[zmq.Socket[bytes], zmq.Socket[bytes]]":
        """Return the bound sockets of questions and of events."""
        settings = self._loaded.settings.ops
        asked: zmq.Socket[bytes] = self._context.socket(zmq.ROUTER)
        asked.setsockopt(zmq.LINGER, 100)
        asked.setsockopt(zmq.MAXMSGSIZE, 1024 * 1024)
        self._guard(asked, "ops")
        self._bind(asked, settings.listen, settings.ipc_mode, "ops.listen")
        events: zmq.Socket[bytes] = self._context.socket(zmq.XPUB)
        events.setsockopt(zmq.LINGER, 0)
        events.setsockopt(zmq.XPUB_VERBOSER, 1)
        self._events_gate = self._guard(events, "events")
        self._bind(events, settings.events, settings.ipc_mode, "ops.events")
        return asked, events

    def _answer(
        self, asked: "zmq.Socket[bytes]", known: dict[str, Command], report: Report
    ) -> None:
        """Answer operators from now on, on the ops socket and, where it is wanted, by HTTP."""
        core, http = report.engine.core, self._loaded.settings.ops.http
        operators = Operators(lambda: core.settings.ops)
        self._cleanup.callback(operators.close)
        server = OpsServer(asked, known, operators.admit)
        self._cleanup.callback(server.close)
        if http:
            from router.shell.pages import Pages, listen  # a whole HTTP server, for who wants one

            pages = Pages(report, listen(http, self._loaded.where("ops.http")))
            self._cleanup.push_async_callback(pages.close)

    def _guard(self, socket: "zmq.Socket[bytes]", name: str) -> Gate:
        gate = Gate(socket, name, OPS_CONNECTIONS_MAX, 0.0)
        self._cleanup.callback(gate.close)
        return gate

    def _bind(self, socket: "zmq.Socket[bytes]", address: str, mode: str, key: str) -> str:
        where = self._loaded.where(key)
        bound = bind(socket, address, mode, where)
        if address.startswith("ipc:///"):
            self._ipc_paths.append(IpcPath(socket, address, mode, where))
        return bound

    # -- serve ------------------------------------------------------------------------------------

    async def _serve(self) -> None:
        self._engine.begin()
        log.info(text("router.running", addresses=", ".join(self._engine.bus.addresses)))
        notify("READY=1")
        while not self._stopping.is_set():
            self._beat()
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._stopping.wait(), BEAT_S)

    def _beat(self) -> None:
        """Look round, once a second."""
        engine, at = self._engine, now()
        engine.core.beat(at)
        self._tell_clock(at)
        engine.core.watch(len(self._events_gate) > 0)
        engine.publish_events("partner", self._partners.watch())
        if self._reload is not None:
            self._reload.keys()
        engine.bus.tidy()
        self._mend_paths()
        self._disk.beat(at)
        if all(engine.live().values()):
            notify("WATCHDOG=1")
        engine.flush()

    def _tell_clock(self, at: Now) -> None:
        doubted = self._engine.core.is_clock_doubted(at)
        if doubted != self._clock_doubted:
            self._clock_doubted = doubted
            log.warning(text("router.clock_doubted" if doubted else "router.clock_believed"))

    def _mend_paths(self) -> None:
        for one in self._ipc_paths:
            if key := one.mend():
                log.error(text(key, path=one.path))

    def _hang_up(self) -> None:
        """SIGHUP: reload."""
        if self._reload is None:  # what is taken up may not change meanwhile
            asyncio.get_running_loop().call_later(BEAT_S, self._hang_up)
        else:
            self._reload.on_signal()

    # -- stop -------------------------------------------------------------------------------------

    async def _stop(self) -> None:
        notify("STOPPING=1")
        self._disk.close()
        await self._engine.stop()


def _observe(core: Core) -> None:
    """Make events from a word on the socket for them on, while anybody is connected to it."""
    core.watch(True)


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
