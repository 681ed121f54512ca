"""`smpbus connector NAME --check`: would it work, before it is let loose."""

import asyncio
import socket
from collections.abc import Iterator
from errno import EADDRINUSE
from pathlib import Path
from typing import Final
from urllib.parse import urlsplit

from connectors.runtime.bus.agreement import Finding, compare
from connectors.runtime.bus.connector import Connector
from connectors.runtime.bus.settings import DoorSettings, Loaded, load
from connectors.runtime.door.callers import make_callers, told_open
from connectors.runtime.door.doortls import door_context
from connectors.runtime.door.serving import bind
from connectors.runtime.outside import Outside
from connectors.runtime.partner import tls
from connectors.runtime.partner.partner import PartnerSettings
from connectors.runtime.secretfile import read_secret
from proto.client import BusClient, Retry
from proto.configuration.declared import READ, READ_SECRET, marked
from proto.configuration.find import find_file
from proto.errors import BusError
from proto.exits import EX_CONFIG, EX_NOPERM, StartError
from proto.keys import KeyFileError
from proto.wording import in_words, text

BUS_S: Final = 5.0
PORTS: Final = {"http": 80, "https": 443, "tcp": 5038, "tls": 5039}


def check(name: str, shape: type[Connector], config: Path | None) -> Iterator[Finding]:
    """Yield what is found: the settings, the bus, the partner. Raises StartError for settings that
    cannot be read."""
    loaded = load(name, shape.Settings, find_file(config))
    yield Finding(True, text("connector.check_settings", file=loaded.file, name=name))
    for sentence in (*loaded.in_clear, *loaded.idle):
        yield Finding(True, sentence, is_warning=True)
    yield from _files(name, loaded)
    yield from _door(name, shape, loaded)
    yield from compare(name, shape, loaded.settings, loaded.file.parent)
    yield asyncio.run(_bus(name, loaded))
    found = asyncio.run(shape.probe(name, loaded))
    partner = getattr(loaded.settings, "partner", None)
    if found is None and partner is not None:
        yield asyncio.run(_partner(partner))
    yield from (Finding(*one) for one in found or ())


def _files(name: str, loaded: Loaded) -> Iterator[Finding]:
    """Whether the files are there that the connector reads when it starts."""
    for key, file, mark in marked(loaded.settings, READ, READ_SECRET):
        try:
            if mark == READ_SECRET:
                read_secret(file)
            else:
                file.read_bytes()
        except (StartError, OSError) as error:
            denied = isinstance(error.__context__ or error, PermissionError)
            reason = f"{file}: {error.strerror}" if isinstance(error, OSError) else str(error)
            told = text("connector.check_unread", key=f"connectors.{name}.{key}", reason=reason)
            yield Finding(False, told, status=EX_NOPERM if denied else EX_CONFIG)


def _door(name: str, shape: type[Connector], loaded: Loaded) -> Iterator[Finding]:
    """Who may come in, if anybody can at all."""
    settings = loaded.settings
    if not isinstance(settings, DoorSettings) or shape.knows_callers:
        return
    try:
        callers = make_callers(shape, name, settings, loaded.file)
        door_context(settings.tls, f"{loaded.file}, connectors.{name}.tls")
    except StartError as error:
        yield Finding(False, error.sentence, status=error.exit_code)
        return
    if callers is None and not settings.open:
        return  # it stays shut
    try:
        bind(settings.listen, f"{loaded.file}, connectors.{name}.listen").close()
    except StartError as error:
        # Perhaps by the connector itself, which is running.
        if getattr(error.__context__, "errno", None) == EADDRINUSE:
            yield Finding(True, text("connector.check_busy", sentence=error), is_warning=True)
        else:
            yield Finding(False, error.sentence, status=error.exit_code)
    if settings.open:
        yield Finding(True, told_open(name, settings, shape.door_scopes), is_warning=True)


async def _bus(name: str, loaded: Loaded) -> Finding:
    try:
        bus = BusClient(loaded.address, name=name, key=loaded.key, server_key=loaded.server_key)
    except KeyFileError as error:  # the connector would not get as far as the bus
        return Finding(False, str(error), status=EX_NOPERM)
    await bus.start()
    try:
        async with asyncio.timeout(BUS_S):
            await bus.wait_welcomed()
    except TimeoutError:
        reason = bus.trouble or text("connector.check_silent", seconds=f"{BUS_S:g}")
        return Finding(False, text("connector.check_no_bus", address=loaded.address, reason=reason))
    except BusError as error:
        reason = error.sentence
        return Finding(False, text("connector.check_no_bus", address=loaded.address, reason=reason))
    finally:
        await bus.close()
    return Finding(True, text("connector.check_bus", address=loaded.address, name=name))


async def _partner(partner: PartnerSettings) -> Finding:
    url = urlsplit(partner.url)
    host, port = url.hostname or "", url.port or PORTS.get(url.scheme, 0)
    place = f"{host}:{port}"
    try:
        context = tls.make_context(partner)
        # Not by the loop: the end of the program would wait for a resolver that does not answer.
        resolver = Outside("DNS", partner.connect_timeout_s)
        await resolver.call(socket.getaddrinfo, host, port)
        async with asyncio.timeout(partner.connect_timeout_s):
            _, writer = await asyncio.open_connection(host, port, ssl=context)
        writer.close()
    except Retry as hung:
        reason = in_words(str(hung))
        return Finding(False, text("connector.check_no_partner", place=place, reason=reason))
    except (OSError, TimeoutError) as error:
        told = tls.sentence_of(tls.kind_of(error) or "", tls.lack_of(error))
        reason = told or getattr(error, "strerror", None) or type(error).__name__
        return Finding(False, text("connector.check_no_partner", place=place, reason=reason))
    return Finding(True, text("connector.check_partner", place=place))
