"""A real PostgreSQL and a real PgBouncer of our own, for tests to start, stop and kill.

Both run on free ports of loopback in a folder of theirs; the distribution's own cluster plays no
part. As root they run as the user postgres, since PostgreSQL refuses to run as root.
"""

import contextlib
import os
import shutil
import signal
import subprocess
import tempfile
from pathlib import Path
from typing import Any, Self

import psycopg

from tests.ports import free_ports
from tests.until import wait_for

PATIENCE_S = 60.0
QUIET_S = 5.0
OWNER, VENDOR, BUS = "owner", "ambulance", "smpbus"
PASSWORD = "made-up"
BOUNCER = """
[databases]
* = host=127.0.0.1 port={server}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
unix_socket_dir =
auth_type = scram-sha-256
auth_file = {users}
pool_mode = transaction
default_pool_size = 4
max_client_conn = 200
server_login_retry = 0.2
"""


def _binaries() -> Path:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parts[4]))
    assert found, "no PostgreSQL in /usr/lib/postgresql"
    return found[-1]


class Postgres:
    """One cluster, and a pooler before it in transaction mode."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="smpbus-pg-", dir="/tmp"))
        self.port, self.pooler_port = free_ports(2)
        self._as_user: list[str] = []
        if os.getuid() == 0:
            shutil.chown(self.folder, "postgres")
            self._as_user = ["setpriv", "--reuid=postgres", "--regid=postgres", "--init-groups"]
        self.data = self.folder / "data"
        self.log = self.folder / "server.log"
        self.server: subprocess.Popen[bytes] | None = None
        self.pooler: subprocess.Popen[bytes] | None = None
        self._names = iter(range(1_000))

    def __enter__(self) -> Self:
        password = self.folder / "password"
        password.write_text(PASSWORD)
        password.chmod(0o644)
        command = [
            *self._as_user, str(_binaries() / "initdb"), "-D", str(self.data), "-U", OWNER,
            "-E", "UTF8", "--locale=C", "--no-sync", "--auth=scram-sha-256",
            f"--pwfile={password}",
        ]  # fmt: skip
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        self.start()
        with self.connect() as owner:
            for role in (VENDOR, BUS):
                owner.execute(f"CREATE ROLE {role} LOGIN PASSWORD '{PASSWORD}'")
        users = self.folder / "users"
        users.write_text("".join(f'"{name}" "{PASSWORD}"\n' for name in (OWNER, VENDOR, BUS)))
        settings = self.folder / "pgbouncer.ini"
        settings.write_text(BOUNCER.format(server=self.port, port=self.pooler_port, users=users))
        self.start_pooler()
        return self

    def __exit__(self, *_: object) -> None:
        if self.pooler is not None:
            _kill(self.pooler)
        if self.server is not None and self.server.poll() is None:
            _end(self.server)
        shutil.rmtree(self.folder)

    def start(self) -> None:
        """Start the server and wait until it answers."""
        command = [
            *self._as_user, str(_binaries() / "postgres"), "-D", str(self.data),
            "-p", str(self.port), "-k", str(self.folder), "-c", "listen_addresses=127.0.0.1",
            "-c", "fsync=off", "-c", "shared_buffers=64MB",
        ]  # fmt: skip
        self.server = self._spawn(command)
        self._wait(self.port)

    def start_pooler(self) -> None:
        """Start the pooler and wait until it answers."""
        found = shutil.which("pgbouncer", path=f"{os.environ['PATH']}:/usr/sbin")
        assert found, "no pgbouncer"
        self.pooler = self._spawn([*self._as_user, found, str(self.folder / "pgbouncer.ini")])
        self._wait(self.pooler_port)

    def restart_pooler(self) -> None:
        """Break every connection through the pooler off."""
        assert self.pooler is not None
        # Since PgBouncer 1.23 SIGTERM waits until every client has gone by itself, and before that
        # SIGQUIT was none of its signals.
        _kill(self.pooler)
        self.start_pooler()

    def _spawn(self, command: list[str]) -> "subprocess.Popen[bytes]":
        with self.log.open("ab") as log:
            return subprocess.Popen(command, stdout=log, stderr=log)

    def _wait(self, port: int) -> None:
        def answers() -> bool:
            with contextlib.suppress(psycopg.OperationalError):
                self.connect(port=port).close()
                return True
            return False

        wait_for(answers, f"the server whose log is {self.log}", PATIENCE_S)

    def stop(self, number: int = signal.SIGINT) -> None:
        """Stop the server: SIGINT breaks every session off, SIGQUIT is as a crash is."""
        assert self.server is not None
        self.server.send_signal(number)
        self.server.wait(PATIENCE_S)

    def connect(self, database: str = "postgres", user: str = OWNER, port: int = 0) -> Any:
        """Return a connection, in autocommit."""
        return psycopg.connect(
            f"postgresql://{user}:{PASSWORD}@127.0.0.1:{port or self.port}/{database}",
            autocommit=True,
            connect_timeout=5,
            prepare_threshold=None,
        )

    def new_database(self) -> str:
        """Return the name of a database that is empty but for a schema of the vendor's."""
        name = f"smp{next(self._names)}"
        with self.connect() as owner:
            owner.execute(f"CREATE DATABASE {name}")
            owner.execute(f"GRANT CREATE ON DATABASE {name} TO {VENDOR}")
        with self.connect(name) as owner:
            owner.execute(f"CREATE SCHEMA {VENDOR} AUTHORIZATION {VENDOR}")
        return name

    def url(self, database: str, *, pooled: bool = True) -> str:
        """Return the address of a database, through the pooler or directly."""
        return f"postgresql://127.0.0.1:{self.pooler_port if pooled else self.port}/{database}"


def _kill(process: "subprocess.Popen[bytes]") -> None:
    process.kill()
    process.wait()


def _end(process: "subprocess.Popen[bytes]") -> None:
    """End a server at once, whatever state the tests left it in."""
    process.send_signal(signal.SIGQUIT)
    try:
        process.wait(QUIET_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
