"""What makes two inputs of a partner the same one: not its own number alone, but also what it says.

A number that comes a second time with other contents is no repeat. Taken for one it would be
answered "accepted", and be lost. Ids of what partners number are made by `claims.Namespace` of the
number and of this digest.
"""

import hashlib
from datetime import UTC, datetime
from typing import Any

import msgspec


def digest_of(said: Any, without: tuple[str, ...] = ()) -> str:
    """Return the digest of what a body says, however it is written down: the order of its keys and
    the offsets of its typed times are no difference. `said` is JSON that was decoded, or a struct;
    the fields `without` at its top do not count."""
    plain = msgspec.to_builtins(said, builtin_types=(datetime,))
    if without and isinstance(plain, dict):
        plain = {key: value for key, value in plain.items() if key not in without}
    return hashlib.sha256(msgspec.json.encode(_at_utc(plain), order="deterministic")).hexdigest()


def _at_utc(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _at_utc(one) for key, one in value.items()}
    if isinstance(value, list):
        return [_at_utc(one) for one in value]
    return value.astimezone(UTC) if isinstance(value, datetime) else value
