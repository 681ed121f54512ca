"""Routes: which destinations a message goes to, from its source, type and priority alone."""

from collections.abc import Iterable

from router.core.permission import Patterns
from router.settings import Route


class Routes:
    """The routes in force. Every route that matches adds its destinations, each once."""

    def __init__(self, routes: Iterable[Route]) -> None:
        self._routes = [
            (Patterns([route.source]), Patterns([route.type]), route.priorities, tuple(route.to))
            for route in routes
        ]

    def find(self, source: str, type: str, priority: int) -> tuple[str, ...]:
        """Return the names of the destinations, in the order of the file; () when none."""
        found: dict[str, None] = {}
        for sources, types, priorities, to in self._routes:
            if (
                types.match(type)
                and sources.match(source)
                and (priorities is None or priority in priorities)
            ):
                found.update(dict.fromkeys(to))
        return tuple(found)
