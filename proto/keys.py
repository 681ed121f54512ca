"""Keys: CURVE key pairs as files, one name each.

`NAME.key` holds the secret key (mode 0600) and `NAME.pub` the public one; both are one line of
Z85 (ZeroMQ RFC 32), 40 characters. Whoever holds `NAME.key` is NAME on the bus.
"""

import os
import re
from dataclasses import dataclass
from pathlib import Path

import zmq

_Z85_KEY = re.compile(rb"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")


class KeyFileError(Exception):
    """A key file is missing, unreadable, too open or not a key; the text names the file."""


@dataclass(frozen=True)
class KeyPair:
    """A CURVE key pair; `secret` never appears in a log, a repr or an exception text."""

    public: bytes
    secret: bytes

    def __repr__(self) -> str:
        return f"KeyPair(public={self.public!r})"

    @classmethod
    def new(cls) -> "KeyPair":
        """Make a fresh pair."""
        public, secret = zmq.curve_keypair()
        return cls(public, secret)

    @classmethod
    def load(cls, path: Path) -> "KeyPair":
        """Read the secret key at `path` and derive its public key. Raises KeyFileError."""
        secret = _read_key(path)
        mode = path.stat().st_mode & 0o077
        if mode:
            raise KeyFileError(f"{path}: others may read this secret key; run: chmod 600 {path}")
        return cls(zmq.curve_public(secret), secret)

    def save(self, folder: Path, name: str) -> Path:
        """Write `name.key` (0600) and `name.pub`; refuse to replace a key. Returns the key path."""
        path = folder / f"{name}.key"
        folder.mkdir(mode=0o755, parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        with os.fdopen(descriptor, "wb") as file:
            file.write(self.secret + b"\n")
        public = folder / f"{name}.pub"
        public.write_bytes(self.public + b"\n")
        public.chmod(0o644)  # whatever the umask: the router reads it as another user
        return path


def load_public(path: Path) -> bytes:
    """Read a public key. Raises KeyFileError."""
    return _read_key(path)


def load_public_folder(folder: Path) -> dict[bytes, str]:
    """Return {public key: name} for every `NAME.pub` in `folder`. Raises KeyFileError."""
    try:
        paths = sorted(folder.glob("*.pub"))
    except OSError as error:
        raise KeyFileError(f"{folder}: {error.strerror}") from None
    return {_read_key(path): path.stem for path in paths}


def _read_key(path: Path) -> bytes:
    try:
        text = path.read_bytes().strip()
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from None
    if not _Z85_KEY.fullmatch(text):
        raise KeyFileError(f"{path}: not a CURVE key (expected one line of 40 Z85 characters)")
    return text
