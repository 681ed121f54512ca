"""Tokens that open a door: random, so that a plain digest of one tells nothing about it.

A file holds the SHA-256 digest of each token that is good, one a line in hexadecimal, and no token:
whoever reads it gets in nowhere. A line more or less works within a second, without a restart.
"""

import hashlib
import hmac
import os
import re
import secrets
import time
from pathlib import Path
from typing import Final, Literal

from starlette.requests import Request

from connectors.runtime.log import LOG
from proto.exits import EX_CANTCREAT, EX_USAGE, StartError
from proto.wording import text

TOKEN_BYTES: Final = 32
LOOKED_AT_S: Final = 1.0
FILE_BYTES_MAX: Final = 64 * 1024
READABLE: Final = 0o644  # digests are no secret, and the connector runs as somebody else
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


def new_token() -> str:
    """Return a token of 256 random bits."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def digest_of(token: str) -> str:
    """Return what the file holds of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


def make_token(path: Path, way: Literal["add", "replace"] | None) -> str:
    """Return a new token, its digest in the file at `path`, where it is the only one unless `way`
    is "add". Raises StartError, also when the file has tokens and no `way` is told."""
    token = new_token()
    try:
        known = path.read_text(encoding="ascii").split() if path.exists() else []
        if known and way is None:
            raise StartError(text("external.token_is_there", path=path), EX_USAGE)
        lines = [*known, digest_of(token)] if way == "add" else [digest_of(token)]
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        # In one step: whoever reads it meanwhile sees the old or the new one.
        new = path.with_name(f".{path.name}.new")
        new.write_text("".join(f"{line}\n" for line in lines), encoding="ascii")
        new.chmod(READABLE)
        os.replace(new, path)
    except OSError as error:
        raise StartError(f"{path}: {error.strerror}", EX_CANTCREAT) from None
    except UnicodeDecodeError:
        raise StartError(text("token.bad_file", path=path), EX_CANTCREAT) from None
    return token


def bearer(request: Request) -> str:
    """Return the token that a request brings, "" if none."""
    scheme, _, token = request.headers.get("authorization", "").partition(" ")
    return token.strip() if scheme.lower() == "bearer" else ""


class TokenFile:
    """The tokens of one client."""

    def __init__(self, path: Path) -> None:
        """Raises StartError when the file cannot be read or is not one of digests."""
        self._path = path
        self._digests = self._read()
        self._looked_at = time.monotonic()
        self._stamp = self._changed()

    def admits(self, digest: str) -> bool:
        """Whether `digest` is that of a good token; takes as long whatever the answer is."""
        self._look()
        good = False
        for known in self._digests:
            good |= hmac.compare_digest(known, digest)
        return good

    def _look(self) -> None:
        """Read the file again when it has changed; one that cannot be read admits nobody."""
        now = time.monotonic()
        if now - self._looked_at < LOOKED_AT_S:
            return
        self._looked_at = now
        stamp = self._changed()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._digests = self._read()
        except StartError as error:
            self._digests = ()
            LOG.error(error.sentence)

    def _changed(self) -> tuple[int, int, int]:
        try:
            stat = self._path.stat()
        except OSError:
            return 0, 0, 0
        return stat.st_mtime_ns, stat.st_size, stat.st_ino

    def _read(self) -> tuple[str, ...]:
        try:
            with self._path.open(encoding="ascii", errors="replace") as file:
                lines = file.read(FILE_BYTES_MAX).split()
        except OSError as error:
            reason = error.strerror
            raise StartError(text("token.no_file", path=self._path, reason=reason)) from None
        if not lines or not all(_DIGEST.fullmatch(line) for line in lines):
            raise StartError(text("token.bad_file", path=self._path))
        return tuple(lines)
