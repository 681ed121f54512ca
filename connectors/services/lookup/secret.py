"""The secret that makes cache keys and cached values unreadable, and the values unforgeable.

A key is an HMAC of the question, so that memcached, its dump and its log hold no name, policy or
number. A value is encrypted (AES-256-GCM) and bound to its key, since memcached asks nobody for a
password: any local user may read what is there, and what somebody else wrote, or wrote under
another key, is not read. What was stored may be put back within its own time: an answer that was
true a moment ago.
"""

import base64
import hashlib
import hmac
import secrets
from pathlib import Path
from typing import Final

import msgspec
from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from connectors.runtime.secretfile import read_secret
from proto.exits import StartError
from proto.wording import text

SECRET_BYTES_MIN: Final = 32
# Random for each value: with 96 bits, 2**32 values of one secret are safe (NIST SP 800-38D, 8.3).
NONCE_BYTES: Final = 12
PREFIX: Final = "smpbus:"

encode: Final = msgspec.msgpack.Encoder().encode


class Secret:
    """Makes keys, and seals and opens values."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret
        self._cipher = AESGCM(self._digest(b"encrypt", b""))

    @classmethod
    def load(cls, path: Path | None) -> "Secret":
        """Read the file, which only its owner may read; None makes a secret of this process.

        Raises StartError.
        """
        if path is None:
            return cls(secrets.token_bytes(SECRET_BYTES_MIN))
        secret = read_secret(path)
        if len(secret) < SECRET_BYTES_MIN:
            raise StartError(text("lookup.secret_short", path=path, count=SECRET_BYTES_MIN))
        return cls(secret)

    def key(self, kind: str, question: tuple[str, ...]) -> str:
        """Return the cache key of a question: 50 ASCII characters."""
        digest = self._digest(b"key", encode((kind, question)))
        return PREFIX + base64.urlsafe_b64encode(digest).decode().rstrip("=")

    def seal(self, key: str, payload: bytes) -> bytes:
        """Return `payload` encrypted for `key`, behind its nonce."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        return nonce + self._cipher.encrypt(nonce, payload, key.encode())

    def open(self, key: str, sealed: bytes) -> bytes | None:
        """Return the payload, or None when these bytes were not sealed by us for this key."""
        nonce, encrypted = sealed[:NONCE_BYTES], sealed[NONCE_BYTES:]
        try:
            return self._cipher.decrypt(nonce, encrypted, key.encode())
        except (InvalidTag, ValueError):  # ValueError: too short to be anything
            return None

    def _digest(self, purpose: bytes, content: bytes) -> bytes:
        return hmac.digest(self._secret, purpose + content, hashlib.sha256)
