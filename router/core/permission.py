"""Who may do what: exact names or a prefix with one trailing "*"; nothing is allowed by default."""

from collections.abc import Iterable

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
    """What one name may publish (types), consume and ask (destinations)."""

    def __init__(self, permission: Permission) -> None:
        self.publish = Patterns(permission.publish)
        self.consume = Patterns(permission.consume)
        self.ask = Patterns(permission.ask)
        self.operate = permission.operate
