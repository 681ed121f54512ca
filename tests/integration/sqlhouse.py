"""A router, a database of the ambulance system's own and the connector between them, all real.

The connector reaches the database through PgBouncer in transaction mode.
"""

import json
import os
import signal
import subprocess
from collections import defaultdict
from typing import Any

from connectors.partners.smpsql.tables import SCHEMA
from proto import catalogue
from proto.message import Message
from tests.integration.bus import SMPBUS, RouterProcess
from tests.integration.postgres import BUS, OWNER, PASSWORD, VENDOR, Postgres
from tests.ports import free_port
from tests.until import wait_for

STATUS = catalogue.entry("call.status.v1").example
CARD = catalogue.entry("incident.card.v1").example
ROUTES = """
[destinations.sink]
[destinations.admin]
[destinations.ambulance]
backoff = { attempts_max = 1000000, first_ms = 100, longest_ms = 300 }
[[routes]]
type = "call.*"
to = ["sink"]
[[routes]]
type = "incident.*"
to = ["ambulance"]
[[routes]]
type = "input.rejected.v1"
to = ["admin"]
"""
PERMISSIONS = """
[peers.ambulance]
publish = ["call.*", "input.rejected.v1", "hospital.book.v1"]
consume = ["ambulance"]
[peers.sys112]
publish = ["incident.*"]
[peers.reader]
consume = ["sink", "admin"]
"""
TABLE = """
[connectors.ambulance]
open = true
listen = "127.0.0.1:{figures}"
poll_s = {poll_s}
batch_rows = {batch_rows}
credit = {batch_rows}
body_bytes_max = 20000
[connectors.ambulance.partner]
url = "{url}"
listen_url = "{listen_url}"
system = "ИС СМП"
credentials_file = "{password}"
timeout_s = 2.0
[connectors.ambulance.partner.breaker]
failures_max = 3
open_s = 0.1
open_max_s = 0.3
"""


