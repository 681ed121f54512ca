"""A marked person goes through the connectors that tests of a call do not start: outside services,
the database of an ambulance system, ЦССИ-112, the register of workers, another bus; and through
memcached. Then he is erased, and all that is written is searched.
"""

import asyncio
import json
import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.parse import unquote
from urllib.request import Request, urlopen

import pytest

from connectors.partners.smpsql.tables import SCHEMA
from connectors.runtime.door.token import digest_of, new_token
from connectors.services.lookup.secret import Secret
from connectors.simulators.rmr import samples
from proto import catalogue
from proto.external_types import HAND_IN
from tests.integration.bus import SMPBUS, RouterProcess
from tests.integration.memcache import Memcache
from tests.integration.postgres import BUS, PASSWORD, VENDOR, Postgres
from tests.ports import free_ports
from tests.until import wait_for

FAMILY = "Меткин-Ъыъ"
PHONE = "+79990007531"
SNILS = "00100199877"
WORDS = "метка-описания-Щ7531"
MARKS = (FAMILY, PHONE[2:], SNILS, WORDS)
ID112 = "112-99-753100"
WORKER = "99-777531"
CARD = catalogue.entry("incident.card.v1").example
STATUS = catalogue.entry("external.status.v1").example
BACKOFF = "backoff = { attempts_max = 1000000, first_ms = 50, longest_ms = 200 }\n"
QUEUES = ("external", "smpsql", "cssi112", "rmr", "central", "admin")
CONNECTORS = ("external", "smpsql", "cssi112", "rmr", "replication")
ROUTES = "".join(f"[destinations.{one}]\n{BACKOFF}" for one in QUEUES) + "".join(
    f'[[routes]]\ntype = "{type}"\nsource = "{source}"\nto = {json.dumps(to)}\n'
    for type, source, to in (
        ("incident.card.v1", "sys112", ["cssi112", "smpsql", "central"]),
        ("external.*", "external", ["smpsql", "central"]),
        ("external.status.v1", "smpsql", ["external"]),
        ("worker.*", "rmr", ["smpsql"]),
        ("input.rejected.v1", "external", ["admin"]),
    )
)
PERMISSIONS = """
[peers.sys112]
publish = ["incident.*"]
ask = ["rmr"]
[peers.external]
publish = ["external.*", "input.rejected.v1"]
consume = ["external"]
[peers.smpsql]
publish = ["external.status.v1", "input.rejected.v1"]
consume = ["smpsql"]
[peers.cssi112]
consume = ["cssi112"]
[peers.rmr]
publish = ["worker.*", "input.rejected.v1"]
consume = ["rmr"]
serve = ["rmr"]
[peers.replication]
publish = ["*"]
consume = ["central"]
relay = ["*"]
[peers.admin]
consume = ["admin"]
"""
AT_CENTRE = {
    "peers": ("reader",),
    "routes": '[destinations.sink]\n[destinations.region]\n[[routes]]\ntype = "*"\nto = ["sink"]\n',
    "permissions": '[peers.reader]\nconsume = ["sink"]\n'
    '[peers.region]\npublish = ["*"]\nconsume = ["region"]\nrelay = ["*"]\n',
}
SETTINGS = """
[connectors.external]
listen = "127.0.0.1:{external}"
state_file = "external.db"
[connectors.external.clients.medevac]
token_file = "medevac.token"
[connectors.smpsql]
open = true
listen = "127.0.0.1:{smpsql}"
poll_s = 0.05
[connectors.smpsql.partner]
url = "{database}"
system = "ИС СМП"
credentials_file = "smpbus.password"
[connectors.cssi112]
open = true
listen = "127.0.0.1:{cssi112}"
repeat_after_s = 0.1
[connectors.cssi112.partner]
url = "http://127.0.0.1:{centre}/cssi"
system = "ЦССИ-112"
[connectors.rmr]
open = true
listen = "127.0.0.1:{rmr}"
state_file = "register.db"
poll_s = 0.1
page_size = 200
pause_s = 0.05
[connectors.rmr.partner]
url = "http://127.0.0.1:{register}"
system = "РМР"
[connectors.rmr.lookup]
server = "127.0.0.1:{cache}"
secret_file = "lookup.secret"
ttl_s = {{ worker = 720000.0 }}  # 200 h
[connectors.replication]
open = true
listen = "127.0.0.1:{replication}"
destination = "central"
[connectors.replication.partner]
url = "{there}"
system = "Шина района"
name = "region"
key = "keys/replication.key"
server_key = "central.pub"
"""


