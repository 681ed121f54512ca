"""Whether routes.toml and permissions.toml agree with what a connector declares.

A type that is routed to it and that it does not take becomes a dead letter; one that it takes and
no route brings never comes; a right that is missing shows only when it is needed.
"""

import tomllib
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final, NamedTuple, TypeVar

import msgspec

from connectors.runtime.bus.connector import Connector
from connectors.runtime.bus.ingress import REJECTED
from connectors.runtime.bus.settings import SessionSettings
from connectors.runtime.bus.taking import ANY, Takes
from connectors.runtime.door.served import Served
from proto import catalogue
from proto.exits import EX_UNAVAILABLE
from proto.wording import text

ROUTES: Final = "routes.toml"
PERMISSIONS: Final = "permissions.toml"
File = TypeVar("File", bound=msgspec.Struct)


class Finding(NamedTuple):
    """One thing that was looked at."""

    good: bool
    sentence: str
    is_warning: bool = False  # it works, and somebody has to mean it
    status: int = EX_UNAVAILABLE  # with which the check ends when it is bad


class _Route(msgspec.Struct):
    type: str
    source: str = ANY
    to: tuple[str, ...] = ()


class _Routes(msgspec.Struct):
    routes: list[_Route] = []


class _Peer(msgspec.Struct):
    publish: tuple[str, ...] = ()
    consume: tuple[str, ...] = ()
    serve: tuple[str, ...] | None = None


class _Peers(msgspec.Struct):
    peers: dict[str, _Peer] = {}


def compare(
    name: str, shape: type[Connector], settings: SessionSettings, folder: Path
) -> Iterator[Finding]:
    """Yield what is found in the files of `folder`. The router alone needs them: where they are not
    at hand, that is said."""
    own = settings.destination or name
    queues = {own: shape.taken_with(settings), **shape.other_queues}
    try:
        routes = _read(folder / ROUTES, _Routes).routes
        peers = _read(folder / PERMISSIONS, _Peers).peers
    except (FileNotFoundError, PermissionError) as error:
        yield Finding(True, text("connector.check_no_file", file=error.filename))
        return
    except (OSError, ValueError) as error:
        yield Finding(False, text("connector.check_bad_file", folder=folder, reason=error))
        return
    found = [
        *(one for queue, takes in queues.items() for one in _routed(queue, takes, routes, peers)),
        *_rights(name, shape, list(queues), peers.get(name, _Peer())),
    ]
    yield from found or [Finding(True, text("connector.check_agrees", name=name))]


def _routed(
    queue: str, takes: Takes, routes: list[_Route], peers: dict[str, _Peer]
) -> Iterator[Finding]:
    """What is brought and not taken, and what is taken and not brought."""
    if ANY in takes:
        return
    known = {entry.name for entry in catalogue.entries()} | set(takes)
    mine = [route for route in routes if queue in route.to]
    brought = {
        type
        for route in mine
        for type in ({route.type} if not route.type.endswith("*") else known)
        if matches(type, [route.type]) and _may_come(type, route.source, peers)
    }
    for type in sorted(brought - set(takes)):
        yield Finding(False, text("connector.check_not_taken", type=type, queue=queue))
    for type in takes:
        if not any(matches(type, [route.type]) for route in mine):
            sentence = text("connector.check_not_routed", type=type, queue=queue)
            yield Finding(True, sentence, is_warning=True)


def _may_come(type: str, source: str, peers: dict[str, _Peer]) -> bool:
    """Whether somebody whom a route names may publish a type at all. Whoever is at another bus is
    named in no permission here."""
    named = [peer for name, peer in peers.items() if matches(name, [source])]
    return not named or any(matches(type, peer.publish) for peer in named)


def _rights(
    name: str, shape: type[Connector], queues: Sequence[str], peer: _Peer
) -> Iterator[Finding]:
    served = (name,) if peer.serve is None else peer.serve
    asked = queues[:1] if shape.answers else ()
    wanted = (
        *(("publish", one, peer.publish) for one in published(shape)),
        *(("consume", one, peer.consume) for one in queues),
        *(("serve", one, served) for one in asked),
    )
    for verb, what, granted in wanted:
        if not matches(what, granted):
            yield Finding(False, text("connector.check_no_right", name=name, verb=verb, what=what))


def published(shape: type[Connector]) -> list[str]:
    """Return what a connector publishes; what it serves may be refused, and is told of then."""
    refuses = any(isinstance(one, Served) for one in shape.serves.values())
    return list(dict.fromkeys((*shape.publishes, *((REJECTED,) if refuses else ()))))


def matches(word: str, patterns: Sequence[str]) -> bool:
    """Whether a word is one of the patterns, or begins as one that ends in a star."""
    return any(word.startswith(one[:-1]) if one.endswith(ANY) else word == one for one in patterns)


def _read(file: Path, shape: type[File]) -> File:
    """Raises OSError, ValueError."""
    return msgspec.convert(tomllib.loads(file.read_text(encoding="utf-8")), shape)
