"""A connector's settings from a table that is written for any connector."""

from typing import Any

import msgspec


def settings_of(table: dict[str, Any], shape: type[msgspec.Struct]) -> Any:
    """Return `table` as `shape`, without what connectors have, but this one has no use for."""
    idle: frozenset[str] = getattr(shape, "idle", frozenset()) - set(shape.__struct_fields__)
    return msgspec.convert({key: table[key] for key in table if key not in idle}, shape)