class Region(RouterProcess):
    """A bus with these connectors and their partners, and the bus that it is joined to."""

    def __init__(self, stack: ExitStack) -> None:
        super().__init__(
            peers=("sys112", "admin", *CONNECTORS), routes=ROUTES, permissions=PERMISSIONS
        )
        self.central = RouterProcess(**AT_CENTRE)  # type: ignore[arg-type]
        shutil.copy(self.keys / "replication.pub", self.central.keys / "region.pub")
        shutil.copy(self.central.keys / "router.pub", self.folder / "central.pub")
        self.changes = 0  # of the worker
        self.cache = Memcache()
        stack.callback(self.cache.kill)
        pool = stack.enter_context(ThreadPoolExecutor(1))
        starting = pool.submit(lambda: stack.enter_context(Postgres()))
        names = (*CONNECTORS, "centre", "register")
        self.ports = dict(zip(names, free_ports(len(names)), strict=True))
        self.token = new_token()
        self.secrets = {
            "medevac.token": digest_of(self.token) + "\n",
            "smpbus.password": f"{BUS}:{PASSWORD}\n",
            "lookup.secret": "0123456789abcdef" * 3,
        }
        for name, secret in self.secrets.items():
            (self.folder / name).touch(mode=0o600)
            (self.folder / name).write_text(secret)
        stack.enter_context(self.central)
        for port, kind in (("centre", "cssi112"), ("register", "rmr")):
            listen = f"127.0.0.1:{self.ports[port]}"
            self._run(stack, f"sim-{kind}", "sim", kind, "--listen", listen)
        self.cache.start()
        self.postgres = starting.result()
        self.database = self.postgres.new_database()
        told = SETTINGS.format(
            database=self.postgres.url(self.database), cache=self.cache.port,
            there=self.central.tcp(), **self.ports,
        )  # fmt: skip
        self.config.write_text(self.config.read_text() + told)
        stack.enter_context(self)
        self.owner = self.postgres.connect(self.database)
        self.owner.execute(SCHEMA.read_bytes())
        self.owner.execute("SELECT smpbus.allow_vendor(%s), smpbus.allow_bus(%s)", (VENDOR, BUS))
        self.vendor = self.postgres.connect(self.database, VENDOR)
        for one in (self.owner, self.vendor):
            stack.callback(one.close)
        for name in CONNECTORS:
            self._run(stack, name, "connector", name, "--config", str(self.config))

    def _run(self, stack: ExitStack, name: str, *arguments: str) -> None:
        with (self.folder / f"{name}.log").open("ab") as log:
            process = subprocess.Popen([SMPBUS, *arguments], stdout=log, stderr=log)
        stack.callback(process.wait)
        stack.callback(process.kill)

    def http(self, port: str, path: str, body: Any = None, **headers: str) -> Any:
        """Return (status, JSON); (0, None) when nobody answers."""
        data = body if isinstance(body, bytes | None) else json.dumps(body).encode()
        told = {"content-type": "application/json"} | headers
        request = Request(f"http://127.0.0.1:{self.ports[port]}{path}", data, told)
        try:
            with urlopen(request, timeout=30) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except URLError as error:
            return getattr(error, "code", 0), None

    def hand_in(self, key: str, body: Any) -> Any:
        """As an outside service does."""
        secret = {"authorization": f"Bearer {self.token}", "idempotency-key": key}
        return self.http("external", "/external/calls", body, **secret)

    def received(self) -> dict[str, list[Any]]:
        """What the ambulance system has in its inbox, by type."""
        found: dict[str, list[Any]] = {}
        for type, body in self.owner.execute("SELECT type, payload FROM smpbus.inbox").fetchall():
            found.setdefault(type, []).append(body)
        return found

    def live(self) -> None:
        """One marked person, in all that these connectors carry; others, too."""
        sessions = len(CONNECTORS)
        wait_for(lambda: self.ask("status")["sessions"] == sessions, "all sessions")
        wait_for(lambda: self.http("register", "/ledger")[0] == 200, "the register")
        person = {"id": "p1", "sex": "male", "family": FAMILY, "snils": SNILS}
        marked = {"caller": {"name": FAMILY, "phone": PHONE}, "patients": [person]}
        contact = CARD["contact"] | {"caller": marked["caller"]}
        card = CARD | {"id112": ID112, "description": WORDS, "contact": contact}
        with self.blocking("sys112") as bus:
            cards = [card | {"patients": [person]}, CARD]
            drafts = [
                bus.message("incident.card.v1", one, subject=f"112-{one['id112']}") for one in cards
            ]
            assert not any(bus.publish_many(drafts))
        wait_for(lambda: self.http("external", "/external/calls")[0], "the door")
        self.call = HAND_IN | marked | {"description": WORDS}
        status, view = self.hand_in("k1", self.call)
        assert status == 201
        # What is refused names him, too: the administrator hears of the field, not of him.
        assert self.hand_in("k2", {"caller": marked["caller"], "description": WORDS})[0] == 400
        self.ref = f"medevac-{view['id']}"
        subject = f"ext-{self.ref}"
        wait_for(lambda: "external.call.v1" in self.received(), "the call")
        told = STATUS | {"external": self.ref, "remark": WORDS}
        body = json.dumps(told)
        self.vendor.execute("SELECT smpbus.publish('external.status.v1', %s, %s)", (subject, body))
        wait_for(self.is_cached, "the worker, in memcached too")
        assert asyncio.run(self.who({"snils": SNILS}))["family"] == FAMILY
        wait_for(self.is_calm, "everything to be settled")
        rows = self.central.ask("queues")["queues"]
        count = next(row["pending"] for row in rows if row["destination"] == "sink")
        assert count == 3, "both cards and the call"
        with self.central.blocking("reader") as bus:
            for delivery in bus.consume("sink"):
                bus.ack(delivery)
                count -= 1
                if not count:
                    break

    def is_cached(self) -> bool:
        """Whether memcached has the worker. It may be too slow for the connector, which then goes
        on without: so the register changes him until it has."""
        heard = self.received().get("worker.changed.v1", [])
        if sum(one["snils"] == SNILS for one in heard) == self.changes:
            self.changes += 1
            worker = samples.workers(7, 1)[0] | {"id": WORKER, "snils": SNILS, "family": FAMILY}
            worker["given"] = f"Пробник-{'абвгдежз' * self.changes}"
            assert self.http("register", "/drive", {"put": [worker]})[0] in (202, 204)
        key = Secret.load(self.folder / "lookup.secret").key("worker", ("snils", SNILS))
        return key in map(unquote, self.cache.keys())

    async def who(self, asked: dict[str, str]) -> Any:
        async with self.client("sys112") as bus:
            reply = await bus.request("rmr", bus.message("worker.lookup.v1", asked))
            return json.loads(reply.body)["worker"]

    def is_calm(self) -> bool:
        rows = {row["destination"]: row for row in self.ask("queues")["queues"]}
        waiting = ("pending", "in_flight", "retrying")
        settled = {name: rows[name]["settled"] for name in QUEUES}
        enough = settled["external"] >= 1 and settled["cssi112"] >= 2 and settled["central"] >= 3
        return enough and not any(rows[name][one] for name in QUEUES[:-1] for one in waiting)

    def person(self, *arguments: str, at: RouterProcess) -> "subprocess.CompletedProcess[str]":
        command = [SMPBUS, "person", *arguments, "--config", str(at.config)]
        return subprocess.run(command, capture_output=True, text=True, timeout=150, check=False)

    def erase(self, protocol: Path, *who: str, at: RouterProcess) -> Any:
        """Erase him, and return the protocol."""
        why = ("--yes", "--reason", "заявление 17", "--protocol", str(protocol))
        done = self.person("erase", *who, *why, at=at)
        assert done.returncode == 0, done.stdout + done.stderr
        written = protocol.read_text(encoding="utf-8")
        assert not [one for one in MARKS if one in written]
        return json.loads(written)


