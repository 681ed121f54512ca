"""Calls of outside services through the whole bus, and the ambulance fetching them by itself: real
processes, the shipped routes and permissions, faults and kills."""

import json
import shutil
import subprocess
import tempfile
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest

from connectors.runtime.door.token import digest_of, new_token
from proto import catalogue
from proto.keys import KeyPair
from proto.ops import OpsError, ops_request
from tests.integration.house import ROOT, SMPBUS
from tests.ports import free_ports
from tests.until import wait_for

SECRET = "0123456789abcdef" * 3
SETTINGS = """
[bus]
listen = ["ipc://{folder}/bus.sock"]
keys_dir = "keys"
[ops]
listen = "ipc://{folder}/ops.sock"
events = "ipc://{folder}/events.sock"
http = ""
[store]
folder = "data"
free_bytes_min = 0

[connectors.smp]
open = true
listen = "127.0.0.1:{door}"
mode = "{mode}"
visibility_s = 1.0
credit = 8
question_timeout_s = 0.1
[connectors.smp.partner]
url = "http://127.0.0.1:{ambulance}"

[connectors.external]
listen = "127.0.0.1:{external}"
state_file = "calls.db"
[connectors.external.clients.asking]
token_file = "asking.token"
[connectors.external.clients.told]
token_file = "told.token"
[connectors.external.clients.told.webhook]
url = "http://127.0.0.1:{platform}/webhook"
secret_file = "webhook.secret"
timeout_s = 2.0
breaker = {{ failures_max = 3, open_s = 0.1, open_max_s = 0.2 }}
[connectors.external.clients.dead]
token_file = "dead.token"
[connectors.external.clients.dead.webhook]
url = "http://127.0.0.1:1/nobody"
secret_file = "webhook.secret"
breaker = {{ failures_max = 3, open_s = 0.1, open_max_s = 0.2 }}
"""


class Town:
    """Router, the connectors smp and external, the ambulance and an outside service."""

    def __init__(self, mode: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="smpbus-", dir="/tmp"))
        names = ("door", "ambulance", "external", "platform")
        self.ports = dict(zip(names, free_ports(4), strict=True))
        self.config = self.folder / "smpbus.toml"
        told = SETTINGS.format(folder=self.folder, mode=mode, **self.ports)
        self.config.write_text(told, encoding="utf-8")
        shutil.copy(ROOT / "config" / "permissions.toml", self.folder)
        routes = (ROOT / "config" / "routes.toml").read_text(encoding="utf-8")
        quick = routes.replace(
            "backoff = { attempts_max = 1000000 }",
            "backoff = { attempts_max = 1000000, first_ms = 100, longest_ms = 500 }",
        )
        (self.folder / "routes.toml").write_text(quick, encoding="utf-8")
        secret = self.folder / "webhook.secret"
        secret.touch(mode=0o600)
        secret.write_text(SECRET, encoding="ascii")
        for name in ("router", "smp", "external", "sys112"):
            KeyPair.new().save(self.folder / "keys", name)
        self.tokens = {name: new_token() for name in ("asking", "told", "dead")}
        for name, token in self.tokens.items():
            file = self.folder / f"{name}.token"
            file.write_text(digest_of(token) + "\n", encoding="ascii")
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def run(self, *arguments: str, given: str = "") -> str:
        done = subprocess.run(
            [str(SMPBUS), *arguments, "--config", str(self.config)],
            input=given, capture_output=True, text=True, timeout=60, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, *names: str) -> None:
        for name in names:
            with (self.folder / f"{name}.log").open("ab") as log:
                command = [str(SMPBUS), *self._arguments(name)]
                self.processes[name] = subprocess.Popen(command, stderr=log, stdout=log)
        if "router" in names:
            wait_for(self.is_there, "the router")

    def is_there(self) -> bool:
        """Whether the router answers."""
        try:
            return bool(ops_request(f"ipc://{self.folder}/ops.sock", "status"))
        except OpsError:
            return False

    def _arguments(self, name: str) -> list[str]:
        if name == "router":
            return ["router", "--config", str(self.config)]
        if not name.startswith("sim-"):
            return ["connector", name, "--config", str(self.config)]
        system, here, there = {
            "sim-smp": ("smp", "ambulance", "door"),
            "sim-external": ("external", "platform", "external"),
        }[name]
        listen, door = (f"127.0.0.1:{self.ports[port]}" for port in (here, there))
        quick = ["--pace", "0.05", "--repeat", "0.1"]
        return ["sim", system, "--listen", listen, "--connector", f"http://{door}", *quick]

    def kill(self, name: str) -> None:
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def http(self, port: str, path: str, body: Any = None, **headers: str) -> Any:
        """Return (status, JSON); (0, None) when nobody answers."""
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"http://127.0.0.1:{self.ports[port]}{path}", data)
        for name, value in {"content-type": "application/json", **headers}.items():
            request.add_header(name.replace("_", "-"), value)
        try:
            with urlopen(request, timeout=30) as answer:
                return answer.status, json.loads(answer.read() or b"null")
        except HTTPError as error:
            with error:
                return error.code, json.loads(error.read() or b"null")
        except (URLError, ConnectionError):
            return 0, None

    def ledger(self, port: str) -> Any:
        return self.http(port, "/ledger")[1]

    def counts(self, destination: str) -> dict[str, Any]:
        try:
            rows = ops_request(f"ipc://{self.folder}/ops.sock", "queues")["queues"]
        except OpsError:
            return {}
        return next((row for row in rows if row["destination"] == destination), {})

    def post_cards(self, numbers: list[int]) -> None:
        """Send cards as System-112's connector does; its statuses are of no interest here."""
        example = catalogue.entry("incident.card.v1").example
        drafts = [
            {"type": "incident.card.v1", "subject": f"112-{n % 3}", "priority": 2,
             "body": example | {"id112": f"{n % 3}", "description": str(n)}}
            for n in numbers
        ]  # fmt: skip
        lines = "\n".join(json.dumps(draft) for draft in drafts)
        self.run("send", "-", "--name", "sys112", given=lines)

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
            process.wait()
        shutil.rmtree(self.folder)


