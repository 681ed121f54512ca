"""The token that a service wants to see, good for about an hour.

Either somebody else renews it in a file, or we ask for it: an endpoint of OAuth 2.0, grant
client_credentials, with the client's name and secret by HTTP Basic.
"""

import asyncio
import time
from pathlib import Path
from typing import Final, Protocol

import msgspec

from connectors.runtime.partner.partner import Answer, Partner
from connectors.runtime.partner.reply import read_reply
from proto.client import Reject, Retry
from proto.exits import StartError
from proto.identifiers import new_id
from proto.note import coded
from proto.ownership import is_open_to_others
from proto.wording import text

FORM: Final = {"content-type": "application/x-www-form-urlencoded"}
EARLY_S: Final = 60.0  # renewed before it ends: clocks differ, and a request takes its time
GOOD_S: Final = 3600.0  # when nobody says for how long


class Token(Protocol):
    """Whoever has a token."""

    async def get(self) -> str:
        """Return the token that is good now. Raises Retry."""

    def drop(self, token: str) -> None:
        """This one is not good any more."""

    async def close(self) -> None:
        """Let go."""


class FileToken:
    """A token in a file of its owner's; read whenever it is needed."""

    def __init__(self, file: Path) -> None:
        """Raises StartError when it cannot be read, or by others as well."""
        self._file = file
        try:
            others = is_open_to_others(file)
            self._read()
        except OSError as error:
            raise StartError(text("tfoms.token_file", file=file, reason=error.strerror)) from None
        except UnicodeDecodeError:
            raise StartError(text("connector.secret_not_text", path=file)) from None
        if others:
            raise StartError(text("connector.secret_too_open", path=file))

    def _read(self) -> str:
        return self._file.read_text(encoding="utf-8").strip()

    async def get(self) -> str:
        """Return what the file holds."""
        try:
            return self._read()
        except OSError as error:
            raise Retry(coded("tfoms.no_token", why=error.strerror)) from None
        except UnicodeDecodeError:
            raise Retry(coded("tfoms.no_token", why="UTF-8")) from None

    def drop(self, token: str) -> None:
        """Whoever renews the file does so in its own time."""

    async def close(self) -> None:
        """Nothing is held."""


class _Given(msgspec.Struct, frozen=True):
    access_token: str
    expires_in: float = GOOD_S


class AskedToken:
    """A token that is asked for, once for all who need it."""

    def __init__(self, partner: Partner) -> None:
        self._partner = partner
        self._token = ""
        self._good_until = 0.0
        self._asking = asyncio.Lock()

    async def get(self) -> str:
        """Return the token, a new one if the old one is about to end."""
        async with self._asking:
            if not self._token or time.monotonic() >= self._good_until:
                await self._renew()
            return self._token

    async def _renew(self) -> None:
        if self._partner.breaker.wait_s(time.monotonic()):
            raise Retry(coded("tfoms.no_token", why="breaker"))
        body = b"grant_type=client_credentials"
        try:
            given = await self._partner.ask("POST", "", body, new_id(), _read, FORM)
        except Reject as refused:  # our settings, not the question that has to wait
            raise Retry(coded("tfoms.no_token", why=refused)) from None
        self._token = given.access_token
        self._good_until = time.monotonic() + max(given.expires_in - EARLY_S, 1.0)

    def drop(self, token: str) -> None:
        """Ask anew, unless that was done meanwhile."""
        if token == self._token:
            self._token = ""

    async def close(self) -> None:
        """Close the connections to the endpoint."""
        await self._partner.close()


def _read(reply: Answer) -> _Given:
    """Raises BadReply or Reject."""
    if reply.status >= 300:
        raise Reject(f"HTTP {reply.status}")
    return read_reply(reply, _Given)
