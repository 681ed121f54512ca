"""Doors of the router that ask nobody who he is: named before the start, and at it."""

import os
import subprocess
from pathlib import Path

import pytest

from router.config import ConfigError, load
from tests.integration.bus import SMPBUS
from tests.ports import free_port


def configured(folder: Path, text: str) -> Path:
    for name in ("routes", "permissions"):
        (folder / f"{name}.toml").write_text("", encoding="utf-8")
    config = folder / "smpbus.toml"
    config.write_text(text, encoding="utf-8")
    return config


def warned(folder: Path, text: str, word: str) -> int:
    return sum(word in one for one in load(configured(folder, text), environ={}).warnings)


@pytest.mark.fault("S13")
@pytest.mark.parametrize("key", ["listen", "events"])
def test_an_operators_socket_on_a_port_is_everybodys(tmp_path: Path, key: str) -> None:
    """With ops.listen on loopback `config check` said that all was well, while every local user
    could drop dead letters: a port is refused; a socket of mode 0666 is warned of."""
    for host in ("127.0.0.1", "[::1]", "localhost", "0.0.0.0"):
        file = configured(tmp_path, f'[ops]\n{key} = "tcp://{host}:{free_port()}"\n')
        with pytest.raises(ConfigError, match=f"ops.{key}") as refused:
            load(file, environ={})
        assert "ipc:///run/smpbus/" in str(refused.value)  # how to mend it
    assert warned(tmp_path, f'[ops]\n{key} = "ipc://a.sock"\nipc_mode = "0666"\n', "a.sock") == 1
    assert warned(tmp_path, f'[ops]\n{key} = "ipc://@a"\n', "@a") == 1  # no file, no mode
    for mode in ("0600", "0660"):
        ops = f'[ops]\n{key} = "ipc://a.sock"\nipc_mode = "{mode}"\n'
        assert warned(tmp_path, ops, "a.sock") == 0


@pytest.mark.fault("S13")
def test_names_without_keys_are_anybodys_to_take(tmp_path: Path) -> None:
    """With curve = false and a port on loopback every local user could be any peer."""
    port = f"tcp://127.0.0.1:{free_port()}"
    assert warned(tmp_path, f'[bus]\ncurve = false\nlisten = ["{port}"]\n', port) == 1
    assert warned(tmp_path, f'[bus]\ncurve = true\nlisten = ["{port}"]\n', port) == 0
    for mode, count in (("0660", 0), ("0666", 1)):
        bus = f'[bus]\ncurve = false\nlisten = ["ipc://b.sock"]\nipc_mode = "{mode}"\n'
        assert warned(tmp_path, bus, "b.sock") == count


@pytest.mark.fault("S13")
def test_the_start_refuses_a_port_for_operators_too(tmp_path: Path) -> None:
    """A port that came by the environment is refused as one of the file is: status 78, one line."""
    config = configured(tmp_path, '[bus]\ncurve = false\n[store]\nfolder = "data"\n')
    for command in ("router", "status"):
        ended = subprocess.run(
            [SMPBUS, command, "--config", config], capture_output=True, text=True, timeout=30,
            env=os.environ | {"SMPBUS_OPS__LISTEN": f"tcp://127.0.0.1:{free_port()}"},
        )  # fmt: skip
        assert ended.returncode == 78
        assert ended.stderr.count("\n") == 1
        assert "SMPBUS_OPS__LISTEN" in ended.stderr


@pytest.mark.fault("S13")
def test_the_check_and_the_start_both_say_it(tmp_path: Path) -> None:
    """Who reads only one of them has read it."""
    listen, ops = f"tcp://127.0.0.1:{free_port()}", f"ipc://{tmp_path}/ops.sock"
    config = configured(
        tmp_path,
        f'[bus]\ncurve = false\nlisten = ["{listen}"]\n[store]\nfolder = "data"\n'
        f'[ops]\nlisten = "{ops}"\nevents = "ipc://events.sock"\nhttp = ""\nipc_mode = "0666"\n',
    )
    checked = subprocess.run(
        [SMPBUS, "config", "check", "--config", config], capture_output=True, text=True, timeout=30
    )
    with (tmp_path / "log").open("wb") as log:
        router = subprocess.Popen([SMPBUS, "router", "--config", config], stdout=log, stderr=log)
        try:
            for _ in range(200):
                started = (tmp_path / "log").read_text(encoding="utf-8")
                if ops in started and listen in started:
                    break
                with pytest.raises(subprocess.TimeoutExpired):
                    router.wait(0.05)
        finally:
            router.terminate()
            router.wait(20)
    for said in (checked.stdout + checked.stderr, started):
        for word in (listen, ops, "ops.ipc_mode", "bus.ipc_mode"):
            assert word in said
