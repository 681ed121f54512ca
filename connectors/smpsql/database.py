"""A PostgreSQL database as the connector sees it; the only module that imports its client library.

Nothing is kept in a session, no statement is prepared, every statement is a transaction of its own:
so PgBouncer in transaction mode may stand between. What the server says is told by its SQLSTATE
only, since its sentences may quote what a row holds.
"""

import asyncio
import contextlib
import logging
import os
import socket
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

import psycopg
from psycopg.conninfo import make_conninfo

from connectors.runtime.partner import credentials
from proto.exits import StartError
from proto.wording import text

ALIVE_S: Final = 15.0
GREET_S: Final = 60.0
# Found at the first statement: the network, or what stands between, has dropped the connection.
KEEPALIVE: Final = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
TOO_COMPLEX: Final = "54"  # class: a program limit is exceeded, by what was given
EXPLAINED: Final = {
    "25006": "smpsql.read_only",
    "3F000": "smpsql.no_schema",
    "42P01": "smpsql.no_schema",
    "42883": "smpsql.no_schema",
    "42501": "smpsql.no_rights",
    "53100": "smpsql.disk_full",
    "53300": "smpsql.no_connections",
}

# It logs what servers say. We tell what an administrator needs.
logging.getLogger("psycopg").setLevel(logging.CRITICAL)

Rows = list[tuple[Any, ...]]
Greet = Callable[["Connection"], Awaitable[None]]


class DatabaseAway(Exception):
    """The database cannot be used now; `answer` says why, "" when it does not answer at all."""

    def __init__(self, answer: str = "") -> None:
        super().__init__(answer)
        self.answer = answer


class BadData(Exception):
    """What was given cannot be stored, now or later."""


class Address:
    """Where a database is and who we are there, as libpq wants it."""

    def __init__(self, url: str, credentials_file: Path | None, *, connect_s: float) -> None:
        """Raises StartError."""
        user, password = credentials(credentials_file)
        try:
            self.conninfo = make_conninfo(
                url,
                user=user,
                password=password,
                client_encoding="UTF8",
                application_name="smpbus",
                connect_timeout=max(2, round(connect_s)),
                **KEEPALIVE,
            )
        except psycopg.ProgrammingError:
            raise StartError(text("smpsql.bad_url", url=place(url))) from None


def place(url: str) -> str:
    """Return HOST:PORT of a URL, without what may be a secret."""
    return urlsplit(url).netloc.rpartition("@")[2]


class Connection:
    """One connection, while it holds: each `fetch` is a transaction unless one is open."""

    def __init__(self, raw: psycopg.AsyncConnection[tuple[Any, ...]]) -> None:
        self._raw = raw

    @classmethod
    async def open(cls, address: Address) -> "Connection":
        """Raises DatabaseAway."""
        try:
            return cls(
                await psycopg.AsyncConnection.connect(
                    address.conninfo, autocommit=True, prepare_threshold=None
                )
            )
        except psycopg.Error as error:
            # No SQLSTATE comes of a connection that failed; whether it came to a password does.
            asked = error.pgconn is not None and error.pgconn.used_password
            raise DatabaseAway(text("smpsql.no_login") if asked else "") from None

    @property
    def closed(self) -> bool:
        """Whether it is of no use any more."""
        return self._raw.closed

    async def fetch(self, query: str, parameters: Sequence[Any] | None = None) -> Rows:
        """Return the rows of one statement; without parameters it may be a script. Raises
        DatabaseAway or BadData."""
        with _classified():
            cursor = await self._raw.execute(query.encode(), parameters)
            return [] if cursor.description is None else await cursor.fetchall()

    @contextlib.asynccontextmanager
    async def transaction(self) -> AsyncIterator[None]:
        """Commit at the end, or roll back what raised. Raises DatabaseAway."""
        with _classified():
            async with self._raw.transaction():
                yield

    @contextlib.contextmanager
    def limited(self, within_s: float) -> Iterator[None]:
        """Break the connection off when what is done meanwhile takes longer. To cancel it would ask
        a server that is silent to cancel, and wait ten seconds for that."""
        timer = asyncio.get_running_loop().call_later(within_s, self._break_off)
        try:
            yield
        finally:
            timer.cancel()

    def _break_off(self) -> None:
        with (
            contextlib.suppress(OSError, psycopg.Error),
            socket.socket(fileno=os.dup(self._raw.fileno())) as wire,
        ):
            wire.shutdown(socket.SHUT_RDWR)

    async def notified(self, within_s: float) -> bool:
        """Wait for notifications; return whether one came in time. Raises DatabaseAway."""
        with _classified():
            return [one async for one in self._raw.notifies(timeout=within_s, stop_after=1)] != []

    async def close(self) -> None:
        """Close it."""
        await self._raw.close()


class Database:
    """One connection at a time, opened when it is needed and anew after it broke."""

    def __init__(self, address: Address, timeout_s: float, greet: Greet | None = None) -> None:
        """`greet(connection)` is awaited for each new connection, and again every GREET_S: behind a
        pooler another server may be there now. It may raise DatabaseAway."""
        self._address = address
        self._timeout_s = timeout_s
        self._greet = greet
        self._lock = asyncio.Lock()
        self._connection: Connection | None = None
        self._greeted_at = 0.0

    @contextlib.asynccontextmanager
    async def connection(self) -> AsyncIterator[Connection]:
        """Yield the connection, for as long as one answer may take. Raises DatabaseAway, BadData.

        After DatabaseAway nobody knows whether the statement had its effect.
        """
        async with self._lock:
            try:
                connection = await self._open()
                with connection.limited(self._timeout_s):
                    yield connection
            except BadData:
                raise
            except BaseException:  # also when cancelled: what it was in the middle of is unknown
                await self.close()
                raise

    async def fetch(self, query: str, parameters: Sequence[Any] | None = None) -> Rows:
        """Return the rows of one statement. Raises DatabaseAway or BadData."""
        async with self.connection() as connection:
            return await connection.fetch(query, parameters)

    async def listen(
        self, channel: str, opened: Callable[[], None], heard: Callable[[], None]
    ) -> None:
        """Call `heard` at each notification of `channel`, and at least every ALIVE_S, until the
        connection breaks. Raises DatabaseAway."""
        try:
            await self.fetch(f"LISTEN {channel}")
            opened()
            while self._connection is not None:
                await self._connection.notified(ALIVE_S)
                heard()
                await self.fetch("SELECT 1")  # whether it is still there
        finally:
            await self.close()

    async def close(self) -> None:
        """Close the connection."""
        connection, self._connection = self._connection, None
        if connection is not None:
            await connection.close()

    async def _open(self) -> Connection:
        if self._connection is None or self._connection.closed:
            self._connection = await Connection.open(self._address)
            self._greeted_at = float("-inf")
        now = time.monotonic()
        if self._greet is not None and now - self._greeted_at >= GREET_S:
            with self._connection.limited(self._timeout_s):
                await self._greet(self._connection)
            self._greeted_at = now
        return self._connection


@contextlib.contextmanager
def _classified() -> Iterator[None]:
    """Raise what the server says as what it means to us."""
    try:
        yield
    except psycopg.Error as error:
        code = error.sqlstate or ""
        if isinstance(error, psycopg.DataError) or code.startswith(TOO_COMPLEX):
            raise BadData(code) from None
        told = EXPLAINED.get(code)
        answer = f"SQLSTATE {code}" if code else ""
        raise DatabaseAway(f"{text(told)} ({answer})" if told else answer) from None
