"""Which settings a connector has, by the name under which it is installed: its kind.

Connectors are found by entry point, so that nobody has to import them to check their tables.
"""

from collections.abc import Iterable
from importlib.metadata import entry_points
from typing import Any, Final

import msgspec

GROUP: Final = "smpbus.connectors"


class Unusable(Exception):
    """What is installed under a name cannot be loaded; the text is the reason."""


def installed() -> Iterable[str]:
    """Return the names of all connectors that are installed."""
    return entry_points(group=GROUP).names


def settings_of(kind: str) -> type[msgspec.Struct] | None:
    """Return the type of a kind's settings, None when no such one is installed. Raises Unusable."""
    for point in entry_points(group=GROUP, name=kind):
        try:
            connector: Any = point.load()
            shape: type[msgspec.Struct] = connector.Settings
        except Exception as error:  # whatever an integrator's module does
            raise Unusable(f"{point.value}: {type(error).__name__}: {error}") from None
        return shape
    return None
