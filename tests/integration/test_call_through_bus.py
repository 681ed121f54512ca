"""A call through the whole bus: real processes, real HTTP, real keys.

System-112 (simulator) -> its connector -> router -> the ambulance's connector -> the ambulance
(simulator), and its statuses all the way back; with partners, connectors and the router failing.
"""

import json
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import pytest
import zmq

from connectors.sys112 import mapping
from connectors.sys112.samples import Sample, day_of_cards

ROOT = Path(__file__).parents[2]
SMPBUS = Path(sys.executable).with_name("smpbus")
PATIENCE_S = 60.0
DAY = 2  # a seed whose day has everything
RULES = mapping.load_rules()
SETTINGS = """
[bus]
listen = ["ipc://{folder}/bus.sock"]
keys_dir = "keys"
[ops]
listen = "ipc://{folder}/ops.sock"
events = "ipc://{folder}/events.sock"
http = ""
[store]
folder = "{folder}/data"

[connectors.sys112]
listen = "127.0.0.1:{sys112_door}"
repeat_after_s = 0.1
repeat_after_max_s = 0.5
accept_timeout_s = 1.0
retry_after_s = 1
[connectors.sys112.partner]
url = "http://127.0.0.1:{sys112}"
system = "Система-112"
timeout_s = 2.0
[connectors.sys112.partner.breaker]
failures_max = 3
open_s = 0.2
open_max_s = 0.4

[connectors.smp]
listen = "127.0.0.1:{smp_door}"
accept_timeout_s = 1.0
retry_after_s = 1
[connectors.smp.partner]
url = "http://127.0.0.1:{smp}"
system = "ИС СМП"
[connectors.smp.partner.breaker]
failures_max = 3
open_s = 0.2
open_max_s = 0.4
"""


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [int(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


class House:
    """All processes of one small region, in one folder."""

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="smpbus-", dir="/tmp"))
        names = ("sys112", "sys112_door", "smp", "smp_door")
        self.ports = dict(zip(names, free_ports(4), strict=True))
        self.config = self.folder / "smpbus.toml"
        told = SETTINGS.format(folder=self.folder, **self.ports)
        self.config.write_text(told, encoding="utf-8")
        for name in ("routes.toml", "permissions.toml"):
            shutil.copy(ROOT / "config" / name, self.folder / name)
        routes = self.folder / "routes.toml"
        text = routes.read_text(encoding="utf-8")
        quick = text.replace("longest_ms = 60000", "first_ms = 100, longest_ms = 500")
        assert quick != text
        routes.write_text(quick, encoding="utf-8")
        for name in ("router", "sys112", "smp", "admin"):
            self.run("keys", "new", name, "--config", str(self.config))
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            [SMPBUS, *arguments], capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, *names: str) -> None:
        for name in names:
            with self.log_file(name).open("ab") as log:
                command = [SMPBUS, *self._arguments(name)]
                self.processes[name] = subprocess.Popen(command, stderr=log, stdout=log)
        for name in names:
            if name.startswith("sim-"):
                wait_for(lambda name=name: self.ledger(name[4:]), f"{name} to answer")  # type: ignore[misc]

    def _arguments(self, name: str) -> list[str]:
        if name == "router":
            return ["router", "--config", str(self.config)]
        if not name.startswith("sim-"):
            return ["connector", name, "--config", str(self.config)]
        system = name[4:]
        here = f"127.0.0.1:{self.ports[system]}"
        door = f"http://127.0.0.1:{self.ports[system + '_door']}"
        kept = str(self.folder / f"{system}.ledger")
        quick = ["--pace", "0.05", "--repeat", "0.2", "--ledger", kept]
        return ["sim", system, "--listen", here, "--connector", door, *quick]

    def start_all(self) -> None:
        self.start("router", "sys112", "smp", "sim-sys112", "sim-smp")
        wait_for(lambda: self.ops("status")["sessions"] == 2, "both connectors' sessions")

    def kill(self, name: str) -> None:
        """As a lost machine does it: no goodbye."""
        process = self.processes.pop(name)
        process.kill()
        process.wait()

    def stop(self, name: str) -> int:
        process = self.processes.pop(name)
        process.terminate()
        return process.wait(PATIENCE_S)

    def log_file(self, name: str) -> Path:
        return self.folder / f"{name}.log"

    def log(self, name: str) -> str:
        return self.log_file(name).read_text(encoding="utf-8")

    def http(self, method: str, port: str, path: str, body: Any = None) -> Any:
        """Return (status, headers, JSON)."""
        data = None if body is None else json.dumps(body).encode()
        request = Request(f"http://127.0.0.1:{self.ports[port]}{path}", data, method=method)
        try:
            with urlopen(request, timeout=10) as answer:
                return answer.status, dict(answer.headers), json.loads(answer.read() or b"null")
        except HTTPError as error:
            with error:
                return error.code, dict(error.headers), json.loads(error.read() or b"null")

    def ledger(self, system: str) -> Any:
        try:
            return self.http("GET", system, "/ledger")[2]
        except URLError:
            return None

    def faults(self, system: str, **switches: Any) -> None:
        assert self.http("POST", system, "/faults", switches)[0] == 200

    def drive(self, samples: list[Sample]) -> None:
        body = {"cards": [one.push() for one in samples]}
        assert self.http("POST", "sys112", "/drive", body)[0] == 202

    def ops(self, command: str, **fields: Any) -> Any:
        with zmq.Context() as context, context.socket(zmq.REQ) as wire:
            wire.linger = 0
            wire.connect(f"ipc://{self.folder}/ops.sock")
            wire.send(json.dumps({"command": command, **fields}).encode())
            if not wire.poll(3000):
                return {"sessions": 0, "open": -1, "queues": []}
            answer = json.loads(wire.recv())
        assert answer["ok"], answer
        return answer["result"]

    def settle(self) -> None:
        """Wait until every push is answered, every call is lived, every delivery is settled."""

        def calm() -> bool:
            partners = [self.ledger("sys112"), self.ledger("smp")]
            if any(one is None for one in partners):
                return False
            if partners[0]["pushing"] or partners[1]["living"]:
                return False
            queues = {row["destination"]: row for row in self.ops("status")["queues"]}
            rows = [queues[name] for name in ("smp", "sys112") if name in queues]
            waiting = [row[key] for row in rows for key in ("pending", "in_flight", "retrying")]
            return len(rows) == 2 and not any(waiting)

        wait_for(calm, "calm")

    def close(self) -> None:
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait()
        shutil.rmtree(self.folder)


