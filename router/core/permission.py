"""Who may do what: exact names or a prefix with one trailing "*"; nothing is allowed by default."""

from collections.abc import Iterable

from proto.message import RELAYED_GRAMMAR
from router.settings import Permission


class Patterns:
    """A set of exact words and prefixes."""

    def __init__(self, patterns: Iterable[str]) -> None:
        patterns = list(patterns)
        self._exact = frozenset(p for p in patterns if not p.endswith("*"))
        self._prefixes = tuple(p[:-1] for p in patterns if p.endswith("*"))

    def match(self, word: str) -> bool:
        """Whether `word` is named or begins with a named prefix."""
        return word in self._exact or word.startswith(self._prefixes)


class Rights:
    """What one name may publish (types), consume, ask and serve (destinations), relay (buses)."""

    def __init__(self, permission: Permission, name: str = "") -> None:
        """`name` is whose they are: unless it is told otherwise, it serves its own queue."""
        own = [name] if name else []
        self.publish = Patterns(permission.publish)
        self.consume = Patterns(permission.consume)
        self.ask = Patterns(permission.ask)
        self.serve = Patterns(own if permission.serve is None else permission.serve)
        self.relay = Patterns(permission.relay)

    def may_relay(self, source: str, bus: str) -> bool:
        """Whether `source` is BUS.NAME of another bus than `bus`, and one it may speak for.

        What began at this bus is never taken from outside: it would be in a name of ours.
        """
        relayed = RELAYED_GRAMMAR.fullmatch(source)
        return relayed is not None and relayed[1] != bus and self.relay.match(relayed[1])
