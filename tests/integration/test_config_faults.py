"""A wrong configuration, one fault at a time, against a real start of `smpbus router`.

Whatever is wrong, the router ends with the right exit status and one sentence that names the file
and the key, and the line where there is one.
"""

import fcntl
import os
import shutil
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from proto.keys import KeyPair
from router.store.sqlite import FILE

OWN = Path(__file__).parents[2] / "config"
START_S = 60
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
BIND = "при выполнении bind. Требуемый адрес для своего контекста неверен: "
Prepare = Callable[["Ground"], None]


class Ground:
    """A good configuration in a folder of its own, to be spoilt."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.stack = stack
        shutil.copytree(OWN, folder, dirs_exist_ok=True)
        self.file("smpbus.toml").write_text(MAIN)
        self.port = 0
        partners = ("smp", "sys112", "ats", "rmis", "remd", "vimis", "rmr", "tfoms", "external")
        for name in ("router", *partners, "admin"):
            KeyPair.new().save(folder / "keys", name)

    def file(self, name: str) -> Path:
        return self.folder / name

    def replace(self, old: str, new: str, file: str = "smpbus.toml") -> None:
        content = self.file(file).read_text(encoding="utf-8")
        assert content.count(old) == 1
        self.file(file).write_text(content.replace(old, new), encoding="utf-8")

    def take_port(self) -> int:
        taken = self.stack.enter_context(socket.socket())
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        self.port = taken.getsockname()[1]
        return self.port

    def start(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        environ = {k: v for k, v in os.environ.items() if not k.startswith("SMPBUS_")}
        return subprocess.run(
            [sys.executable, "-m", "router.commands", *arguments,
             "--config", str(self.file("smpbus.toml"))],
            capture_output=True, text=True, timeout=START_S, env=environ, check=False,
        )  # fmt: skip


@pytest.fixture
def ground() -> Iterator[Ground]:
    folder = Path(tempfile.mkdtemp(prefix="smpbus-", dir="/tmp"))
    with ExitStack() as stack:
        stack.callback(shutil.rmtree, folder)
        yield Ground(folder, stack)


@dataclass
class Fault:
    """How to spoil the configuration, and what is then said."""

    prepare: Prepare
    status: int
    names: tuple[str, ...]  # of which {folder} and {port} are filled in
    file: str = "smpbus.toml"
    line: int | None = None


def listen(*addresses: str) -> Prepare:
    shown = ", ".join(f'"{address}"' for address in addresses)
    return lambda ground: ground.replace('["ipc://bus.sock"]', f"[{shown}]")


def main(old: str, new: str) -> Prepare:
    return lambda ground: ground.replace(old, new)


def append(file: str, content: str) -> Prepare:
    def prepare(ground: Ground) -> None:
        with ground.file(file).open("a", encoding="utf-8") as opened:
            opened.write(content)

    return prepare


def replaced(file: str, content: str) -> Prepare:
    def prepare(ground: Ground) -> None:
        ground.file(file).write_text(content, encoding="utf-8")

    return prepare


def taken_port(ground: Ground) -> None:
    listen(f"tcp://127.0.0.1:{ground.take_port()}")(ground)


def taken_http(ground: Ground) -> None:
    ground.replace('http = ""', f'http = "127.0.0.1:{ground.take_port()}"')


def taken_ipc(ground: Ground) -> None:
    taken = ground.stack.enter_context(socket.socket(socket.AF_UNIX))
    taken.bind(str(ground.file("bus.sock")))
    taken.listen()


def not_a_socket(ground: Ground) -> None:
    ground.file("bus.sock").write_text("precious")


def no_key(ground: Ground) -> None:
    ground.file("keys/router.key").unlink()


def open_key(ground: Ground) -> None:
    ground.file("keys/router.key").chmod(0o644)


def garbage_key(ground: Ground) -> None:
    ground.file("keys/router.key").write_text("not a key\n")


def data_is_a_file(ground: Ground) -> None:
    ground.file("data").write_text("")


def second_router(ground: Ground) -> None:
    ground.file("data").mkdir()
    lock = ground.stack.enter_context(ground.file("data/router.lock").open("w"))
    lock.write("4711\n")
    lock.flush()
    fcntl.flock(lock, fcntl.LOCK_EX)


def no_file(name: str) -> Prepare:
    return lambda ground: ground.file(name).unlink()


def other_encoding(ground: Ground) -> None:
    ground.file("routes.toml").write_bytes("# маршруты".encode("cp1251"))


LONG = "x" * 100
FAULTS = {
    "not a ZeroMQ address": Fault(listen("localhost:5570"), 78, (BIND, "bus.listen"), line=2),
    "unknown transport": Fault(listen("udp://127.0.0.1:5570"), 78, (BIND, "bus.listen"), line=2),
    "port out of range": Fault(listen("tcp://127.0.0.1:99999"), 78, (BIND, "bus.listen"), line=2),
    "ipc path too long": Fault(listen(f"ipc:///{LONG}/{LONG}"), 78, (BIND, "107"), line=2),
    "duplicate listen": Fault(listen(*["ipc:///tmp/a"] * 2), 78, (BIND, "bus.listen"), line=2),
    "empty listen": Fault(listen(), 78, ("bus.listen",), line=2),
    "busy port": Fault(taken_port, 78, ("сокета 98 ", BIND, "127.0.0.1:{port}", "bus.listen")),
    "not an address of this machine": Fault(
        listen("tcp://192.0.2.1:5570"), 78, (BIND, "tcp://192.0.2.1:5570", "bus.listen")
    ),
    "busy ipc": Fault(taken_ipc, 78, ("сокета 98 ", BIND, "ipc://{folder}/bus.sock", "bus.listen")),
    "ipc path is a file": Fault(not_a_socket, 78, (BIND, "{folder}/bus.sock", "bus.listen")),
    "ipc folder missing": Fault(
        listen("ipc://none/bus.sock"), 78, (BIND, "{folder}/none/bus.sock", "bus.listen")
    ),
    "ops.listen not an address": Fault(
        main("ipc://ops.sock", "ops.sock"), 78, (BIND, "ops.listen"), line=6
    ),
    "ops.listen on the network": Fault(
        main("ipc://ops.sock", "tcp://0.0.0.0:5571"), 78, ("ops.listen", "0.0.0.0"), line=6
    ),
    "ops.events folder missing": Fault(
        main("ipc://events.sock", "ipc://none/e"), 78, (BIND, "{folder}/none/e", "ops.events")
    ),
    "ops.http busy": Fault(taken_http, 78, ("сокета 98 ", BIND, "127.0.0.1:{port}", "ops.http")),
    "ops.http not an address": Fault(
        main('http = ""', 'http = "7180"'), 78, (BIND, "ops.http"), line=8
    ),
    "curve off on the network": Fault(
        main('["ipc://bus.sock"]', '["tcp://0.0.0.0:5570"]\ncurve = false'),
        78, ("bus.listen", "curve"), line=2,
    ),
    "no key": Fault(no_key, 78, ("keys/router.key", "bus.key", "keys new")),
    "key too open": Fault(open_key, 78, ("keys/router.key", "chmod 600")),
    "garbage key": Fault(garbage_key, 78, ("keys/router.key", "не ключ CURVE")),
    "data folder cannot be made": Fault(
        main('"data"', '"/proc/smpbus-data"'), 73, ("/proc/smpbus-data", "store.folder")
    ),
    "data folder is a file": Fault(data_is_a_file, 73, ("{folder}/data", "store.folder")),
    "second router": Fault(second_router, 75, ("{folder}/data", "4711", "store.folder")),
    "broken smpbus.toml": Fault(append("smpbus.toml", "[log\n"), 78, ("TOML",), line=12),
    "broken routes.toml": Fault(
        replaced("routes.toml", "[[routes]]\ntype = incident\n"), 78, ("TOML",), "routes.toml", 2
    ),
    "broken permissions.toml": Fault(
        replaced("permissions.toml", "peers.smp publish\n"), 78, ("TOML",), "permissions.toml", 1
    ),
    "not UTF-8": Fault(other_encoding, 78, ("UTF-8",), "routes.toml", 1),
    "unknown section": Fault(append("smpbus.toml", "[strore]\n"), 78, ("strore", "store"), line=12),
    "unknown key": Fault(main("keys_dir", "key_dir"), 78, ("bus.key_dir", "keys_dir"), line=3),
    "wrong type": Fault(main('http = ""', "http = 7180"), 78, ("ops.http", "7180"), line=8),
    "out of range": Fault(
        append("smpbus.toml", "history_hours = 0\n"), 78, ("store.history_hours", "не меньше 1"),
        line=12,
    ),
    "not a choice": Fault(
        append("smpbus.toml", '[log]\nlanguage = "de"\n'), 78, ("log.language", '"ru", "en"'),
        line=13,
    ),
    "route to nowhere": Fault(
        append("routes.toml", '[[routes]]\ntype = "a.b"\nto = ["rmsi"]\n'),
        78, ("].to: ", "rmsi"), "routes.toml", -1,
    ),
    "bad name in a permission": Fault(
        append("permissions.toml", '[peers."Больница"]\n'), 78, ("peers.Больница",),
        "permissions.toml", -1,
    ),
    "bad type in a permission": Fault(
        append("permissions.toml", '[peers.morgue]\npublish = ["карта"]\n'),
        78, ("peers.morgue.publish", "карта"), "permissions.toml", -1,
    ),
    "unknown destination in a permission": Fault(
        append("permissions.toml", '[peers.morgue]\nconsume = ["morgue"]\n'),
        78, ("peers.morgue.consume", "morgue"), "permissions.toml", -1,
    ),
    "no smpbus.toml": Fault(no_file("smpbus.toml"), 78, ("нет файла",)),
    "no routes.toml": Fault(no_file("routes.toml"), 78, ("нет файла",), "routes.toml"),
    "no permissions.toml": Fault(
        no_file("permissions.toml"), 78, ("нет файла",), "permissions.toml"
    ),
}  # fmt: skip


@pytest.mark.parametrize("case", FAULTS)
def test_fault_ends_the_start_with_one_sentence(ground: Ground, case: str) -> None:
    fault = FAULTS[case]
    fault.prepare(ground)
    ended = ground.start("router")
    sentence = the_error(ended.stderr)
    assert ended.returncode == fault.status, ended.stderr
    assert ended.stdout == ""
    for name in fault.names:
        assert name.format(folder=ground.folder, port=ground.port) in sentence
    assert str(ground.file(fault.file)) in sentence
    if fault.line:
        line = fault.line
        if line < 0:  # from the end, so that a comment more in config/ changes nothing here
            line += len(ground.file(fault.file).read_text(encoding="utf-8").splitlines()) + 1
        assert f"строка {line}" in sentence


def the_error(stderr: str) -> str:
    """Return the only line that is not a warning."""
    assert "Traceback" not in stderr
    lines = [line for line in stderr.splitlines() if "ПРЕДУПРЕЖДЕНИЕ: " not in line]
    assert len(lines) == 1, stderr
    assert lines[0].startswith("ОШИБКА: ")
    return lines[0]


CHECKED = [case for case, fault in FAULTS.items() if fault.line]


@pytest.mark.parametrize("case", CHECKED)
def test_config_check_finds_it_too(ground: Ground, case: str) -> None:
    FAULTS[case].prepare(ground)
    checked = ground.start("config", "check")
    assert checked.returncode == 78
    assert the_error(checked.stderr) == the_error(ground.start("router").stderr)


def test_a_journal_that_is_no_database_is_left_alone(ground: Ground) -> None:
    ground.file("data").mkdir()
    journal = ground.file("data") / FILE
    journal.write_bytes(b"this is no database\n" * 400)
    ended = ground.start("router")
    assert ended.returncode == 74
    assert str(journal) in the_error(ended.stderr)
    assert journal.read_bytes() == b"this is no database\n" * 400


def test_a_good_configuration_passes_the_check(ground: Ground) -> None:
    checked = ground.start("config", "check")
    assert (checked.returncode, checked.stderr) == (0, "")
