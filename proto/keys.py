"""Keys: CURVE key pairs as files, one name each.

`NAME.key` holds the secret key (mode 0600) and `NAME.pub` the public one; both are one line of
Z85 (ZeroMQ RFC 32), 40 characters. Whoever holds `NAME.key` is NAME on the bus.
"""

import errno
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import zmq

from .ownership import is_open_to_others
from .wording import text

_Z85_KEY = re.compile(rb"[0-9a-zA-Z.\-:+=^!/*?&<>()\[\]{}@%$#]{40}")


_EXHAUSTED = (errno.EMFILE, errno.ENFILE, errno.ENOMEM)  # the machine's, of no one file


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
        if is_open_to_others(path):
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
        public.unlink(missing_ok=True)  # a link that somebody laid is not followed
        descriptor = os.open(public, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o644)
        with os.fdopen(descriptor, "wb") as file:
            file.write(self.public + b"\n")
            os.fchmod(file.fileno(), 0o644)  # whatever the umask: another user reads it
        return path


def handed_over(name: str) -> Path | None:
    """Return the file that the service manager gives this process under a name (systemd's
    LoadCredential=), if it does: it stands for the file of that name which settings mean."""
    folder = os.environ.get("CREDENTIALS_DIRECTORY", "")
    file = Path(folder) / name
    return file if folder and name and file.is_file() else None


def load_public(path: Path) -> bytes:
    """Read a public key. Raises KeyFileError."""
    return _read_key(path)


@dataclass(frozen=True)
class PublicKeys:
    """What a folder of public keys says: {public key: name}, and by the names of the files that
    admit nobody, why."""

    names: dict[bytes, str]
    refused: dict[str, str]


def load_public_folder(folder: Path, known: Mapping[bytes, str] | None = None) -> PublicKeys:
    """Read every `NAME.pub` in `folder`, each for itself: one that cannot be read, or whose key
    another one has too, is no word about the others. Of files with one key that counts whose name
    is `known` by it, else none. Raises KeyFileError when nothing can be said of any."""
    by_key: dict[bytes, list[str]] = {}
    refused = {}
    try:
        paths = sorted(Path(one) for one in os.scandir(folder) if one.name.endswith(".pub"))
    except OSError as error:
        raise KeyFileError(f"{folder}: {error.strerror}") from None
    for path in paths:
        try:
            by_key.setdefault(_read_key(path), []).append(path.stem)
        except KeyFileError as error:
            reason = error.__context__
            if isinstance(reason, FileNotFoundError):
                continue  # revoked at this moment
            if isinstance(reason, OSError) and reason.errno in _EXHAUSTED:
                raise
            refused[path.name] = str(error)
    names = {}
    for key, files in by_key.items():
        owner = files[0] if len(files) == 1 else (known or {}).get(key)
        if owner in files:
            names[key] = owner
        for name in files:
            if name != owner:
                others = ", ".join(f"{other}.pub" for other in files if other != name)
                path = folder / f"{name}.pub"
                refused[path.name] = text("keys.same_key", path=path, others=others)
    return PublicKeys(names, refused)


def _read_key(path: Path) -> bytes:
    try:
        line = path.read_bytes().strip()
    except OSError as error:
        raise KeyFileError(f"{path}: {error.strerror}") from None
    if not _Z85_KEY.fullmatch(line):
        raise KeyFileError(text("keys.not_a_key", path=path))
    return line