def wait_for(done: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not done():
        if time.monotonic() > deadline:
            raise AssertionError(f"waited {PATIENCE_S:g} s for {what}")
        time.sleep(0.05)


@pytest.fixture
def house() -> Iterator[House]:
    built = House()
    yield built
    built.close()


def steps_of(events: list[str]) -> list[str]:
    """Return what System-112 must hear of the statuses of a call."""
    steps = []
    for code in events:
        rule = RULES[code]
        if rule.operation != "none":
            steps.append(rule.action or "Finish")
    return steps


def check_reactions(house: House) -> None:
    """Every call's statuses are with System-112: complete, in order, each once in effect."""
    heard: dict[str, list[str]] = defaultdict(list)
    entries = house.ledger("sys112")["entries"]
    assert len({entry["key"] for entry in entries}) == len(entries)
    for entry in entries:
        heard[entry["id112"]].append(entry.get("action", "Finish"))
    for call in house.ledger("smp")["calls"]:
        first, *tied = call["cards"]
        assert heard[first] == steps_of(call["events"]), call
        for card in tied:  # a repeat call hears what happens from then on
            assert heard[card] == heard[first][len(heard[first]) - len(heard[card]) :]


def check_calls(house: House, day: list[Sample]) -> None:
    """Every incident is one call, and the newest card of each holds."""
    calls = house.ledger("smp")["calls"]
    new = {one.id112 for one in day if one.kind == "new"}
    assert len(calls) == len(new)
    newest: dict[str, datetime] = {}
    for one in day:
        if one.operation == "update" and one.kind != "malformed":
            changed = datetime.fromisoformat(one.body["Card"]["Changed"])
            newest[one.id112] = max(changed, newest.get(one.id112, changed))
    held = {id112: changed for call in calls for id112, changed in call["changed"].items()}
    assert {id112: datetime.fromisoformat(changed) for id112, changed in held.items()} == newest
    for call in calls:
        assert len({id112.removesuffix("-R") for id112 in call["cards"]}) == 1


def without_cancels(seed: int, count: int) -> list[Sample]:
    return [one for one in day_of_cards(seed, count, malformed=False) if one.kind != "cancel"]


def test_a_day_of_112_goes_through_and_its_statuses_come_back(house: House) -> None:
    house.start_all()
    day = day_of_cards(DAY, 25)
    assert {one.kind for one in day} >= {"new", "double", "correction", "cancel", "malformed"}
    house.drive(day)
    house.settle()
    check_calls(house, day)
    check_reactions(house)
    status = house.ops("status")
    assert status["counters"]["duplicates"] >= len([one for one in day if one.kind == "double"])
    assert status["counters"]["dead"] == 0
    applied = [entry["key"] for entry in house.ledger("smp")["entries"]]
    assert len(applied) == len([one for one in day if one.kind not in ("double", "malformed")])

    (bad,) = [one for one in day if one.kind == "malformed"]
    answers = [one for one in house.ledger("sys112")["answers"] if one["id112"] == bad.id112]
    assert [(one["Code"], one["CodeDescr"]) for one in answers] == [
        ("400", "Card.CommonData.TypeStr: is required")
    ]
    (rejected,) = house.ops("trace", subject=f"112-{bad.id112}")["messages"]
    assert rejected["type"] == "input.rejected.v1"
    assert [one["destination"] for one in rejected["deliveries"]] == ["admin"]

    good = next(call for call in house.ledger("smp")["calls"] if call["status"] == "returned")
    traced = house.ops("trace", subject=f"112-{good['cards'][0]}")["messages"]
    notes = [one["note"] for message in traced for one in message["deliveries"]]
    assert "HTTP 200, Code 200" in notes
    assert any(note.startswith("HTTP 201, created") for note in notes)
    for name in ("smp", "sys112", "sim-smp", "sim-sys112", "router"):
        assert house.stop(name) == 0


def test_while_the_router_is_away_112_is_asked_to_repeat_and_nothing_is_lost(
    house: House,
) -> None:
    house.start_all()
    day = without_cancels(6, 12)
    house.drive(day[:6])
    wait_for(lambda: len(house.ledger("smp")["calls"]) >= 3, "the first calls")
    house.kill("router")

    def refused() -> bool:
        path = f"/112/cards/{day[-1].id112}"
        status, headers, reply = house.http("PUT", "sys112_door", path, day[-1].body)
        if status != 503:
            return False  # the connector has not missed the router yet
        assert int(headers["retry-after"]) >= 1
        assert reply["Code"] == "503"
        assert "repeat" in reply["CodeDescr"]
        return True

    wait_for(refused, "503")
    house.drive(day[6:])
    wait_for(lambda: house.ledger("sys112")["pushes_repeated"] > 5, "repeats of 112")
    wait_for(lambda: "шина не отвечает" in house.log("sys112"), "the line about the bus")
    house.start("router")
    house.settle()
    check_calls(house, day)
    check_reactions(house)
    assert house.log("sys112").count("шина не отвечает") == 1


def test_a_partner_down_is_one_line_and_its_messages_wait_for_it(house: House) -> None:
    house.start_all()
    house.faults("sys112", down=True)
    day = without_cancels(8, 10)
    house.drive(day)
    wait_for(lambda: not (house.ledger("smp") or {"living": 1})["living"], "all calls lived")
    wait_for(lambda: "ОШИБКА: Unable to complete" in house.log("sys112"), "the error line")
    house.faults("sys112", down=False)
    house.settle()
    check_calls(house, day)
    check_reactions(house)
    log = house.log("sys112")
    assert log.count("Unable to complete network request to host «127.0.0.1:") == 1
    assert log.count("снова отвечает") == 1
    assert "Система-112" in log
    # While the partner is known to be down nothing is tried in vain but the probes.
    traced = house.ops("trace", subject=f"112-{day[0].id112}")["messages"]
    assert all(one["state"] == "settled" for m in traced for one in m["deliveries"])


def test_a_killed_connector_and_lost_answers_double_nothing(house: House) -> None:
    house.start_all()
    house.faults("smp", fail=0.3)
    house.faults("sys112", fail=0.3)
    day = without_cancels(9, 15)
    third = len(day) // 3 + 1
    for number, name in enumerate(("smp", "sys112", "smp")):
        house.drive(day[number * third : (number + 1) * third])  # there is always work to break off
        entries = len(house.ledger(name)["entries"])
        wait_for(lambda n=name, e=entries: len(house.ledger(n)["entries"]) > e, "progress")  # type: ignore[misc]
        house.kill(name)
        house.start(name)
    house.settle()
    check_calls(house, day)
    check_reactions(house)


# -- starts that cannot be ------------------------------------------------------------------------


def end_of(house: House, *arguments: str) -> tuple[int, str]:
    done = subprocess.run(
        [SMPBUS, *arguments], capture_output=True, text=True, timeout=PATIENCE_S, check=False
    )
    return done.returncode, done.stderr


def test_a_busy_listen_address_is_one_sentence_and_exit_78(house: House) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", house.ports["sys112_door"]))
        taken.listen()
        code, said = end_of(house, "connector", "sys112", "--config", str(house.config))
    assert code == 78
    assert "ОШИБКА: Ошибка сокета 98 при выполнении bind. " in said
    assert f"неверен: 127.0.0.1:{house.ports['sys112_door']} ({house.config}, " in said
    assert "connectors.sys112.listen" in said


def test_an_unknown_key_of_the_settings_is_named(house: House) -> None:
    told = house.config.read_text(encoding="utf-8").replace("accept_timeout_s", "accept_time")
    house.config.write_text(told, encoding="utf-8")
    code, said = end_of(house, "connector", "smp", "--config", str(house.config))
    assert code == 78
    assert f"{house.config}: " in said
    assert "connectors.smp.accept_time" in said


def test_an_unknown_name_is_a_usage_error(house: House) -> None:
    assert end_of(house, "connector", "nobody")[0] == 64
    assert end_of(house, "sim", "nobody", "--listen", "127.0.0.1:1")[0] == 64


def test_a_connector_without_its_key_or_with_a_strange_one_ends_with_77(house: House) -> None:
    key = house.folder / "keys" / "smp.key"
    kept = key.read_bytes()
    key.unlink()
    code, said = end_of(house, "connector", "smp", "--config", str(house.config))
    assert code == 77
    assert str(key) in said
    house.start("router")
    wait_for(lambda: house.ops("status").get("version"), "the router")
    key.write_bytes((house.folder / "keys" / "router.key").read_bytes())
    key.chmod(0o600)
    code, said = end_of(house, "connector", "smp", "--config", str(house.config))
    assert code == 77
    assert "не принимает" in said
    assert kept.strip().decode() not in said
