"""Checks across settings: addresses, routes and permissions must name what exists."""

import re
from errno import EADDRINUSE, EINVAL
from typing import Final, Protocol

from proto import catalogue
from proto.configuration.address import fault_of, fault_of_http, is_local
from proto.configuration.place import Place, hint
from proto.fields import fields_of, has_field
from proto.message import NAME_GRAMMAR, NAME_LENGTH_MAX, TYPE_GRAMMAR
from proto.wording import text
from router.core.permission import Patterns, Rights
from router.settings import Destination, OpsSettings, Route, Settings

_NAME: Final = re.compile(NAME_GRAMMAR)
_FIELD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*(\.[A-Za-z_][A-Za-z0-9_]*)*")
_TYPE_PREFIX: Final = re.compile(r"([a-z0-9_]+\.)*[a-z0-9_]*\*")
_NAME_PREFIX: Final = re.compile(r"([a-z][a-z0-9_-]*)?\*")
_ACCOUNT: Final = re.compile(r"@?[A-Za-z_][A-Za-z0-9_.-]*\$?")
_BUS: Final = re.compile(r"[0-9a-z]+|[0-9a-z]*\*")
_PRIORITIES: Final = range(4)


class PlaceOf(Protocol):
    """Tells where a key was set."""

    def __call__(self, *key: str | int) -> Place: ...


def is_name(name: str) -> bool:
    """Whether a peer or a destination may be called so."""
    return len(name) <= NAME_LENGTH_MAX and _NAME.fullmatch(name) is not None


def check(settings: Settings, place: PlaceOf) -> None:
    """Raise ConfigError for the first thing that cannot be."""
    _check_listen(settings, place)
    _check_operators(settings, place)
    _check_sizes(settings, place)
    for name, destination in settings.destinations.items():
        _check_destination(name, destination, place)
    _check_questions(settings, place)
    _check_routes(settings, place)
    _check_permissions(settings, place)


def warnings(settings: Settings) -> tuple[str, ...]:
    """Return sentences about what is allowed but surely not meant."""
    found = _open_doors(settings)
    if settings.bus.curve:
        for name in settings.permissions:
            if not (settings.bus.keys_dir / f"{name}.pub").exists():
                folder = settings.bus.keys_dir
                found.append(text("config.warn_no_key", name=name, folder=folder))
    fed = {destination for route in settings.routes for destination in route.to}
    # A destination may be there to be asked only.
    fed |= {name for permission in settings.permissions.values() for name in permission.ask}
    unfed = [name for name in settings.destinations if name not in fed]
    found += [text("config.warn_no_route", name=name) for name in unfed]
    return tuple(found + _wide_rights(settings))


def _wide_rights(settings: Settings) -> list[str]:
    """Return which rights say more, or less, than was surely meant."""
    rights = {name: Rights(one, name) for name, one in settings.permissions.items()}
    found = []
    for name, permission in settings.permissions.items():
        if any(bus.endswith("*") for bus in permission.relay):
            found.append(text("config.warn_relay_all", name=name))
        idle = [one for one in permission.serve or () if not _may_consume(rights[name], one)]
        found += [text("config.warn_serve_idle", name=name, destination=one) for one in idle]
    asked = {name for one in settings.permissions.values() for name in one.ask}
    for destination in sorted(asked & settings.destinations.keys()):
        consumers = [name for name in rights if rights[name].consume.match(destination)]
        if consumers and not any(rights[name].serve.match(destination) for name in consumers):
            names = ", ".join(consumers)
            found.append(text("config.warn_no_server", destination=destination, names=names))
    return found


def _may_consume(rights: Rights, pattern: str) -> bool:
    """Whether a destination, or some that begin so, may be consumed, as far as can be told."""
    return pattern.endswith("*") or rights.consume.match(pattern)


def _open_doors(settings: Settings) -> list[str]:
    """Return who may come in unasked. Every user of this machine reaches a port of it, and a socket
    of mode 0666."""
    found = []
    ops, bus = settings.ops, settings.bus
    for key, address in (("ops.listen", ops.listen), ("ops.events", ops.events)):
        if _is_everybodys(address, ops.ipc_mode):
            found.append(text(f"config.warn_{key.replace('.', '_')}", address=address))
    if not bus.curve:
        everybodys = [one for one in bus.listen if _is_everybodys(one, bus.ipc_mode)]
        found += [text("config.warn_any_name", address=address) for address in everybodys]
    return found


def _is_everybodys(address: str, mode: str) -> bool:
    return not address.startswith("ipc://") or address.startswith("ipc://@") or mode == "0666"


def _check_listen(settings: Settings, place: PlaceOf) -> None:
    where = place("bus", "listen")
    if not settings.bus.listen:
        where.fail("config.empty_listen")
    for address in settings.bus.listen:
        if fault := fault_of(address):
            where.fail_to_bind(address, EINVAL, text(fault))
        if not settings.bus.curve and not is_local(address):
            where.fail("config.open_without_curve", address=address)
    for key in ("listen", "events"):
        address = getattr(settings.ops, key)
        if fault := fault_of(address):
            place("ops", key).fail_to_bind(address, EINVAL, text(fault))
    if settings.ops.http and (fault := fault_of_http(settings.ops.http)):
        place("ops", "http").fail_to_bind(settings.ops.http, EINVAL, text(fault))
    _check_duplicates(settings, place)


