"""All processes of one small region, in one folder: for tests to start, kill, drive and ask."""

import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import zmq

from connectors.partners.sys112.words import FINISH, LAST
from connectors.partners.vimis.contract import load_terms
from connectors.services.vocabulary import load_statuses
from connectors.simulators.ats import SECRET as AMI_SECRET
from connectors.simulators.ats import USER as AMI_USER
from connectors.simulators.demo.callers import make_callers, token_of
from connectors.simulators.demo.signing import make_signer
from connectors.simulators.sys112.samples import Sample, day_of_cards
from proto import KeyPair
from tests.ports import free_ports
from tests.until import wait_for

ROOT = Path(__file__).parents[2]
SMPBUS = Path(sys.executable).with_name("smpbus")
PATIENCE_S = 60.0
CONNECTORS = ("sys112", "smp", "ats", "rmis")
# Started only where a test wants them, too.
FEDERAL = ("remd", "vimis", "tfoms")
CALLED = ("sys112", "smp", "rmis", *FEDERAL)
REACTIONS = load_statuses().words("sys112")
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
state_file = "{folder}/sys112.db"
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

[connectors.ats]
live_calls_file = "ats.calls"
statistics_s = 1.0
[connectors.ats.partner]
url = "tcp://127.0.0.1:{ami}"
system = "АТС"
credentials_file = "ats.password"

[connectors.rmis]
listen = "127.0.0.1:{rmis_door}"
state_file = "{folder}/rmis.db"
poll_s = 0.5
accept_timeout_s = 1.0
retry_after_s = 1
[connectors.rmis.partner]
url = "http://127.0.0.1:{rmis}"
system = "РМИС"
timeout_s = 2.0
[connectors.rmis.partner.breaker]
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
BREAKER = "breaker = { failures_max = 3, open_s = 0.2, open_max_s = 0.4 }"
DOCUMENTS = """
[connectors.{name}.partner]
url = "http://127.0.0.1:{port}/{path}"
system = "{name}"
timeout_s = 2.0
{breaker}
[connectors.{name}.document]
organisation = {{ oid = "1.2.643.5.1.13.13.12.2.99.9999", name = "Станция" }}
archive_file = "{folder}/{name}.db"
[connectors.{name}.document.signer]
key_file = "{folder}/keys/documents.key"
certificate_file = "{folder}/keys/documents.pem"
"""
FEDERAL_SETTINGS = """
[connectors.remd]
listen = "127.0.0.1:{remd_door}"
reply_to = "http://127.0.0.1:{remd_door}/remd"
client = "house"
accept_timeout_s = 1.0
{remd_documents}
[connectors.vimis]
listen = "127.0.0.1:{vimis_door}"
accept_timeout_s = 1.0
check_after_s = 2.0
{vimis_documents}
[connectors.tfoms]
listen = "127.0.0.1:{tfoms_door}"
store_file = "{folder}/tfoms.db"
[connectors.tfoms.partner]
url = "http://127.0.0.1:{tfoms}"
system = "tfoms"
timeout_s = 2.0
{breaker}
"""


