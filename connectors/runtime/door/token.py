"""Tokens that open a door: random, so that a plain digest of one tells nothing about it.

A file holds the SHA-256 digest of each token that is good, one a line in hexadecimal, and no token:
whoever reads it gets in nowhere. A line more or less works within a second, without a restart.
Behind a digest may stand `until=2027-01-31`, the last day (UTC) that the token is good, and
`label=laptop-17`, for people.
"""

import hashlib
import hmac
import re
import secrets
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Final, Literal, NamedTuple

from starlette.requests import Request

from connectors.runtime.log import LOG
from connectors.runtime.ownfile import replace_file
from proto import clock
from proto.exits import EX_CANTCREAT, EX_USAGE, StartError
from proto.wording import text

TOKEN_BYTES: Final = 32
LOOKED_AT_S: Final = 1.0
FILE_BYTES_MAX: Final = 64 * 1024
READABLE: Final = 0o644  # digests are no secret, and the connector runs as somebody else
FOR_EVER: Final = "9999-12-31"
_DIGEST: Final = re.compile(r"[0-9a-f]{64}")


def new_token() -> str:
    """Return a token of 256 random bits."""
    return secrets.token_urlsafe(TOKEN_BYTES)


def digest_of(token: str) -> str:
    """Return what the file holds of a token."""
    return hashlib.sha256(token.encode()).hexdigest()


class Known(NamedTuple):
    """A digest, and the last day that its token is good."""

    digest: str
    until: str = FOR_EVER


def lines_of(content: str) -> tuple[Known, ...]:
    """Return what a file of tokens holds. Raises ValueError for what is no such file."""
    found: list[Known] = []
    for line in content.splitlines():
        digests = [word for word in line.split() if "=" not in word]
        told = dict(word.split("=", 1) for word in line.split() if "=" in word)
        if (told and not digests) or told.keys() - {"until", "label"}:
            raise ValueError("label")
        if not all(_DIGEST.fullmatch(digest) for digest in digests):
            raise ValueError("digest")
        until = date.fromisoformat(told.get("until", FOR_EVER)).isoformat()
        found += [Known(digest, until) for digest in digests]
    if not found:
        raise ValueError("nothing")
    return tuple(found)


def make_token(path: Path, way: Literal["add", "replace"] | None, about: str = "") -> str:
    """Return a new token, its digest in the file at `path`, where it is the only one unless `way`
    is "add"; `about` stands behind it. Raises StartError, also when the file has tokens and no
    `way` is told."""
    token = new_token()
    try:
        known = path.read_text(encoding="ascii").splitlines() if path.exists() else []
        if known and way is None:
            raise StartError(text("external.token_is_there", path=path), EX_USAGE)
        line = f"{digest_of(token)} {about}".rstrip()
        lines = [*known, line] if way == "add" else [line]
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        # In one step: whoever reads it meanwhile sees the old or the new one.
        replace_file(path, "".join(f"{line}\n" for line in lines).encode("ascii"), READABLE)
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
        self._known = self._read()
        self._looked_at = clock.monotonic()
        self._stamp = self._changed()
        self._today = _today()

    def admits(self, digest: str) -> bool:
        """Whether `digest` is that of a good token; takes as long whatever the answer is."""
        self._look()
        good = False
        for known in self._known:
            good |= hmac.compare_digest(known.digest, digest) & (self._today <= known.until)
        return good

    def _look(self) -> None:
        """Read the file again when it has changed; one that cannot be read admits nobody."""
        now = clock.monotonic()
        if now - self._looked_at < LOOKED_AT_S:
            return
        self._looked_at, self._today = now, _today()
        stamp = self._changed()
        if stamp == self._stamp:
            return
        self._stamp = stamp
        try:
            self._known = self._read()
        except StartError as error:
            self._known = ()
            LOG.error(error.sentence)

    def _changed(self) -> tuple[int, int, int]:
        try:
            stat = self._path.stat()
        except OSError:
            return 0, 0, 0
        return stat.st_mtime_ns, stat.st_size, stat.st_ino

    def _read(self) -> tuple[Known, ...]:
        try:
            with self._path.open(encoding="ascii", errors="replace") as file:
                return lines_of(file.read(FILE_BYTES_MAX))
        except OSError as error:
            reason = error.strerror
            raise StartError(text("token.no_file", path=self._path, reason=reason)) from None
        except ValueError:
            raise StartError(text("token.bad_file", path=self._path)) from None


def _today() -> str:
    return datetime.now(UTC).date().isoformat()
