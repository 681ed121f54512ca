"""nginx before a connector's door: connections that are kept, and who the caller is."""

import contextlib
import http.client
import json
import shutil
import subprocess
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors.simulators.sys112.samples import Sample, day_of_cards
from tests.integration.bus import SMPBUS, RouterProcess
from tests.ports import free_port
from tests.until import wait_for

CARD: Sample = next(one for one in day_of_cards(11, 5) if one.kind == "new")
CARD_PATH = f"/112/cards/{CARD.id112}"

PATIENCE_S = 30.0
US, STRANGER = "127.0.0.1", "127.0.0.2"
IDLE_S = 6.0  # longer than the door itself keeps a connection on which nothing comes
SETTINGS = """
daemon off;
pid {folder}/nginx.pid;
error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    upstream door {{ server {door}; keepalive 4; }}
    server {{
        listen 127.0.0.1:{port};
        location / {{
            proxy_pass http://door;
            proxy_http_version 1.1;
            proxy_set_header Connection "";
            proxy_set_header X-Forwarded-For $proxy_add_x_forwarded_for;
            proxy_set_header X-Forwarded-Proto $scheme;
        }}
    }}
}}
"""


DOOR = """
[connectors.sys112]
open = true
listen = "127.0.0.1:{port}"
allow = ["{ours}/32"]
state_file = "{folder}/cards.db"
[connectors.sys112.partner]
url = "http://127.0.0.1:{partner}"
system = "Система-112"
"""


@contextlib.contextmanager
def nginx(door: str) -> Iterator[int]:
    """Give the port of an nginx that hands every request on to a door."""
    port = free_port()
    folder = Path(tempfile.mkdtemp(prefix="smpbus-nginx-"))
    (folder / "nginx.conf").write_text(SETTINGS.format(folder=folder, door=door, port=port))
    program = shutil.which("nginx") or "/usr/sbin/nginx"
    with (folder / "log").open("wb") as log:
        process = subprocess.Popen(
            [program, "-p", str(folder), "-c", str(folder / "nginx.conf")], stdout=log, stderr=log
        )
    try:
        wait_for(lambda: (folder / "nginx.pid").exists() or process.poll() is not None, "nginx")
        assert process.poll() is None, (folder / "log").read_text()
        yield port
    finally:
        process.terminate()
        process.wait(PATIENCE_S)
        shutil.rmtree(folder)


def put(connection: http.client.HTTPConnection, claimed: str = "") -> int:
    """Bring the card, saying whom we come from; return the status."""
    headers = {"Content-Type": "application/json"}
    if claimed:
        headers["X-Forwarded-For"] = claimed
    connection.request("PUT", CARD_PATH, json.dumps(CARD.body), headers)
    answer = connection.getresponse()
    answer.read()
    return answer.status


@pytest.fixture
def port() -> Iterator[int]:
    """The port of an nginx before the door of sys112, which lets in only one address."""
    door = free_port()
    with RouterProcess(
        peers=("sys112",),
        routes="[destinations.sys112]\n[destinations.smp]\n[destinations.deadlines]\n"
        '[destinations.admin]\n[[routes]]\ntype = "*"\nto = ["smp"]\n',
        permissions='[peers.sys112]\npublish = ["*"]\nconsume = ["sys112", "deadlines"]\n',
    ) as router:
        table = DOOR.format(folder=router.folder, port=door, ours=US, partner=free_port())
        with router.config.open("a") as file:
            file.write(table)
        with (router.folder / "sys112.log").open("wb") as log:
            process = subprocess.Popen(
                [SMPBUS, "connector", "sys112", "--config", str(router.config)],
                stdout=log,
                stderr=log,
            )
        try:
            router.wait_until("sessions", lambda answer: answer["sessions"])
            with nginx(f"127.0.0.1:{door}") as port:
                yield port
        finally:
            process.terminate()
            process.wait(PATIENCE_S)


@contextlib.contextmanager
def at(port: int, source: str) -> Iterator[http.client.HTTPConnection]:
    """Give a connection from an address of this machine, of which the loopback has many."""
    connection = http.client.HTTPConnection(
        "127.0.0.1", port, timeout=PATIENCE_S, source_address=(source, 0)
    )
    with contextlib.closing(connection):
        yield connection


def test_the_caller_is_whom_nginx_names_and_not_whom_the_caller_names(port: int) -> None:
    """What a caller writes into X-Forwarded-For itself opens no door: the last that nginx adds
    counts. A door that took nginx for the caller would let everybody in."""
    with at(port, US) as ours:
        assert put(ours) == 200
    with at(port, STRANGER) as other:
        assert put(other) == 403
        assert put(other, claimed=US) == 403
        assert put(other, claimed=f"{US}, {US}") == 403


def test_requests_over_kept_connections_all_arrive(port: int) -> None:
    """Both connections, ours and nginx's own to the door, carry many requests; after a silence in
    which the door has closed its side nothing is lost."""
    with at(port, US) as connection:
        assert [put(connection) for _ in range(20)] == [200] * 20
        time.sleep(IDLE_S)
        assert [put(connection) for _ in range(20)] == [200] * 20
