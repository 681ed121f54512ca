"""The command line where things are not as they should be: one sentence, and a known status."""

import json
import os
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

import pytest
import zmq

from proto.message import now_ms
from proto.visible import visible, visible_in, visible_json
from router.commands import COMMANDS
from router.commands.table import local_time
from tests.integration.bus import SMPBUS, RouterProcess

ESCAPE = "call\x1b]0;owned\x07\x9b31m\u202e1"
WITH_CONFIG = (
    "router", "status", "queues", "sessions", "partners", "trace x", "tail", "send -", "dead list",
    "hold sink --reason x", "release sink", "retry sink", "check", "route explain /dev/null",
    "reload", "config check", "config show", "keys list", "access list",
)  # fmt: skip


def smpbus(*arguments: str, **options: Any) -> "subprocess.CompletedProcess[bytes]":
    options.setdefault("stdout", subprocess.PIPE)
    return subprocess.run(
        [*options.pop("before", ()), SMPBUS, *arguments],
        stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, timeout=30, check=False, **options,
    )  # fmt: skip


@pytest.mark.fault("B1")
@pytest.mark.parametrize("command", WITH_CONFIG)
def test_a_command_without_rights_is_one_sentence(command: str, tmp_path: Path) -> None:
    """Each was 25 lines of PermissionError and status 1; 77 is what the README says."""
    folder = tmp_path / "etc"
    folder.mkdir()
    (folder / "smpbus.toml").write_text("")
    folder.chmod(0)
    before = ("setpriv", "--bounding-set", "-all") if os.geteuid() == 0 else ()
    words = command.split()
    try:
        ended = smpbus(*words, "--config", str(folder / "smpbus.toml"), before=before)
    finally:
        folder.chmod(0o700)
    said = ended.stderr.decode()
    assert said.startswith("ОШИБКА: "), said
    assert len(said.splitlines()) == 1
    assert ended.returncode == 77, said


@pytest.mark.fault("B1")
def test_a_stdout_that_cannot_be_written_is_told() -> None:
    """`> /dev/full` was a traceback, and so was a closed stdout and one of another encoding."""
    with open("/dev/full", "wb") as full:
        ended = smpbus("version", stdout=full)
    assert ended.returncode == 74
    assert len(ended.stderr.decode().splitlines()) == 1
    closed = subprocess.run(
        ["sh", "-c", f"exec {SMPBUS} version >&-"], stderr=subprocess.PIPE, timeout=30, check=False
    )
    assert (closed.returncode, closed.stderr) == (0, b"")
    latin = smpbus("--help", env={**os.environ, "PYTHONIOENCODING": "latin-1"})
    assert (latin.returncode, latin.stderr) == (0, b"")


@pytest.mark.fault("B1")
@pytest.mark.parametrize("after_s", [0.07, 0.15, 0.3])
def test_an_early_interrupt_leaves_no_traceback(after_s: float) -> None:
    """Ctrl-C in the first moments was a traceback."""
    with RouterProcess() as router:
        process = subprocess.Popen(
            [SMPBUS, "tail", "--config", str(router.config)],
            stdout=subprocess.PIPE, stderr=subprocess.PIPE,
        )  # fmt: skip
        time.sleep(after_s)
        process.send_signal(signal.SIGINT)
        _, said = process.communicate(timeout=30)
    # Before a line of ours has run it is Python's own business.
    assert process.returncode in (130, -signal.SIGINT)
    if process.returncode == 130:
        assert b"Traceback" not in said


@pytest.mark.fault("B1")
def test_no_command_is_forgotten_here() -> None:
    """A new command is to be tried without rights, too."""
    tried = {command.split()[0] for command in WITH_CONFIG}
    assert set(COMMANDS) - tried == {"schema", "explain", "completion", "version"}


@pytest.mark.fault("D10")
def test_escapes_of_a_peer_do_not_reach_the_terminal() -> None:
    """Escapes in a subject, a type or a note steered the administrator's terminal."""
    with RouterProcess() as router:
        with router.blocking("producer") as bus:
            bus.publish(bus.message("test.message.v1", b"{}", subject=ESCAPE))
        with router.blocking("consumer") as bus:
            delivery = next(iter(bus.consume("sink", timeout_s=10)))
            bus.reject(delivery, f"no {ESCAPE}")
        router.wait_until("status", lambda status: status["counters"]["dead"] == 1)
        config = ("--config", str(router.config))
        for command in (["dead", "list"], ["trace", ESCAPE], ["trace", f"{ESCAPE}2"]):
            ended = smpbus(*command, *config, env={**os.environ, "COLUMNS": "400"})
            said = (ended.stdout + ended.stderr).decode()
            assert "call\\x1b]0;owned\\x07\\x9b31m" in said.replace("\n", "")
            assert all(line.isprintable() for line in said.splitlines()), said
        as_json = smpbus("dead", "list", "--json", *config).stdout.decode()
        assert all(line.isprintable() for line in as_json.splitlines())
        assert json.loads(as_json)[0]["subject"] == ESCAPE


@pytest.mark.fault("D10")
def test_what_steers_is_shown() -> None:
    """The same for what `tail` shows, and for every mark of direction."""
    assert visible("вызов №1") == "вызов №1"
    assert visible("a\tb\r\n\x00\x7f\u2028") == "a\\tb\\r\\n\\x00\\x7f\\u2028"
    assert visible_in({"a\x1b": ["\x9b", 1]}) == {"a\\x1b": ["\\x9b", 1]}
    assert visible_json('"\x9b\u202e"') == '"\\u009b\\u202e"'


@pytest.mark.fault("D12")
def test_stray_words_do_not_silence_tail() -> None:
    """A word that is no subscription counted as one that ended, and `tail` showed nothing."""
    with (
        RouterProcess() as router,
        zmq.Context() as context,
        context.socket(zmq.XSUB) as stray,
        context.socket(zmq.SUB) as watcher,
    ):
        for one in (stray, watcher):
            one.setsockopt(zmq.LINGER, 0)
            one.connect(router.events)
        watcher.setsockopt(zmq.SUBSCRIBE, b"")
        for word in (b"stray", b"\0", b"\0accepted", b"", b"\2"):
            stray.send(word)
        with router.blocking("producer") as bus:
            for _ in range(50):
                bus.publish(bus.message("test.message.v1", b"{}"))
                if watcher.poll(200):
                    break
        assert watcher.poll(0), "nothing is told any more"


@pytest.mark.fault("D12")
def test_a_time_that_no_calendar_has_is_shown_as_it_is() -> None:
    """trace of a message with a far time was a traceback."""
    assert local_time(2**62) == f"{2**62} ms"
    assert local_time(2**53) == f"{2**53} ms"
    far = now_ms() + 9 * 366 * 86_400_000
    with RouterProcess() as router:
        with router.blocking("producer") as bus:
            bus.publish(bus.message("test.message.v1", b"{}", subject="far", not_before=far))
        for command in (["trace", "far"], ["queues"]):
            ended = smpbus(*command, "--config", str(router.config))
            assert ended.returncode == 0, ended.stderr.decode()
