"""A connector's process: the loop, the session, the partner's door, and an orderly end.

It outlives an absent router and a dead partner. It ends by itself only when its settings are wrong
(exit 78) or when the router says that this session will never be welcome (exit 77).
"""

import asyncio
import contextlib
import os
import signal
import socket
import traceback
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, Final

import uvloop

from connectors.runtime.accesses import written_accesses
from connectors.runtime.bus.connector import Connector
from connectors.runtime.bus.ending import Ending
from connectors.runtime.bus.intake import Intake
from connectors.runtime.bus.reporter import Reporter
from connectors.runtime.bus.settings import DoorSettings, Loaded, load
from connectors.runtime.door.callers import behind_guard
from connectors.runtime.door.doortls import door_context
from connectors.runtime.door.gate import membership
from connectors.runtime.door.serving import HttpServer, allow_only, bind
from connectors.runtime.log import LOG
from connectors.runtime.partner.turns import BULK, RANK
from connectors.runtime.statefile import StateAway
from proto import clock
from proto.client import BusClient
from proto.configuration.find import find_file
from proto.errors import BusError
from proto.exits import EX_NOPERM, StartError
from proto.keys import KeyFileError
from proto.logs import configure_logs
from proto.notify import notify
from proto.wording import set_language, text

WATCH_S: Final = 0.5
AWAY_AFTER_S: Final = 3.0
EX_MISTAKE: Final = 1  # as the interpreter ends for an exception that nobody takes
FORGET_S: Final = 60.0  # a step of some hundred rows
SETTLE_S: Final = 0.2  # for giving back what did not end in time


def run_connector(name: str, shape: type[Connector], config: Path | None) -> None:
    """Run until SIGTERM or Ctrl-C. Raises StartError."""
    loaded = load(name, shape.Settings, find_file(config))
    if "SMPBUS_LANG" not in os.environ:
        set_language(loaded.log.language)
    ending = Ending()  # before the log has a thread of its own, which a signal would find open
    configure_logs(loaded.log.level)
    status = os.EX_OK
    try:
        uvloop.run(_run(name, shape, loaded, ending))
    except StartError as error:
        status = error.exit_code
        raise
    except Exception as mistake:
        # Not as the interpreter tells it: the text of an exception may hold personal data.
        status = EX_MISTAKE
        LOG.error(text("connector.mistake", id=_place(mistake), kind=type(mistake).__name__))
        raise SystemExit(EX_MISTAKE) from None
    finally:
        ending.soon(status)


def _place(mistake: BaseException) -> str:
    """Return where it happened."""
    frames = traceback.extract_tb(mistake.__traceback__)
    return f"{Path(frames[-1].filename).name}:{frames[-1].lineno}" if frames else "-"


async def _run(
    name: str, shape: type[Connector], loaded: Loaded, ending: Ending | None = None
) -> None:
    try:
        bus = BusClient(loaded.address, name=name, key=loaded.key, server_key=loaded.server_key)
    except KeyFileError as error:
        raise StartError(str(error), EX_NOPERM) from None
    connector = shape(name, loaded.settings, bus)
    for sentence in (*loaded.in_clear, *loaded.idle):
        LOG.warning(sentence)
    connector.accesses = written_accesses(name, loaded)
    server = _door(name, connector, loaded)
    if ending is not None:
        ending.within_s = loaded.settings.stop_s
    stop = stop_on_signals() if ending is None else ending.event()
    await bus.start()
    intake = Intake.of(connector)
    try:
        if server is not None:
            await server.start()
        LOG.info(text("connector.started", name=name, address=loaded.address))
        notify("READY=1")
        await _first_of(
            stop.wait(),
            intake.run(),
            connector.stay(),
            _watch(bus),
            _poll(connector),
            _forget(connector),
            Reporter(connector).run(),
            _watchdog(),
        )
    except BusError as error:
        raise StartError(text("connector.unwelcome", reason=error.sentence), EX_NOPERM) from None
    finally:
        notify("STOPPING=1")
        await _let_end(server, intake, loaded.settings.stop_s)
        await connector.close()
        await bus.close()
    LOG.info(text("connector.stopped", name=name))


