"""Which card of System-112 a telephone call belongs to: by the caller's number, for a while. Pure.

Only hashes of numbers are kept, with a key of this process.
"""

import hashlib
import os
from collections import OrderedDict
from typing import Final

DIGITS: Final = 10  # of a Russian number, without 8 or +7
KEPT_S: Final = 3_600.0
KEPT_MAX: Final = 20_000


class Joining:
    """Numbers that were seen lately, and what they were seen with."""

    def __init__(self) -> None:
        self._key = os.urandom(16)
        self._cards = _Lately()
        self._calls = _Lately()

    def card(self, number: str, id112: str, now: float) -> str | None:
        """A card came with this number; returns the call it belongs to, if one is known."""
        if (hash := self._hash(number)) is None:
            return None
        self._cards.put(hash, id112, now)
        return self._calls.get(hash, now)

    def call(self, number: str, call_id: str, now: float) -> str | None:
        """A call came from or went to this number; returns the card it belongs to, if known."""
        if (hash := self._hash(number)) is None:
            return None
        self._calls.put(hash, call_id, now)
        return self._cards.get(hash, now)

    def _hash(self, number: str) -> bytes | None:
        digits = "".join(sign for sign in number if sign.isascii() and sign.isdigit())[-DIGITS:]
        if len(digits) < DIGITS:  # 112, an extension: not somebody's own number
            return None
        return hashlib.blake2b(digits.encode(), key=self._key, digest_size=16).digest()


class _Lately:
    def __init__(self) -> None:
        self._seen: OrderedDict[bytes, tuple[str, float]] = OrderedDict()

    def put(self, hash: bytes, value: str, now: float) -> None:
        self._seen[hash] = value, now
        self._seen.move_to_end(hash)
        while len(self._seen) > KEPT_MAX:
            self._seen.popitem(last=False)

    def get(self, hash: bytes, now: float) -> str | None:
        value, seen = self._seen.get(hash, (None, now))
        return value if now - seen <= KEPT_S else None
