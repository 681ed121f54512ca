"""The command line against a running router, as the duty administrator uses it."""

import contextlib
import json
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from proto.keys import KeyPair
from proto.ops import OpsError, ops_request
from tests.until import wait_for

OWN = Path(__file__).parents[2] / "config"
LIMIT_S = 30
MAIN = """\
[bus]
listen = ["ipc://bus.sock"]
keys_dir = "keys"
[ops]
listen = "ipc://ops.sock"
events = "ipc://events.sock"
http = ""
[store]
folder = "data"
"""
MESSAGE = '{"type": "incident.card.v1", "subject": "112-4711", "body": {"n": 1}, "priority": 0}'


class Site:
    """A folder with a configuration, and the `smpbus` command that works on it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        shutil.copytree(OWN, folder, dirs_exist_ok=True)
        (folder / "smpbus.toml").write_text(MAIN)
        for name in ("router", "smp", "sys112", "admin"):
            KeyPair.new().save(folder / "keys", name)
        self.environ = {k: v for k, v in os.environ.items() if not k.startswith("SMPBUS_")}
        self.environ |= {"SMPBUS_CONFIG": str(folder / "smpbus.toml"), "COLUMNS": "80"}

    def spawn(self, *arguments: str) -> subprocess.Popen[str]:
        return subprocess.Popen(
            [sys.executable, "-m", "router.commands", *arguments],
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, env=self.environ,
        )  # fmt: skip

    def run(self, *arguments: str, input: str | None = None) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "router.commands", *arguments],
            capture_output=True, text=True, timeout=LIMIT_S, env=self.environ, check=False,
            input=input,
        )  # fmt: skip

    def json(self, *arguments: str) -> Any:
        ended = self.run(*arguments, "--json")
        assert ended.returncode == 0, ended.stderr
        return json.loads(ended.stdout)

    def wait_for_router(self) -> None:
        wait_for(self._answers, "the router")

    def _answers(self) -> bool:
        with contextlib.suppress(OpsError):
            return bool(ops_request(f"ipc://{self.folder}/ops.sock", "status"))
        return False


@pytest.fixture(scope="module")
def site() -> Iterator[Site]:
    folder = Path(tempfile.mkdtemp(prefix="smpbus-", dir="/tmp"))
    site = Site(folder)
    router = site.spawn("router")
    try:
        site.wait_for_router()
        yield site
        router.terminate()
        _, errors = router.communicate(timeout=LIMIT_S)
        assert router.returncode == 0, errors
        assert "Traceback" not in errors
    finally:
        router.kill()
        router.communicate()
        shutil.rmtree(folder)


def test_status(site: Site) -> None:
    shown = site.run("status")
    assert shown.returncode == 0
    assert "работает уже" in shown.stdout
    assert max(map(len, shown.stdout.splitlines())) <= 80
    assert site.json("status")["state"] == "running"


def test_status_in_english(site: Site) -> None:
    assert "running for" in site.run("status", "--lang", "en").stdout


def test_queues(site: Site) -> None:
    rows = site.json("queues")["queues"]
    assert [row["destination"] for row in rows] == [
        "admin", "ats", "deadlines", "external", "remd", "rmis", "rmr", "smp", "sys112", "tfoms",
        "vimis",
    ]  # fmt: skip
    table = site.run("queues").stdout.splitlines()
    assert [line.split()[0] for line in table] == [
        "назначение",
        "admin",
        "ats",
        "deadlines",
        "external",
        "remd",
        "rmis",
        "rmr",
        "smp",
        "sys112",
        "tfoms",
        "vimis",
    ]


def test_send_and_trace(site: Site) -> None:
    sent = site.run("send", "-", "--name", "sys112", input=f"{MESSAGE}\n{MESSAGE}\n")
    assert (sent.returncode, sent.stderr) == (0, "")
    ids = sent.stdout.split()
    traced = site.json("trace", "112-4711")
    assert [message["id"] for message in traced["messages"]] == ids
    shown = site.run("trace", "112-4711")
    assert shown.returncode == 0
    assert shown.stdout.count("принято шиной, на диске") == 2
    assert shown.stdout.count("smp: ждёт") == 2
    assert max(map(len, shown.stdout.splitlines())) <= 80


def test_trace_takes_another_systems_number(site: Site) -> None:
    numbered = json.loads(MESSAGE) | {"subject": "112-4712", "correlation_id": "R-115"}
    sent = site.run("send", "-", "--name", "sys112", input=json.dumps(numbered))
    assert sent.returncode == 0
    traced = site.json("trace", "R-115")
    assert (traced["subject"], len(traced["messages"])) == ("112-4712", 1)
    assert "связано: R-115" in site.run("trace", "R-115").stdout


def test_trace_of_nothing_is_1(site: Site) -> None:
    ended = site.run("trace", "112-0")
    assert (ended.returncode, ended.stdout) == (1, "")
    assert ended.stderr.startswith("ОШИБКА: ")


def test_refused_message_is_1_and_the_others_are_accepted(site: Site) -> None:
    drafts = f'{MESSAGE}\n{{"type": "call.status.v1"}}\n'
    ended = site.run("send", "-", "--name", "sys112", "--json", input=drafts)
    assert ended.returncode == 1
    rows = json.loads(ended.stdout)
    assert [row["accepted"] for row in rows] == [True, False]
    assert rows[1]["code"] == "not_permitted"
    assert ended.stderr.startswith("ОШИБКА: сообщение ")


def test_send_with_another_ones_key_is_77(site: Site) -> None:
    key = str(site.folder / "keys/smp.key")
    ended = site.run("send", "-", "--name", "sys112", "--key", key, input=MESSAGE)
    assert ended.returncode == 77
    assert "name_mismatch" in ended.stderr


def test_send_without_a_key_is_77(site: Site) -> None:
    ended = site.run("send", "-", "--name", "rmis", input=MESSAGE)
    assert ended.returncode == 77
    assert "smpbus keys new rmis" in ended.stderr


def test_tail_follows_until_interrupted(site: Site) -> None:
    tail = site.spawn("tail", "--json", "--event", "accepted", "--subject", "112-*")
    try:
        assert tail.stdout is not None
        assert tail.stderr is not None
        assert "events.sock" in tail.stderr.readline()
        first = _first_line_while_sending(site, tail)
        assert (first["event"], first["type"]) == ("accepted", "incident.card.v1")
        tail.send_signal(signal.SIGINT)
        _, errors = tail.communicate(timeout=LIMIT_S)
        assert (tail.returncode, errors.strip()) == (130, "")
    finally:
        tail.kill()
        tail.communicate()


def _first_line_while_sending(site: Site, tail: subprocess.Popen[str]) -> Any:
    """A subscription takes a moment to arrive: send until it has."""
    assert tail.stdout is not None
    os.set_blocking(tail.stdout.fileno(), False)
    deadline = time.monotonic() + LIMIT_S
    while time.monotonic() < deadline:
        site.run("send", "-", "--name", "sys112", input=MESSAGE)
        if line := tail.stdout.readline():
            return json.loads(line)
    raise AssertionError("no event came")


def test_reload_takes_a_new_route_and_refuses_a_wrong_one(site: Site) -> None:
    ticket = '{"type": "call.ticket.v1"}'
    routes = site.folder / "routes.toml"
    shipped = routes.read_text(encoding="utf-8")
    before = shipped.replace('type = "call.*"', 'type = "call.card.v1"')
    routes.write_text(before)
    assert site.run("reload").returncode == 0
    assert "no_route" in site.run("send", "-", "--name", "smp", input=ticket).stderr
    routes.write_text(f'{before}\n[[routes]]\ntype = "call.ticket.v1"\nto = ["nobody"]\n')
    refused = site.run("reload")
    assert refused.returncode == 78
    assert "маршрутизатор отказал" in refused.stderr
    assert "nobody" in refused.stderr
    assert site.run("status").returncode == 0
    routes.write_text(f'{before}\n[[routes]]\ntype = "call.ticket.v1"\nto = ["admin"]\n')
    assert site.run("reload").returncode == 0
    assert site.run("send", "-", "--name", "smp", input=ticket).returncode == 0


def test_a_revoked_key_is_let_in_no_more(site: Site) -> None:
    assert site.run("keys", "revoke", "admin").returncode == 0
    assert site.run("reload").returncode == 0
    ended = site.run("send", "-", "--name", "admin", input=MESSAGE)
    assert ended.returncode == 77
    assert ended.stderr.startswith("ОШИБКА: шина не пустила admin")


def test_unknown_ops_command_is_an_answer(site: Site) -> None:
    with pytest.raises(OpsError) as caught:
        ops_request(f"ipc://{site.folder}/ops.sock", "dance")
    assert caught.value.code == "unknown_command"
