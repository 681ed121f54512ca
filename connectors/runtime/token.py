"""Tokens that open a door: random, so that a plain digest of one tells nothing about it.

A file holds the SHA-256 digest of each token that is good, one a line in hexadecimal, and no token:
whoever reads it gets in nowhere. A line more or less works within a second, without a restart.
"""

import hashlib
import hmac
import re
import secrets
import time
from pathlib import Path
from typing import Final

from starlette.requests import Request
from starlette.responses import Response
from starlette.types import ASGIApp, Receive, Scope, Send

from connectors.runtime.log import LOG
from proto.exits import StartError
from proto.wording import text

TOKEN_BYTES: Final = 32
LOOKED_AT_S: Final = 1.0
FILE_BYTES_MAX: Final = 64 * 1024
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")
_NO_TOKEN: Final = b'{"code":401,"sentence":"Authorization: Bearer TOKEN is required"}'


def new_token() -> str:
    """Return a token of 256 random bits."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def digest_of(token: str) -> str:
    """Return what the file holds of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


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


class TokenRequired:
    """ASGI middleware: 401 to whoever brings no good token, but for the `open_paths`."""

    def __init__(self, app: ASGIApp, tokens: TokenFile, open_paths: tuple[str, ...]) -> None:
        self._app = app
        self._tokens = tokens
        self._open_paths = open_paths

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Pass on, or answer 401."""
        if scope["type"] == "http" and scope["path"] not in self._open_paths:
            token = bearer(Request(scope))
            if not self._tokens.admits(digest_of(token)):
                refused = Response(
                    _NO_TOKEN, 401, {"www-authenticate": "Bearer"}, "application/json"
                )
                await refused(scope, receive, send)
                return
        await self._app(scope, receive, send)
