"""The bus under supervisor, where systemd is not wanted, by the guide's own commands."""

import json

import pytest

from tests.system.guide import commands
from tests.system.machine import Machine

CONTROL = "supervisorctl -c /etc/smpbus/supervisor/smpbus.conf"
PROGRAMS = ("router", "smp", "sys112")


def states(machine: Machine) -> dict[str, str]:
    """Return the state of each program, as supervisor tells it."""
    said = machine.call(f"{CONTROL} status").stdout
    return {line.split()[0]: line.split()[1] for line in said.splitlines() if line}


def sessions(machine: Machine) -> set[str]:
    """Return who is on the bus."""
    asked = machine.call("smpbus sessions --json")
    if asked.returncode:
        return set()
    return {row["name"] for row in json.loads(asked.stdout)["sessions"]}


@pytest.fixture(scope="module")
def bus(machine: Machine) -> Machine:
    """The bus under supervisor, with the settings of the example for its two connectors."""
    # Everything of the example but the connectors that need files of their own.
    machine.run(
        "sed '/^# The telephone exchange/,$d' config/connectors.example.toml "
        ">> /etc/smpbus/smpbus.toml; smpbus config check\n"
        "smpbus token sys112 system112 && smpbus token smp ambulance"
    )
    (block,) = commands("Без systemd")
    machine.run(block)
    machine.wait("both connectors", lambda: sessions(machine) == {"smp", "sys112"})
    return machine


def test_the_commands_of_the_guide_start_what_they_name(bus: Machine) -> None:
    """`supervisord` was not on the path, and the folders of the connectors did not exist."""
    bus.wait("all programs", lambda: states(bus) == dict.fromkeys(PROGRAMS, "RUNNING"))

    assert bus.run("cat /var/log/smpbus/sys112.log")


@pytest.mark.fault("S6")
def test_each_program_is_a_user_of_its_own(bus: Machine) -> None:
    """All were one user: each read the keys and the state of all others, and left core files."""
    bus.wait("all programs", lambda: states(bus) == dict.fromkeys(PROGRAMS, "RUNNING"))
    for name, user in (("router", "smpbus"), ("smp", "smpbus-smp"), ("sys112", "smpbus-sys112")):
        pid = bus.run(f"{CONTROL} pid {name}").strip()
        assert bus.run(f"ps -o user:32= -p {pid}").strip() == user
        assert bus.run(f"grep 'core file size' /proc/{pid}/limits").split()[4:6] == ["0", "0"]
        assert bus.run(f"grep Umask /proc/{pid}/status").split()[1] == "0077"
        folder = "/var/lib/smpbus" if name == "router" else f"/var/lib/smpbus/{name}"
        assert bus.run(f"find {folder} -maxdepth 1 -type f ! -user {user}") == ""
    for what in (
        "cat /etc/smpbus/keys/router.key", "cat /etc/smpbus/keys/smp.key",
        "cat /var/lib/smpbus/journal.db", "ls /var/lib/smpbus/smp", "ls /run/smpbus/ops",
        "touch /etc/smpbus/permissions.toml", "touch /etc/smpbus/keys/intruder.pub",
        "smpbus status", f"{CONTROL} status", "cat /var/log/smpbus/smp.log",
    ):  # fmt: skip
        assert bus.call(what, user="smpbus-sys112").returncode != 0, what
    assert bus.call("cat /etc/smpbus/keys/sys112.key", user="smpbus-sys112").returncode == 0


def test_who_is_killed_is_started_again(bus: Machine) -> None:
    bus.wait("all programs", lambda: states(bus) == dict.fromkeys(PROGRAMS, "RUNNING"))
    before = {name: bus.run(f"{CONTROL} pid {name}").strip() for name in PROGRAMS}
    assert all(int(pid) > 1 for pid in before.values())

    bus.run(f"kill -KILL {' '.join(before.values())}")

    bus.wait("all programs", lambda: states(bus) == dict.fromkeys(PROGRAMS, "RUNNING"))
    after = {name: bus.run(f"{CONTROL} pid {name}").strip() for name in PROGRAMS}
    assert not set(before.values()) & set(after.values())
    bus.wait("both connectors", lambda: sessions(bus) == {"smp", "sys112"})


def test_stop_is_in_order(bus: Machine) -> None:
    bus.run(f"{CONTROL} shutdown")

    users = "smpbus,smpbus-smp,smpbus-sys112"
    bus.wait("their end", lambda: bus.call(f"pgrep -u {users}").returncode != 0)
    log = bus.run("cat /var/log/smpbus/supervisord.log")
    for name in PROGRAMS:
        assert f"stopped: {name} (exit status 0)" in log, log
