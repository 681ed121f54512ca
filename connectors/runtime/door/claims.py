"""What a partner claims: ids of a namespace of its own, and what becomes of words that cannot be.

What we observe ourselves (an answer to our own request) has ids that are made of its numbers. What
somebody tells at a door has ids made of the number, of all that is said, and of a secret of the
connector: so no claim can be taken for what we saw, and a number that comes again with other
contents is another message, after a restart, too. A word about nothing that we began is set aside,
and two words that contradict each other are told: neither is a truth to be passed on.
"""

import contextlib
import hashlib
import hmac
import os
import re
import secrets
import tempfile
import uuid
from collections import Counter
from pathlib import Path
from typing import Any, Final

import msgspec

from connectors.runtime.door.counted import Counted
from connectors.runtime.log import LOG
from connectors.runtime.secretfile import read_secret
from connectors.runtime.statefile import may_pass
from proto.exits import StartError
from proto.wording import text

SECRET_BYTES: Final = 32
_UUID: Final = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
_VERSION_8: Final = 8 << 76  # RFC 9562, 5.8: made in a way of one's own
_VERSION_4: Final = 4 << 76
_VARIANT: Final = 2 << 62
_FIXED: Final = ~(0xF << 76 | 3 << 62)


def uuid_of(said: str) -> str:
    """Return a UUID as it is kept, "" for what is none: a number from outside is looked up by its
    grammar first."""
    bare = said.strip().removeprefix("urn:uuid:").lower()
    return bare if _UUID.fullmatch(bare) else ""


class Namespace:
    """Ids that only the holder of a secret can foresee."""

    def __init__(self, secret: bytes = b"") -> None:
        """Without a secret anybody can foresee an id; it is still made of all that is said."""
        self._secret = secret

    @classmethod
    def load(cls, file: Path | None) -> "Namespace":
        """Return the namespace of a file, which is made, its owner's alone, when there is none.

        While the disk takes no file the ids are those of this process. Raises StartError for a file
        that others may read, or that holds no secret of ours.
        """
        if file is None:
            return cls()
        try:
            _make(file)
        except OSError as error:
            if not may_pass(error):
                raise StartError(f"{file}: {error.strerror}") from None
            LOG.warning(text("claims.no_secret", file=file, reason=error.strerror))
            return cls(secrets.token_bytes(SECRET_BYTES))
        secret = read_secret(file)
        if file.is_symlink() or len(secret) < SECRET_BYTES:
            raise StartError(text("claims.bad_secret", file=file))
        return cls(secret)

    def id_of(self, *said: str | None) -> str:
        """Return the id of what a partner claims: the same for the same words alone."""
        return str(uuid.UUID(int=self._number("claim", said) | _VERSION_8 | _VARIANT))

    def hidden(self, *name: str) -> str:
        """Return a UUID for something of ours that nobody outside is to foresee."""
        return str(uuid.UUID(int=self._number("hidden", name) | _VERSION_4 | _VARIANT))

    def _number(self, purpose: str, words: tuple[str | None, ...]) -> int:
        content = msgspec.json.encode((purpose, words))
        digest = hmac.digest(self._secret, content, hashlib.sha256)
        return int.from_bytes(digest[:16]) & _FIXED


def _make(file: Path) -> None:
    """Make the file of a secret whole or not at all. Raises OSError."""
    if file.exists() or file.is_symlink():
        return
    descriptor, name = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
    try:
        with os.fdopen(descriptor, "wb") as new:
            new.write(secrets.token_hex(SECRET_BYTES).encode())
            new.flush()
            os.fsync(new.fileno())
        with contextlib.suppress(FileExistsError):  # another one was faster: its is the secret
            os.link(name, file)
    finally:
        os.unlink(name)


class Doubts:
    """Counts words of the partner `system` that were not taken for true, and tells of them: of each
    kind, a word of ours, a few lines a minute."""

    def __init__(self, system: str) -> None:
        self._system = system
        self._counted = Counted()
        self._aside: Counter[str] = Counter()
        self._contradictions = 0

    def set_aside(self, what: str) -> None:
        """A word about nothing that we began, or of a state that cannot be."""
        self._aside[what] += 1
        line = text("claims.set_aside", system=self._system, what=what)
        self._counted.warning(f"{self._system}, {what}", line)

    def contradiction(self, about: str) -> None:
        """Two words about one object, `about` is our number of it, that cannot both be true."""
        self._contradictions += 1
        line = text("claims.contradiction", system=self._system, about=about)
        self._counted.warning(f"{self._system}, contradiction", line)

    def figures(self) -> dict[str, Any]:
        """Return the counts since the start, nothing when there are none."""
        told: dict[str, Any] = {}
        if self._aside:
            told["words_set_aside"] = dict(self._aside)
        if self._contradictions:
            told["contradictions"] = self._contradictions
        return told
