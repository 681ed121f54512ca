"""The secret that makes cache keys unreadable and cached values unforgeable.

A key is an HMAC of the question, so that memcached, its dump and its log hold no name, policy or
number. A value carries an HMAC of itself and its key, since memcached asks nobody for a password:
what somebody else wrote there, or wrote under another key, is not read.
"""

import base64
import hashlib
import hmac
import secrets
from pathlib import Path
from typing import Final

import msgspec

from connectors.runtime.secretfile import read_secret
from proto.exits import StartError
from proto.wording import text

SECRET_BYTES_MIN: Final = 32
TAG_BYTES: Final = 16
PREFIX: Final = "smpbus:"

encode: Final = msgspec.msgpack.Encoder().encode


class Secret:
    """Makes keys and tags."""

    def __init__(self, secret: bytes) -> None:
        self._secret = secret

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
        """Return `payload` behind its tag."""
        return self._tag(key, payload) + payload

    def open(self, key: str, sealed: bytes) -> bytes | None:
        """Return the payload, or None when the tag is not ours for this key."""
        tag, payload = sealed[:TAG_BYTES], sealed[TAG_BYTES:]
        return payload if hmac.compare_digest(tag, self._tag(key, payload)) else None

    def _tag(self, key: str, payload: bytes) -> bytes:
        return self._digest(b"tag", key.encode() + payload)[:TAG_BYTES]

    def _digest(self, purpose: bytes, content: bytes) -> bytes:
        return hmac.digest(self._secret, purpose + content, hashlib.sha256)