def files_with(bus: RouterProcess) -> list[str]:
    """The files, of the bus and not of its partners, that have one of the marks in them."""
    found = []
    for file in sorted(bus.folder.rglob("*")):
        if file.is_file() and not file.name.startswith("sim-"):
            data = file.read_bytes()
            if any(one.encode() in data for one in MARKS):
                found.append(str(file.relative_to(bus.folder)))
    return found


@pytest.fixture(scope="module")
def region() -> Iterator[Region]:
    with ExitStack() as stack:
        region = Region(stack)
        region.live()
        yield region


@pytest.mark.fault("S10")
def test_no_log_no_figure_and_no_cache_names_a_person(region: Region) -> None:
    """Before anything is erased: not the logs of connectors, the database's own, figures, and
    neither keys nor values in memcached."""
    for log in (*region.folder.glob("*.log"), region.postgres.log, region.central.log):
        told = log.read_text(encoding="utf-8")
        assert not [one for one in MARKS if one in told], log.name
    pages = [region.http(name, "/figures")[1] for name in ("smpsql", "rmr", "replication")]
    assert all(pages)
    pages += [region.ask(one) for one in ("metrics", "status", "partners", "queues")]
    said = json.dumps(pages, ensure_ascii=False)
    assert not [one for one in MARKS if one in said]
    keys, values = region.cache.keys(), region.cache.values()
    assert len(keys) == len(values) >= 1
    dump = b"\n".join([*(key.encode() for key in keys), *values])
    for mark in (*MARKS, "family", "worker", WORKER):
        assert mark.encode() not in dump


