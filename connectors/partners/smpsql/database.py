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
from psycopg.conninfo import conninfo_to_dict, make_conninfo

from connectors.runtime.partner.partner import credentials
from proto.exits import StartError
from proto.inclear import is_here
from proto.note import coded
from proto.wording import text

ALIVE_S: Final = 15.0
GREET_S: Final = 60.0
VERIFIED: Final = "verify-full"
# Found at the first statement: the network, or what stands between, has dropped the connection.
KEEPALIVE: Final = {
    "keepalives_idle": 10,
    "keepalives_interval": 5,
    "keepalives_count": 3,
    "tcp_user_timeout": 15_000,
}
TOO_COMPLEX: Final = "54"  # class: a program limit is exceeded, by what was given
# Classes: integrity, a trigger's transaction rules, WITH CHECK OPTION, what PL/pgSQL raises.
RULES: Final = ("23", "27", "44", "P0")
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
    """The database cannot be used now; `answer` is a note that says why, "" when it does not answer
    at all."""

    def __init__(self, answer: str = "") -> None:
        super().__init__(answer)
        self.answer = answer


class BadData(Exception):
    """What was given cannot be stored, now or later."""


class NotTaken(Exception):
    """The database refuses what was given, by a rule of its own (a constraint, a trigger), and
    perhaps not for ever; the connection is well. Its text is the SQLSTATE."""


class Address:
    """Where a database is and who we are there, as libpq wants it.

    To another machine nothing is said, no password and no row, before it has shown a certificate
    for its name: sslmode=verify-full, unless the URL itself asks for another. `unverified` is that
    other mode, None when there is nothing to warn of.
    """

    def __init__(
        self, url: str, credentials_file: Path | None, *, connect_s: float,
        ca_file: Path | None = None, certificate: Path | None = None, key: Path | None = None,
    ) -> None:  # fmt: skip
        """`ca_file` holds the only authorities that are trusted, else those of this machine.
        Raises StartError."""
        _forget_environment()
        user, password = credentials(credentials_file)
        try:
            asked = conninfo_to_dict(url)
            local = all(map(is_here, str(asked.get("host") or "").split(",")))
            mode = str(asked.get("sslmode") or ("prefer" if local and not ca_file else VERIFIED))
            authorities = {"sslrootcert": str(ca_file or "system")} if mode == VERIFIED else {}
            pair = {"sslcert": certificate, "sslkey": key}
            self.unverified = None if local or mode == VERIFIED else mode
            self.conninfo = make_conninfo(
                url,
                user=user,
                password=password,
                client_encoding="UTF8",
                application_name="smpbus",
                connect_timeout=max(2, round(connect_s)),
                sslmode=mode,
                **{name: str(path) for name, path in pair.items() if path is not None},
                **authorities,
                **KEEPALIVE,
            )
        except psycopg.ProgrammingError:
            raise StartError(text("smpsql.bad_url", url=place(url))) from None


def _forget_environment() -> None:
    """What libpq reads by itself ($PGSSLMODE, $PGHOSTADDR, ...) would change whom we speak to; a
    file of passwords ($PGPASSFILE) does not."""
    for name in [name for name in os.environ if name.startswith("PG") and name != "PGPASSFILE"]:
        del os.environ[name]


def place(url: str) -> str:
    """Return HOST:PORT of a URL, without what may be a secret."""
    return urlsplit(url).netloc.rpartition("@")[2]


def has_password(url: str) -> bool:
    """Whether a URL holds a password: whoever lists processes reads it."""
    try:
        return "password" in conninfo_to_dict(url)
    except psycopg.ProgrammingError:
        return False  # Address says so


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
            if asked:
                raise DatabaseAway(coded("smpsql.no_login")) from None
            # Nor is there a code for this: libpq says it in English words only.
            untrusted = "SSL" in str(error) or "certificate" in str(error)
            raise DatabaseAway(coded("smpsql.untrusted") if untrusted else "") from None

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
            except (BadData, NotTaken):
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
        if code.startswith(RULES):
            raise NotTaken(code) from None
        told = EXPLAINED.get(code)
        answer = f"SQLSTATE {code}" if code else ""
        raise DatabaseAway(f"{coded(told)}: {answer}" if told else answer) from None