class House:
    """All processes of one small region, in one folder; `more` are connectors of FEDERAL."""

    def __init__(self, *more: str) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="smpbus-", dir="/tmp"))
        self.connectors = (*CONNECTORS, *more)
        names = [f"{name}{end}" for name in (*CONNECTORS, *FEDERAL) for end in ("", "_door")]
        ports = dict(zip((*names, "ami"), free_ports(len(names) + 1), strict=True))
        self.ports = ports
        self.config = self.folder / "smpbus.toml"
        told = SETTINGS.format(folder=self.folder, **ports)
        if more:
            told += self._federal()
        called = [name for name in CALLED if f"[connectors.{name}]" in told]
        told += make_callers(self.folder, called)
        self.config.write_text(told, encoding="utf-8")
        for name in ("routes.toml", "permissions.toml"):
            shutil.copy(ROOT / "config" / name, self.folder / name)
        routes = self.folder / "routes.toml"
        text = routes.read_text(encoding="utf-8")
        quick = text.replace(", longest_ms = 60000", "")
        quick = quick.replace("1000000 }", "1000000, first_ms = 100, longest_ms = 500 }")
        assert quick != text
        routes.write_text(quick, encoding="utf-8")
        password = self.folder / "ats.password"
        password.touch(mode=0o600)
        password.write_text(f"{AMI_USER}:{AMI_SECRET}\n", encoding="utf-8")
        for name in ("router", *self.connectors, "admin"):
            KeyPair.new().save(self.folder / "keys", name)
        self.processes: dict[str, subprocess.Popen[bytes]] = {}

    def _federal(self) -> str:
        make_signer(self.folder / "keys")
        documents = {
            f"{name}_documents": DOCUMENTS.format(
                name=name, path=path, port=self.ports[name], folder=self.folder, breaker=BREAKER
            )
            for name, path in (("remd", "emdr"), ("vimis", "receiver"))
        }
        return FEDERAL_SETTINGS.format(
            breaker=BREAKER, folder=self.folder, **documents, **self.ports
        )

    def run(self, *arguments: str) -> str:
        done = subprocess.run(
            [SMPBUS, *arguments], capture_output=True, text=True, timeout=PATIENCE_S, check=False
        )
        assert done.returncode == 0, done.stderr
        return done.stdout

    def start(self, *names: str) -> None:
        for name in names:
            with self.log_file(name).open("ab") as log:
                command = [str(SMPBUS), *self._arguments(name)]
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
        if system == "ats":
            ami = f"tcp://127.0.0.1:{self.ports['ami']}"
            return ["sim", "ats", "--listen", here, "--connector", ami, "--pace", "0.05"]
        door = f"http://127.0.0.1:{self.ports[system + '_door']}"
        kept = str(self.folder / f"{system}.ledger")
        quick = ["--pace", "0.05", "--repeat", "0.2", "--ledger", kept]
        if (token := token_of(self.folder, system)).exists():
            quick += ["--token", str(token)]
        return ["sim", system, "--listen", here, "--connector", door, *quick]

    def start_all(self) -> None:
        self.start("router", *self.connectors, *(f"sim-{name}" for name in self.connectors))
        wait_for(lambda: self.ops("status")["sessions"] == len(self.connectors), "all sessions")

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
        if (token := token_of(self.folder, port.removesuffix("_door"))).exists():
            request.add_header("Authorization", f"Bearer {token.read_text()}")
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
        """Have the callers ring, and System-112 send their cards."""
        callers = [one.phone for one in samples if one.phone]
        assert self.http("POST", "ats", "/drive", {"callers": callers})[0] == 202
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
        """Wait until every push is answered, every call is lived, every delivery is settled; as
        long as something goes on."""
        deadline, last = time.monotonic() + PATIENCE_S, -1
        while not self._is_calm():
            settled = self.ops("status").get("counters", {}).get("settled", last)
            if settled != last:
                last, deadline = settled, time.monotonic() + PATIENCE_S
            if time.monotonic() > deadline:
                raise AssertionError(f"nothing went on for {PATIENCE_S:g} s, and it is not calm")
            time.sleep(0.1)

    def _is_calm(self) -> bool:
        queues = {row["destination"]: row for row in self.ops("status")["queues"]}
        rows = [queues[name] for name in self.connectors if name in queues]
        waiting = [row[key] for row in rows for key in ("in_flight", "retrying")]
        # A document's timer waits for fifteen days.
        waiting += [row["pending"] for row in rows if row["destination"] not in FEDERAL]
        if len(rows) != len(self.connectors) or any(waiting):
            return False  # asked first: the partners' ledgers are long
        partners = [self.ledger(name) for name in self.connectors if name != "tfoms"]
        if any(one is None for one in partners):
            return False
        return not (partners[0]["pushing"] or any(one["living"] for one in partners[1:]))

    def close(self, *, keep: bool = False) -> None:
        """End all processes; `keep` leaves the folder."""
        for process in self.processes.values():
            process.kill()
        for process in self.processes.values():
            process.wait()
        if not keep:
            shutil.rmtree(self.folder)


def steps_of(events: list[str]) -> list[str]:
    """Return what System-112 must hear of the statuses of a call."""
    words = [REACTIONS[code] for code in events if REACTIONS.get(code, LAST) != LAST]
    return ["Finish" if word == FINISH else word for word in words]


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


def check_care(house: House) -> None:
    """Every call that was lived to its end is whole at the hospitals' system, each thing once in
    effect, and the ambulance has heard what became of it."""
    applied: dict[str, list[str]] = defaultdict(list)
    events: dict[str, set[str]] = defaultdict(set)
    entries = house.ledger("rmis")["entries"]
    assert len({entry["key"] for entry in entries}) == len(entries)
    for entry in entries:
        applied[entry["call"]].append(entry["operation"])
        if entry["operation"] == "StatusEvent":
            events[entry["call"]].add(entry["code"])
    for call in house.ledger("smp")["calls"]:
        done, told = applied[call["id"]], call["told"]
        assert events[call["id"]] == set(call["events"]), call
        assert "TransferState ticket confirmed" in told, call
        if "finished" not in call["events"]:
            continue
        assert done.count("CallCard") == 1, call
        assert told.count("TransferState card confirmed") == 1, call
        if call["hospital"]:
            assert (done.count("BedRequest"), done.count("ArrivalNotice")) == (1, 1), call
            # A full ward is an answer too.
            assert sum(one.startswith("BedState") for one in told) == 1, call
            assert told.count("HospitalOutcome - admitted") == 1, call
        else:
            assert done.count("VisitRequest") == 1, call
            assert told.count("VisitState - done") == 1, call


def check_documents(house: House) -> None:
    """Every call card is one document in the federal register, and one in the federal system for
    heart and vessels where that wants it; the ambulance has heard of each."""
    heart = tuple(load_terms().diagnoses)
    lived = [call for call in house.ledger("smp")["calls"] if "finished" in call["events"]]
    hearts = [call for call in lived if call["ill"].startswith(heart)]
    for name, calls in (("remd", lived), ("vimis", hearts)):
        ids = {call["id"] for call in calls}
        wait_for(lambda name=name, ids=ids: _heard(house, name) == ids, f"{name} to register all")  # type: ignore[misc]
        entries = house.ledger(name)["entries"]
        assert len({entry["key"] for entry in entries}) == len(entries) == len(calls)


def _heard(house: House, register: str) -> set[str]:
    """Return the calls of whose document the ambulance has heard, once, that it is registered."""
    told = {call["id"]: call["told"] for call in house.ledger("smp")["calls"]}
    words = f"DocumentState {register} registered"
    return {call for call, said in told.items() if said.count(words) == 1}


def without_cancels(seed: int, count: int) -> list[Sample]:
    return [one for one in day_of_cards(seed, count, malformed=False) if one.kind != "cancel"]
