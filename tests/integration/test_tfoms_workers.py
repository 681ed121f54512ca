"""Call cards through the whole bus to a register and back: three processes of one connector, a real
router, a real store, and the fund's answer on the trace of each call."""

import json
import os
import subprocess
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from urllib.error import URLError
from urllib.request import Request, urlopen

import pytest

from connectors.simulators.kit.people import people
from proto import BlockingBusClient, Message, catalogue
from tests.integration.bus import SMPBUS, RouterProcess
from tests.integration.house import PATIENCE_S, ROOT
from tests.ports import free_ports
from tests.until import wait_for

WORKERS = 3
CARDS = 30
VERSIONS = 3
KNOWN = people(0)
CARD = catalogue.entry("call.card.v1").example
TARIFF = '\n[[tariffs]]\nsince = 2026-01-01\nsum = "3512.40"\n'


class FundHouse:
    """A router, three processes of connector tfoms, the fund, and the register's folder."""

    def __init__(self) -> None:
        shipped = [(ROOT / "config" / name).read_text("utf-8") for name in FILES]
        self.router = RouterProcess(
            peers=("smp", "tfoms"), routes=shipped[0], permissions=shipped[1]
        )
        self.folder = self.router.folder
        self.fund, *self.ports = free_ports(1 + WORKERS)
        with self.router.config.open("a", encoding="utf-8") as config:
            config.write(
                f'\n[connectors.tfoms]\nstore_file = "{self.folder}/cards.db"\nagain_s = 0.2\n'
                f'open = true\npoll_s = 0.2\n[connectors.tfoms.partner]\nurl = "http://127.0.0.1:{self.fund}"\n'
            )
        (self.folder / "tfoms.toml").write_text(shipped[2] + TARIFF, "utf-8")
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self) -> None:
        self.router.start()
        self.run_fund()
        for port in self.ports:
            listen = {"SMPBUS_CONNECTORS__TFOMS__LISTEN": f"127.0.0.1:{port}"}
            self._spawn("connector", "tfoms", "--config", str(self.router.config), **listen)
        wait_for(lambda: self.sessions() == WORKERS, "all workers on the bus")

    def run_fund(self) -> None:
        self._spawn("sim", "tfoms", "--listen", f"127.0.0.1:{self.fund}")
        wait_for(lambda: self.get(self.fund, "/ledger"), "the fund")

    def _spawn(self, *arguments: str, **environment: str) -> None:
        with (self.folder / "programs.log").open("ab") as log:
            started = subprocess.Popen(
                [SMPBUS, *arguments], stdout=log, stderr=log, env=os.environ | environment
            )
        self.processes.append(started)

    def sessions(self) -> int:
        rows = self.router.ask("sessions")["sessions"]
        return sum(row["name"] == "tfoms" for row in rows)

    def get(self, port: int, path: str, body: bytes | None = None) -> bytes:
        try:
            request = Request(f"http://127.0.0.1:{port}{path}", body)
            with urlopen(request, timeout=PATIENCE_S) as answer:
                return bytes(answer.read())
        except (URLError, ConnectionError):
            return b""

    def figures(self, worker: int) -> Any:
        return json.loads(self.get(self.ports[worker], "/figures"))["cards"]

    def queue(self, name: str) -> Any:
        rows = self.router.ask("queues")["queues"]
        return next(row for row in rows if row["destination"] == name)

    def register(self, *arguments: str) -> str:
        done = subprocess.run(
            [SMPBUS, "register", *arguments, "--config", str(self.router.config),
             "--ledger", str(self.folder / "billed.db")],
            capture_output=True, text=True, timeout=PATIENCE_S, check=False, cwd=self.folder,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        return done.stdout

    def close(self) -> None:
        for process in self.processes:
            process.kill()
        for process in self.processes:
            process.wait()
        self.router.__exit__(None, None, None)


FILES = ("routes.toml", "permissions.toml", "tfoms.toml")


@pytest.fixture
def house() -> Iterator[FundHouse]:
    made = FundHouse()
    try:
        made.start()
        yield made
    finally:
        made.close()


def card(number: int, version: int) -> Message:
    """Return a version of a card; the first says another patient than the last."""
    person = KNOWN[20 + number if version == VERSIONS else 20]
    patient = {key: person[key] for key in ("family", "given", "birth_date", "sex", "enp")}
    now = datetime.now(UTC)
    body = CARD | {
        "id": f"2026-{number}", "card_id": f"kv-{number}", "version": version,
        "patients": [patient], "received_at": now, "finished_at": now,
    }  # fmt: skip
    return Message.new("call.card.v1", "smp", body, subject=f"112-{number}")


def publish(client: BlockingBusClient, version: int) -> None:
    for number in range(CARDS):
        client.publish(card(number, version))


def test_three_processes_keep_every_card_in_order_and_the_fund_is_heard_of_once(
    house: FundHouse, tmp_path: Path
) -> None:
    with house.router.blocking("smp") as client:
        publish(client, 1)
        house.processes[1].kill()  # a worker, in the midst of its cards
        for version in range(2, VERSIONS + 1):
            publish(client, version)
    wait_for(lambda: house.queue("tfoms")["settled"] == CARDS * VERSIONS, "all cards kept")
    came = [house.figures(worker)["came"] for worker in range(1, WORKERS)]
    assert all(one["kept"] > 0 for one in came), "one process did all the work"
    assert [one.get("older", 0) for one in came] == [0, 0], "a card was overtaken"
    wait_for(lambda: house.figures(1)["kept"] == {"payable": CARDS}, "all policies known")

    built = house.register(
        "build", "--from-store", "--period", f"{datetime.now(UTC):%Y-%m}", "--facility", "990101",
        "--payer", "99001", "--tables", str(house.folder / "tfoms.toml"), "--out", str(tmp_path),
    )  # fmt: skip
    assert f"случаев {CARDS} на {CARDS * 3512.40:.2f} руб." in built
    (archive,) = tmp_path.glob("*.ZIP")
    answer = tmp_path / "answer.xml"
    answer.write_bytes(house.get(house.fund, "/registers?refuse=0.5", archive.read_bytes()))

    said = house.register("answer", str(answer))
    assert f"сообщено по шине: {CARDS}" in said
    assert house.queue("smp")["pending"] == CARDS
    assert "сообщено" not in house.register("answer", str(answer)), "told twice"
    assert house.queue("smp")["pending"] == CARDS

    for number in range(CARDS):
        messages = house.router.ask("trace", subject=f"112-{number}")["messages"]
        (told,) = (one for one in messages if one["type"] == "register.state.v1")
        assert told["source"] == "tfoms"
        assert [one["destination"] for one in told["deliveries"]] == ["smp"]


def test_what_the_bus_has_not_heard_is_told_by_the_next_try(
    house: FundHouse, tmp_path: Path
) -> None:
    with house.router.blocking("smp") as client:
        publish(client, VERSIONS)
    wait_for(lambda: house.queue("tfoms")["settled"] == CARDS, "all cards kept")
    wait_for(lambda: house.figures(0)["kept"] == {"payable": CARDS}, "all policies known")
    tables = str(house.folder / "tfoms.toml")
    house.register(
        "build", "--from-store", "--period", f"{datetime.now(UTC):%Y-%m}", "--facility", "990101",
        "--payer", "99001", "--tables", tables, "--out", str(tmp_path), "--number", "7",
    )  # fmt: skip
    (archive,) = tmp_path.glob("*.ZIP")
    answer = tmp_path / "answer.xml"
    answer.write_bytes(house.get(house.fund, "/registers?stage=flk", archive.read_bytes()))

    permissions = house.folder / "permissions.toml"
    allowed = permissions.read_text("utf-8")
    permissions.write_text(allowed.replace('publish = ["register.state.v1"]\n', ""), "utf-8")
    house.router.ask("reload")
    with pytest.raises(AssertionError, match="повторите команду"):
        house.register("answer", str(answer))
    assert house.queue("smp")["pending"] == 0
    permissions.write_text(allowed, "utf-8")
    house.router.ask("reload")
    said = house.register("answer", str(answer))
    assert f"принято карт {CARDS}" in said
    assert f"сообщено по шине: {CARDS}" in said
