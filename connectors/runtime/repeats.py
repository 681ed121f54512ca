"""What makes two inputs of a partner the same one: not its own number alone, but also what it says.

A number that comes a second time with other contents is no repeat. Taken for one it would be
answered "accepted", and be lost.
"""

import hashlib
from collections import OrderedDict
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from connectors.runtime.door import message_id

KEPT: Final = 50_000  # about 10 MB


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


class Repeats:
    """Ids of messages by the partner's own numbers. The first contents that come under a number
    have the id of the number alone, as every repeat of them; other contents have one of their own.
    """

    def __init__(self, kept: int = KEPT) -> None:
        self._kept = kept
        self._first: OrderedDict[str, str] = OrderedDict()

    def id_of(self, digest: str, *identity: str | None) -> str:
        """Return the id of contents with `digest` that came under `identity`."""
        id = message_id(*identity)
        first = self._first.setdefault(id, digest)
        self._first.move_to_end(id)
        if len(self._first) > self._kept:
            self._first.popitem(last=False)
        return id if first == digest else message_id(*identity, digest)