@pytest.mark.fault("S10")
def test_a_person_is_erased_on_both_buses(region: Region, tmp_path: Path) -> None:
    """Out of the journals, their logs and every connector's file. What the ambulance system has in
    its own tables, what was passed on, and what memcached still holds, the protocol names."""
    kept = files_with(region)
    assert any(one.startswith("data/journal.db") for one in kept)
    who = ("--snils", SNILS, "--phone", PHONE, "--card", f"112-{ID112}")
    written = region.erase(tmp_path / "region.json", *who, at=region)
    assert files_with(region) == []
    assert written["passed_on_to"].keys() == {"central", "cssi112", "external", "smpsql"}
    files = {(one["connector"], one["table"], one["key"]) for one in written["files"]}
    assert files == {("external", "call", region.ref), ("external", "event", region.ref)}
    assert region.ask("check")["wrong"] == []
    untouched = " ".join(written["not_touched"])
    assert "smpbus.inbox" in untouched
    # Until when memcached may have an answer about him: the setting, in hours.
    assert " 200 " in untouched

    # The other bus has a journal of its own.
    assert files_with(region.central) != []
    region.erase(tmp_path / "central.json", *who, at=region.central)
    assert files_with(region.central) == []
    assert region.central.ask("check")["wrong"] == []


@pytest.mark.fault("S10")
def test_what_was_erased_and_comes_again_is_known(region: Region) -> None:
    """A repeat is answered as the first time was, and writes nothing of him."""
    accepted = region.ask("status")["counters"]["accepted"]
    status, view = region.hand_in("k1", region.call)
    assert (status, f"medevac-{view['id']}") == (201, region.ref)
    assert region.ask("status")["counters"]["accepted"] == accepted
    assert files_with(region) == []
