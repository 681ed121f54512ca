"""Drills on a real small region: a partner goes and comes back, and no real partner hears of it."""

import json
import re
import signal
import subprocess
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest

from connectors.simulators.kit.faults import Faults
from tests.integration.house import SMPBUS, House
from tests.until import wait_for

QUICK = ("--before", "1s", "--rate", "3", "--wait", "60s")
PATIENCE_S = 90.0


@pytest.fixture(scope="module")
def house() -> Iterator[House]:
    built = House()
    built.start_all()
    yield built
    built.close()


def begin(house: House, name: str, *arguments: str) -> "subprocess.Popen[str]":
    command = [str(SMPBUS), "drill", name, "--config", str(house.config), *QUICK, *arguments]
    return subprocess.Popen(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.PIPE)


def faults(house: House, name: str) -> Any:
    return house.http("GET", name, "/faults")[2]


def is_well(house: House, name: str) -> bool:
    return bool(faults(house, name) == well())


def well() -> dict[str, Any]:
    return {field: getattr(Faults(), field) for field in Faults.__struct_fields__}


def test_a_partner_that_was_away_has_everything_once_and_in_order(house: House) -> None:
    # So many calls that statuses of earlier ones fall into the time when the partner is away.
    drill = begin(house, "smp", "--down", "2s", "--rate", "12", "--json")
    out, err = drill.communicate(timeout=PATIENCE_S)
    assert drill.returncode == 0, out + err
    told = json.loads(out)
    assert (told["lost"], told["doubled"], told["out_of_order"], told["open"]) == (0, 0, 0, 0)
    assert told["broken"] == []
    assert told["tries_in_vain"] > 0
    assert told["queue_peak"] > 0
    assert 0 <= told["noticed_s"] < told["oldest_s"]
    assert told["drained_s"] is not None
    assert told["deliveries"] >= told["calls"] > 3
    assert {"ats", "deadlines", "rmis", "sys112"} <= told["others_ms"].keys()
    assert is_well(house, "smp")


def test_a_broken_promise_is_named_and_is_the_exit_status(house: House) -> None:
    drill = begin(house, "smp", "--down", "1s")
    wait_for(lambda: faults(house, "smp")["down"], "the partner to go")
    house.faults("smp", refuse=1.0, down=False)
    out, err = drill.communicate(timeout=PATIENCE_S)
    assert drill.returncode == 1, out + err
    found = re.search(r"ОШИБКА: мёртвых писем, просроченных или списанных: (\d+)", out)
    assert found is not None, out
    letters = house.ops("dead", destination="smp")["letters"]
    assert int(found[1]) == sum(letter["subject"].startswith("112-") for letter in letters)
    assert "Обещания выполнены" not in out


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_whoever_interrupts_gets_the_partner_back(house: House, number: signal.Signals) -> None:
    drill = begin(house, "rmis", "--down", "10m", "--mode", "slow")
    wait_for(lambda: not is_well(house, "rmis"), "the partner to go")
    drill.send_signal(number)
    _, err = drill.communicate(timeout=PATIENCE_S)
    assert drill.returncode == 130
    assert err.endswith("учения прерваны, имитатор rmis возвращён\n")
    assert is_well(house, "rmis")


def test_a_killed_drill_leaves_a_partner_that_comes_back_by_itself(house: House) -> None:
    drill = begin(house, "rmis", "--down", "1m", "--mode", "hang")
    wait_for(lambda: not is_well(house, "rmis"), "the partner to go")
    drill.kill()
    drill.communicate()
    assert 60 < faults(house, "rmis")["for_s"] < 70
    house.faults("rmis", **well() | {"for_s": 0.1})
    wait_for(lambda: is_well(house, "rmis"), "the partner to come back")


def test_no_second_drill_on_a_faulty_partner(house: House) -> None:
    house.faults("sys112", delay_s=0.01)
    drill = begin(house, "smp", "--down", "1s")
    _, err = drill.communicate(timeout=PATIENCE_S)
    house.faults("sys112", delay_s=0.0)
    assert drill.returncode == 69
    assert "имитатор sys112" in err
    assert "уже неисправен" in err


class RealPartner(BaseHTTPRequestHandler):
    """Answers as any web server does, and remembers what it was asked."""

    asked: list[str]

    def _answer(self) -> None:
        self.asked.append(f"{self.command} {self.path}")
        body = b'{"error": "no such page"}'
        self.send_response(200 if "soft" in self.headers.get("host", "") else 404)
        self.send_header("content-length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    do_GET = do_POST = do_PUT = _answer

    def log_message(self, *_: Any) -> None:
        """Say nothing."""


@pytest.fixture
def real() -> Iterator[ThreadingHTTPServer]:
    RealPartner.asked = []
    server = ThreadingHTTPServer(("127.0.0.1", 0), RealPartner)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


def refused(folder: Path, name: str, ops: str = "ipc:///nowhere", /, **urls: str) -> str:
    """Return what a drill says that is not begun, on settings with these partners."""
    config = folder / "smpbus.toml"
    tables = [
        f'[connectors.{one}]\n[connectors.{one}.partner]\nurl = "{url}"'
        for one, url in urls.items()
    ]
    config.write_text("\n".join([f'[ops]\nlisten = "{ops}"', *tables]))
    began = time.monotonic()
    done = subprocess.run(
        [str(SMPBUS), "drill", name, "--down", "1m", "--config", str(config)],
        capture_output=True,
        text=True,
        timeout=PATIENCE_S,
        check=False,
    )
    assert done.returncode != 0
    assert time.monotonic() - began < 30
    assert done.stderr.startswith("ОШИБКА: ")
    assert done.stderr.count("\n") == 1
    return done.stderr


def test_a_real_partner_is_asked_one_question_and_left_alone(
    house: House, real: ThreadingHTTPServer, tmp_path: Path
) -> None:
    urls = {name: f"http://127.0.0.1:{house.ports[name]}" for name in ("sys112", "rmis")}
    told = refused(
        tmp_path, "rmis", **urls, smp=f"http://user:secret@127.0.0.1:{real.server_port}/x"
    )
    assert f"connectors.smp.partner.url (http://127.0.0.1:{real.server_port})" in told
    assert "это не имитатор" in told
    assert RealPartner.asked == ["GET /faults"]


def test_who_cannot_be_asked_or_is_not_there_is_named(house: House, tmp_path: Path) -> None:
    sys112 = f"http://127.0.0.1:{house.ports['sys112']}"
    assert "нет таблицы [connectors.rmis]; есть: smp, sys112" in refused(
        tmp_path, "rmis", sys112=sys112, smp=sys112
    )
    assert "connectors.replication.partner.url (tcp://10.0.0.5:5570)" in refused(
        tmp_path, "sys112", sys112=sys112, replication="tcp://10.0.0.5:5570"
    )
    assert "запустите имитатор: smpbus sim smp" in refused(
        tmp_path, "smp", sys112=sys112, smp="http://127.0.0.1:1"
    )
    assert "маршрутизатор не отвечает" in refused(tmp_path, "sys112", sys112=sys112)
    bus = f"ipc://{house.folder}/ops.sock"
    assert "на шине нет очереди ward; есть: admin, " in refused(
        tmp_path, "ward", bus, sys112=sys112, ward=sys112
    )