@pytest.fixture
def town(request: pytest.FixtureRequest) -> Iterator[Town]:
    built = Town(request.param)
    yield built
    built.close()


def codes_of(ambulance: Any) -> dict[str, list[str]]:
    """What the ambulance says of each outside call."""
    return {call["external"]: call["events"] for call in ambulance["calls"]}


@pytest.mark.parametrize("town", ["push"], indirect=True)
def test_every_call_is_handed_in_once_and_every_status_comes_back_in_order(town: Town) -> None:
    town.start("router", "smp", "external", "sim-smp", "sim-external")
    wait_for(lambda: town.ledger("platform") and town.ledger("ambulance"), "the simulators")
    town.http("platform", "/faults", {"fail": 0.3, "seed": 7})
    drives = [
        {"token": town.tokens["asking"], "count": 3, "poll": True, "cancel": 1},
        {"token": town.tokens["told"], "secret": SECRET, "count": 4, "poll": True},
        {"token": town.tokens["dead"], "count": 2, "poll": True},
    ]
    for drive in drives:
        assert town.http("platform", "/drive", drive)[0] == 202
    wait_for(lambda: len(town.ledger("platform")["calls"]) >= 3, "some calls")
    town.kill("external")  # while it hands in, is asked and tells
    town.start("external")
    done = wait_for(lambda: _followed(town, 9), "all calls to be followed to their end")
    assert (done["refused"], done["disorder"]) == ([], [])
    said = codes_of(town.ledger("ambulance"))
    assert len(said) == 9
    by_client = defaultdict(list)
    for ref, codes in said.items():
        client, _, id = ref.rpartition("-")
        by_client[client].append(id)
        (call,) = (one for one in done["calls"] if one["id"] == id)
        assert call["asked"] == codes
    assert {name: len(ids) for name, ids in by_client.items()} == {
        "asking": 3, "told": 4, "dead": 2,
    }  # fmt: skip
    told = wait_for(lambda: _told(town, by_client["told"], said), "the webhook")
    assert told["disorder"] == []
    waiting = wait_for(lambda: _only_dead_waits(town), "the queue")
    assert waiting["dead"] == 0


def _followed(town: Town, count: int) -> Any:
    ledger = town.ledger("platform")
    return ledger if len(ledger["calls"]) == count and not ledger["living"] else None


def _told(town: Town, ids: list[str], said: dict[str, list[str]]) -> Any:
    ledger = town.ledger("platform")
    told = {call["id"]: call["told"] for call in ledger["calls"]}
    wanted = {id: said[f"told-{id}"] for id in ids}
    return ledger if {id: told[id] for id in ids} == wanted else None


def _only_dead_waits(town: Town) -> Any:
    """Only what the dead webhook has not taken is left: of each of its two calls one is tried, the
    others wait behind it."""
    row = town.counts("external")
    waits = row.get("retrying", 0) + row.get("in_flight", 0)
    return row if waits <= 2 and row.get("open", row.get("pending", 0)) else None


@pytest.mark.parametrize("town", ["queue"], indirect=True)
def test_what_is_received_stays_in_order_over_kills_and_silence(town: Town) -> None:
    town.start("router", "smp")
    wait_for(lambda: town.http("door", "/queue/receive", {})[0] == 200, "the queue")
    town.post_cards(list(range(12)))
    taken: list[tuple[str, int]] = []
    refs: dict[int, str] = {}
    silent: set[int] = set()
    deadline = time.monotonic() + 60
    while len(taken) < 12:
        assert time.monotonic() < deadline, taken
        status, reply = town.http("door", "/queue/receive", {"max": 5, "wait_s": 1})
        for message in reply["messages"] if status == 200 else ():
            number = int(message["payload"]["description"])
            assert refs.setdefault(number, message["ref"]) == message["ref"]
            if number in (0, 4) and number not in silent:
                silent.add(number)  # received, and nobody commits it
                continue
            commit: dict[str, Any] = {"refs": [message["ref"]], "outcome": "done"}
            if number == 7 and number not in silent:
                silent.add(number)
                commit = {"refs": [message["ref"]], "outcome": "retry", "after_s": 0.1}
            status, answer = town.http("door", "/queue/commit", commit)
            assert (status, answer["results"][0]["committed"]) == (200, True)
            # What was committed in the moment of the kill comes again: the ref is known.
            if commit["outcome"] == "done" and (message["subject"], number) not in taken:
                taken.append((message["subject"], number))
        if len(taken) >= 4 and -1 not in silent:
            silent.add(-1)
            town.kill("smp")
            town.start("smp")
            wait_for(lambda: town.http("door", "/openapi.json")[0] == 200, "the door")
    assert sorted(number for _, number in taken) == list(range(12))
    for subject in {subject for subject, _ in taken}:
        numbers = [number for about, number in taken if about == subject]
        assert numbers == sorted(numbers)
    # The last outcome may be on its way to the router still.
    wait_for(lambda: town.counts("smp").get("in_flight") == 0, "the last outcome")
    assert town.counts("smp")["dead"] == 0