def _check_duplicates(settings: Settings, place: PlaceOf) -> None:
    taken: dict[str, str] = {}
    listens = [("bus.listen", address) for address in settings.bus.listen]
    listens += [("ops.listen", settings.ops.listen), ("ops.events", settings.ops.events)]
    if settings.ops.http:
        listens.append(("ops.http", f"tcp://{settings.ops.http}"))
    for key, address in listens:
        if address in taken:
            mend = text("config.address_twice", other=taken[address])
            place(*key.split(".")).fail_to_bind(address, EADDRINUSE, mend)
        taken[address] = key


def _check_operators(settings: Settings, place: PlaceOf) -> None:
    """No address of TCP tells whose process asks; the kernel tells it of an ipc connection."""
    for key in ("listen", "events"):
        address = getattr(settings.ops, key)
        if not address.startswith("ipc://"):
            path = getattr(OpsSettings(), key)
            place("ops", key).fail("config.ops_not_ipc", address=address, ipc=path)
    for key in ("look", "change"):
        for entry in getattr(settings.ops, key):
            if not _ACCOUNT.fullmatch(entry):
                place("ops", key).fail("config.bad_account", name=entry)


def _check_sizes(settings: Settings, place: PlaceOf) -> None:
    bus = settings.bus
    if bus.frame_bytes_max <= bus.body_bytes_max:
        where = place("bus", "frame_bytes_max")
        where.fail("config.frame_below_body", frame=bus.frame_bytes_max, body=bus.body_bytes_max)


def _check_destination(name: str, destination: Destination, place: PlaceOf) -> None:
    if not is_name(name):
        place("destinations", name).fail("config.bad_name", name=name)
    backoff = destination.backoff
    if backoff.longest_ms < backoff.first_ms:
        where = place("destinations", name, "backoff", "longest_ms")
        where.fail("config.backoff_order", longest=backoff.longest_ms, first=backoff.first_ms)


def _check_questions(settings: Settings, place: PlaceOf) -> None:
    """Of those that routes.toml names: without the built-in destinations nobody asks there."""
    for type, name in settings.questions.items():
        where = place("questions", type)
        if where.line is not None and name not in settings.destinations:
            where.fail_unknown_destination(name, settings.destinations)


def _check_routes(settings: Settings, place: PlaceOf) -> None:
    for index, route in enumerate(settings.routes):
        if not TYPE_GRAMMAR.fullmatch(route.type) and not _TYPE_PREFIX.fullmatch(route.type):
            place("routes", index, "type").fail("config.bad_type", type=route.type)
        if not is_name(route.source) and not _NAME_PREFIX.fullmatch(route.source):
            place("routes", index, "source").fail("config.bad_name", name=route.source)
        if not route.to:
            place("routes", index, "to").fail("config.route_to_nobody")
        for name in route.to:
            if name not in settings.destinations:
                place("routes", index, "to").fail_unknown_destination(name, settings.destinations)
        for priority in route.priorities or ():
            if priority not in _PRIORITIES:
                where = place("routes", index, "priorities")
                where.fail("config.bad_priority", priority=priority)
        _check_fields(route, place("routes", index, "fields"))


def _check_fields(route: Route, where: Place) -> None:
    """Each field has to be one of a type that the route takes, as far as the types are known."""
    if route.fields is None:
        return
    if not route.fields:
        where.fail("config.no_fields")
    taken = Patterns([route.type])
    types = [one for one in (entry.name for entry in catalogue.entries()) if taken.match(one)]
    known = frozenset[str]().union(*(fields_of(one) or () for one in types))
    for path in route.fields:
        if not _FIELD.fullmatch(path) or (types and not has_field(known, path)):
            meant = hint(path, sorted(known))
            where.fail("config.unknown_field", field=path, type=route.type, hint=meant)


def _check_permissions(settings: Settings, place: PlaceOf) -> None:
    for name, permission in settings.permissions.items():
        if not is_name(name):
            place("peers", name).fail("config.bad_name", name=name)
        for type in permission.publish:
            if not TYPE_GRAMMAR.fullmatch(type) and not _TYPE_PREFIX.fullmatch(type):
                place("peers", name, "publish").fail("config.bad_type", type=type)
        for bus in permission.relay:
            if not _BUS.fullmatch(bus):
                place("peers", name, "relay").fail("config.bad_bus", bus=bus)
        for key in ("consume", "ask", "serve"):
            for pattern in getattr(permission, key) or ():
                where = place("peers", name, key)
                if pattern.endswith("*"):
                    if not _NAME_PREFIX.fullmatch(pattern):
                        where.fail("config.bad_name", name=pattern)
                elif pattern not in settings.destinations:
                    where.fail_unknown_destination(pattern, settings.destinations)
