"""Which settings a connector has, by the name under which it is installed: its kind.

Connectors are found by entry point, so that nobody has to import them to check their tables. A
connector's name is its kind, unless `kind` in its table, or --kind at its start, says another one.
"""

from collections.abc import Iterable
from importlib.metadata import entry_points
from typing import Any, Final

import msgspec

from proto.configuration.layers import Layers
from proto.configuration.place import ConfigError
from proto.configuration.sections import CONNECTORS
from proto.configuration.typed import read

GROUP: Final = "smpbus.connectors"


class Unusable(Exception):
    """What is installed under a name cannot be loaded; the text is the reason."""


def installed() -> Iterable[str]:
    """Return the names of all connectors that are installed."""
    return sorted(entry_points(group=GROUP).names)


def kind_of(main: Layers, name: str) -> str:
    """Return of which kind the connector `name` is."""
    return str(main.table(CONNECTORS, name).get("kind") or name)


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


def read_as(main: Layers, name: str, kind: str) -> msgspec.Struct | None:
    """Return the settings of a connector as those of a kind, None when no such one is installed.
    Raises ConfigError, Unusable."""
    shape = settings_of(kind)
    return None if shape is None else read(main, shape, CONNECTORS, name)


def other_kind(main: Layers, name: str) -> str | None:
    """Return a kind whose settings the table of a connector has all the same: it may be started
    with --kind."""
    written = main.table(CONNECTORS, name).keys()
    for kind in installed():
        try:
            shape = settings_of(kind)
            if shape is None or written & _unused(shape):
                continue  # one that takes a key and does not use it proves nothing
            read_as(main, name, kind)
        except (ConfigError, Unusable):
            continue
        return kind
    return None


def _unused(shape: type[msgspec.Struct]) -> frozenset[str]:
    """Return the keys that a kind takes for the sake of other kinds."""
    idle: frozenset[str] = getattr(shape, "idle", frozenset())
    return idle - set(shape.__struct_fields__)
