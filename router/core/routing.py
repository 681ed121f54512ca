"""Routes: which destinations a message goes to, from its source, type and priority alone."""

from collections.abc import Iterable
from functools import partial
from typing import NamedTuple

from proto.message import Message
from router.core.permission import Patterns
from router.core.projection import Projection, Projections
from router.settings import Route


class Verdict(NamedTuple):
    """Whether one route takes a message: `mismatch` names what speaks against it, or is ""."""

    number: int  # in the order of the file, from 1
    to: tuple[str, ...]
    mismatch: str  # "type", "source", "priority" or ""


class Routes:
    """The routes in force. Every route that matches adds its destinations, each once."""

    def __init__(self, routes: Iterable[Route]) -> None:
        routes = list(routes)
        self._routes = [
            (Patterns([route.source]), Patterns([route.type]), route.priorities, tuple(route.to))
            for route in routes
        ]
        self._limits = [route.body_bytes_max for route in routes]
        self._fields = [route.fields for route in routes]

    def find(self, source: str, type: str, priority: int) -> tuple[str, ...]:
        """Return the names of the destinations, in the order of the file; () when none."""
        found: dict[str, None] = {}
        for verdict in self.explain(source, type, priority):
            if not verdict.mismatch:
                found.update(dict.fromkeys(verdict.to))
        return tuple(found)

    def body_bytes_max(self, source: str, type: str, priority: int) -> int | None:
        """Return the least limit of the routes that take such a message, None when none has one."""
        verdicts = self.explain(source, type, priority)
        limits = (self._limits[one.number - 1] for one in verdicts if not one.mismatch)
        return min((limit for limit in limits if limit is not None), default=None)

    def explain(self, source: str, type: str, priority: int) -> list[Verdict]:
        """Return what each route says of such a message; `find` decides by the same."""
        verdicts = []
        for number, (sources, types, priorities, to) in enumerate(self._routes, 1):
            mismatch = ""
            if not types.match(type):
                mismatch = "type"
            elif not sources.match(source):
                mismatch = "source"
            elif priorities is not None and priority not in priorities:
                mismatch = "priority"
            verdicts.append(Verdict(number, to, mismatch))
        return verdicts

    def projections(self) -> dict[str, Projections]:
        """Return what decides which fields are handed out, by destination; one to which no route
        names any is missing: bodies pass as they are."""
        found: dict[str, Projections] = {}
        for fields, (_, _, _, to) in zip(self._fields, self._routes, strict=True):
            if fields is not None:
                found |= {name: Projections(partial(self._projection, name)) for name in to}
        return found

    def _projection(self, destination: str, message: Message) -> Projection | None:
        """Return the fields of all routes by which a message may have come; None for the whole
        body, when one of them names none, or when none matches any more: it was accepted so."""
        paths: set[str] = set()
        # Of a message that another bus has accepted first, who brought it is not known any more.
        source = "" if "." in message.source else message.source
        verdicts = self.explain(source, message.type, message.priority)
        for verdict, fields in zip(verdicts, self._fields, strict=True):
            is_taken = not verdict.mismatch or (not source and verdict.mismatch == "source")
            if destination not in verdict.to or not is_taken:
                continue
            if fields is None:
                return None
            paths.update(fields)
        return Projection(sorted(paths)) if paths else None