def _door(name: str, connector: Connector, loaded: Loaded) -> HttpServer | None:
    """Return the server of what the partner calls, bound; None without one. Raises StartError."""
    settings = loaded.settings
    app = connector.app()
    if app is None or not isinstance(settings, DoorSettings):
        return None
    app = behind_guard(app, connector, name, settings, loaded.file)
    if app is None:
        return None
    where = f"{loaded.file}, connectors.{name}"
    app = allow_only(app, settings.allow)
    context = door_context(settings.tls, f"{where}.tls")
    channel = bind(settings.listen, f"{where}.listen")
    known = membership(settings.allow)
    return HttpServer(app, channel, settings.http, known, connector.refusals, context)


async def _let_end(server: HttpServer | None, intake: Intake, within_s: float) -> None:
    """Take no more from either side; what is under way has `within_s` seconds to end, together."""
    work = [asyncio.ensure_future(intake.stop(within_s))]
    if server is not None:
        work.append(asyncio.ensure_future(server.stop()))
    await asyncio.wait(work, timeout=within_s + SETTLE_S)
    for task in work:
        task.cancel()
    await asyncio.gather(*work, return_exceptions=True)


def stop_on_signals() -> asyncio.Event:
    """Return an event that SIGTERM and Ctrl-C set."""
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, stop.set)
    return stop


def serve_until_stopped(app: Any, channel: socket.socket, background: Any = None) -> None:
    """Serve a simulator's app until a signal; `background()` runs beside it."""

    async def run() -> None:
        stop = stop_on_signals()
        server = HttpServer(app, channel)
        await server.start()
        notify("READY=1")
        work = [stop.wait()] if background is None else [stop.wait(), background()]
        try:
            await _first_of(*work)
        finally:
            await server.stop()

    uvloop.run(run())


async def _first_of(*work: Coroutine[Any, Any, Any]) -> None:
    """Run all until one ends, cancel the others, and raise what it raised."""
    tasks = [asyncio.ensure_future(part) for part in work]
    try:
        done, _ = await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
    for task in done:
        if not task.cancelled():
            task.result()


async def _watch(bus: BusClient) -> None:
    """Tell once when the router is away, and once when it is back."""
    away_since: float | None = clock.monotonic()
    told = False
    while True:
        await clock.sleep(WATCH_S)
        bus.raise_if_dead()
        now = clock.monotonic()
        if bus.connected:
            if told:
                LOG.info(text("connector.bus_back", address=bus.address))
            away_since, told = None, False
            continue
        away_since = now if away_since is None else away_since
        if not told and now - away_since >= AWAY_AFTER_S:
            LOG.error(bus.trouble or text("connector.bus_away", address=bus.address))
            told = True


async def _poll(connector: Connector) -> None:
    if connector.poll_s is None:
        await asyncio.Event().wait()
        return
    RANK.set(BULK)  # nobody waits for it
    while True:
        try:
            await connector.poll()
        except BusError:
            raise
        except StateAway:
            pass  # the file has told
        except asyncio.CancelledError:
            raise
        except BaseException as error:  # also what is no Exception: the next round asks again
            LOG.error(text("connector.mistake", id="poll", kind=type(error).__name__))
        await clock.sleep(connector.poll_s)


async def _forget(connector: Connector) -> None:
    """Let nothing stay for want of something new."""
    while True:
        await clock.sleep(FORGET_S)
        with contextlib.suppress(StateAway):  # the file has told
            connector.forget()


async def _watchdog() -> None:
    """Tell systemd that the loop turns, twice in the time it allows."""
    allowed_us = 0
    with contextlib.suppress(ValueError):
        allowed_us = int(os.environ.get("WATCHDOG_USEC", "0"))
    while True:
        if allowed_us:
            notify("WATCHDOG=1")
        await asyncio.sleep(allowed_us / 2e6 if allowed_us else 3600)
