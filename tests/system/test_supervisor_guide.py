"""The bus under supervisor, where systemd is not wanted, by the guide's own commands."""

import json

import pytest
from guide import commands
from machine import Machine

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
        ">> /etc/smpbus/smpbus.toml; smpbus config check"
    )
    (block,) = commands("Без systemd")
    machine.run(block)
    machine.wait("both connectors", lambda: sessions(machine) == {"smp", "sys112"})
    return machine


def test_the_commands_of_the_guide_start_what_they_name(bus: Machine) -> None:
    """`supervisord` was not on the path, and the folders of the connectors did not exist."""
    bus.wait("all programs", lambda: states(bus) == dict.fromkeys(PROGRAMS, "RUNNING"))

    users = bus.run("ps -o user= -C smpbus | sort -u").split()
    assert users == ["smpbus"]
    assert bus.run("find /var/lib/smpbus /var/log/smpbus /run/smpbus ! -user smpbus") == ""
    assert bus.run("cat /var/log/smpbus/sys112.log")


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

    bus.wait("their end", lambda: bus.call("pgrep -u smpbus").returncode != 0)
    log = bus.run("cat /var/log/smpbus/supervisord.log")
    for name in PROGRAMS:
        assert f"stopped: {name} (exit status 0)" in log, log