class House(RouterProcess):
    """A router, a database of the ambulance system's own, and the connector between them."""

    def __init__(
        self,
        postgres: Postgres,
        *,
        poll_s: float = 0.02,
        heard: bool = False,
        batch_rows: int = 40,
    ) -> None:
        super().__init__(
            peers=("ambulance", "sys112", "reader"), routes=ROUTES, permissions=PERMISSIONS
        )
        self.postgres = postgres
        self.database = postgres.new_database()
        self.connector: subprocess.Popen[bytes] | None = None
        self.connector_log = self.folder / "connector.log"
        self.figures_port = free_port()
        self.passwords = {name: self.folder / f"{name}.password" for name in (OWNER, BUS)}
        for name, path in self.passwords.items():
            path.touch(mode=0o600)
            path.write_text(f"{name}:{PASSWORD}\n")
        told = TABLE.format(
            figures=self.figures_port,
            poll_s=poll_s,
            batch_rows=batch_rows,
            url=postgres.url(self.database),
            listen_url=postgres.url(self.database, pooled=False) if heard else "",
            password=self.passwords[BUS],
        )
        self.config.write_text(self.config.read_text() + told)

    def __enter__(self) -> "House":
        super().__enter__()
        self.vendor = self.postgres.connect(self.database, VENDOR)
        self.owner = self.postgres.connect(self.database)
        self.owner.execute(SCHEMA.read_bytes())
        self.owner.execute("SELECT smpbus.allow_vendor(%s), smpbus.allow_bus(%s)", (VENDOR, BUS))
        return self

    def __exit__(self, *told: Any) -> None:
        if self.connector is not None:
            self.end_connector(kill=True)
        if self.connector_log.exists():
            print(self.connector_log.read_text())
        self.disconnect()
        super().__exit__(*told)

    def clear(self) -> None:
        """As it was at the start, with the connector at work."""
        self.owner.execute("TRUNCATE smpbus.outbox, smpbus.inbox")
        for destination in ("sink", "admin"):
            self.read(destination)
        self.route("")
        if self.connector is None:
            self.start_connector()

    def smpbus(self, *arguments: str, code: int = 0) -> str:
        done = subprocess.run(
            [SMPBUS, *arguments], capture_output=True, text=True, timeout=60, check=False,
            env=os.environ | {"SMPBUS_LANG": "ru"},
        )  # fmt: skip
        assert done.returncode == code, done.stdout + done.stderr
        return done.stdout + done.stderr

    def check(self, code: int = 0) -> str:
        named = ("connector", "ambulance", "--kind", "smpsql", "--config", str(self.config))
        return self.smpbus(*named, "--check", code=code)

    def start_connector(self) -> None:
        command = [SMPBUS, "connector", "ambulance", "--kind", "smpsql"]
        with self.connector_log.open("ab") as log:
            self.connector = subprocess.Popen(
                [*command, "--config", str(self.config)], stdout=log, stderr=log,
                env=os.environ | {"SMPBUS_LANG": "ru"},
            )  # fmt: skip

    def end_connector(self, *, kill: bool = False) -> int:
        assert self.connector is not None
        process, self.connector = self.connector, None
        (process.kill if kill else process.terminate)()
        return process.wait(30)

    def pause(self) -> None:
        """Have the connector do nothing until `resume`."""
        assert self.connector is not None
        self.connector.send_signal(signal.SIGSTOP)

    def resume(self) -> None:
        assert self.connector is not None
        self.connector.send_signal(signal.SIGCONT)

    def told(self) -> str:
        return self.connector_log.read_text(encoding="utf-8")

    # -- the vendor's side ----------------------------------------------------------------------

    def publish(self, subject: str, event: str, on: Any = None, **more: Any) -> str:
        body = json.dumps(STATUS | {"event_id": event})
        named = "".join(f", {name} => %s" for name in more)
        query = f"SELECT smpbus.publish('call.status.v1', %s, %s{named})"
        (row,) = (on or self.vendor).execute(query, (subject, body, *more.values())).fetchall()
        return str(row[0])

    def states(self) -> dict[str, int]:
        rows = self.owner.execute("SELECT state, count(*) FROM smpbus.outbox GROUP BY 1").fetchall()
        return dict(rows)

    def waiting(self) -> bool:
        query = "SELECT EXISTS (SELECT FROM smpbus.outbox WHERE state = 'waiting')"
        return bool(self.owner.execute(query).fetchone()[0])

    def all_accepted(self, count: int) -> None:
        wait_for(lambda: self.states() == {"accepted": count}, f"{count} rows on the bus")

    def received(self, id: str) -> Any:
        return self.owner.execute("SELECT FROM smpbus.inbox WHERE id = %s", (id,)).fetchall()

    def progress(self) -> tuple[int, int]:
        """What has gone either way."""
        return self.states().get("accepted", 0), self.queue("ambulance")["settled"]

    def reconnect(self) -> None:
        """After the server was away."""
        self.disconnect()
        self.vendor = self.postgres.connect(self.database, VENDOR)
        self.owner = self.postgres.connect(self.database)

    def disconnect(self) -> None:
        self.vendor.close()
        self.owner.close()

    def blocks_of_a_poll(self) -> int:
        """How many blocks the server looked at for one."""
        explain = (
            "EXPLAIN (ANALYZE, BUFFERS, FORMAT JSON) SELECT * FROM"
            " smpbus.bus_waiting(40, 100000, 2000, '{}', '{}')"
        )
        self.owner.execute(explain)  # the first of a session reads the catalogue
        plan = self.owner.execute(explain).fetchone()[0][0]["Plan"]
        return int(plan["Shared Hit Blocks"] + plan["Shared Read Blocks"])

    # -- the bus's side -------------------------------------------------------------------------

    def route(self, more: str, routes: str = ROUTES) -> None:
        (self.folder / "routes.toml").write_text(routes + more)
        self.ask("reload")

    def queue(self, destination: str) -> dict[str, int]:
        rows = self.ask("queues")["queues"]
        return next(row for row in rows if row["destination"] == destination)

    def pending(self, destination: str) -> int:
        row = self.queue(destination)
        return row["pending"] + row["in_flight"] + row["retrying"]

    def read(self, destination: str = "sink") -> list[Message]:
        """Take all that a queue holds, in the order the router has it."""
        count = self.pending(destination)
        found: list[Message] = []
        with self.blocking("reader") as bus:
            deliveries = bus.consume(destination)
            while len(found) < count:
                delivery = next(deliveries)
                found.append(delivery.message)
                bus.ack(delivery)
        return found

    def send_cards(self, subjects: list[str]) -> list[str]:
        """Have System-112 send a card for each; return their ids."""
        with self.blocking("sys112") as bus:
            messages = [bus.message("incident.card.v1", CARD, subject=one) for one in subjects]
            assert not any(bus.publish_many(messages))
        return [message.id for message in messages]


def events(messages: list[Message]) -> dict[str, list[str]]:
    """The events of each subject, in order."""
    found = defaultdict(list)
    for message in messages:
        found[message.subject].append(json.loads(message.body)["event_id"])
    return found
