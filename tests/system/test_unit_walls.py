"""From inside a unit nothing is to be had but its own: tried under a real systemd, as a table."""

import json
import shlex

import pytest

from tests.system.guide import commands
from tests.system.machine import Machine

UNITS = ("smpbus-router", "smpbus-connector@sys112", "smpbus-connector@smp")
OWNERS = {"smpbus-router": "smpbus", UNITS[1]: "smpbus-sys112", UNITS[2]: "smpbus-smp"}
EXPOSURE_MAX = 1.1
PYTHON = "/opt/smpbus/current/bin/python"
KEYS, STATE, RUN = "/etc/smpbus/keys", "/var/lib/smpbus", "/run/smpbus"
NOBODY: tuple[str, ...] = ()
ROUTER, SYS112, SMP = ((unit,) for unit in UNITS)
CONNECTORS = (*SYS112, *SMP)
# What is tried, and in which units it is allowed.
TABLE: dict[tuple[str, str], tuple[str, ...]] = {
    ("read", f"{KEYS}/router.key"): ROUTER,
    ("read", f"{KEYS}/sys112.key"): SYS112,
    ("read", f"{KEYS}/smp.key"): NOBODY,  # root's: the unit gets it as a credential
    ("read", f"{KEYS}/admin.key"): NOBODY,
    ("read", f"{KEYS}/router.pub"): UNITS,
    ("write", f"{KEYS}/intruder.pub"): NOBODY,
    ("write", f"{KEYS}/router.pub"): NOBODY,
    ("read", "/etc/smpbus/smpbus.toml"): UNITS,
    ("write", "/etc/smpbus/smpbus.toml"): NOBODY,
    ("write", "/etc/smpbus/permissions.toml"): NOBODY,
    ("write", "/etc/smpbus/routes.toml"): NOBODY,
    ("read", f"{STATE}/journal.db"): ROUTER,
    ("write", f"{STATE}/journal.db"): ROUTER,
    ("write", f"{STATE}/journal.db-wal"): ROUTER,
    ("read", f"{STATE}/sys112/mark"): SYS112,
    ("write", f"{STATE}/sys112/mark"): SYS112,
    ("read", f"{STATE}/smp/mark"): SMP,
    ("write", f"{STATE}/smp/mark"): SMP,
    ("write", f"{STATE}/shared/limit.quota"): UNITS,
    ("write", f"{STATE}/intruder"): ROUTER,
    ("read", "/var/backups/smpbus/journal.db"): ROUTER,
    ("connect", f"{RUN}/bus.sock"): UNITS,
    ("connect", f"{RUN}/ops/ops.sock"): ROUTER,
    ("connect", f"{RUN}/ops/events.sock"): ROUTER,
    ("write", f"{RUN}/intruder"): ROUTER,
    ("read", "/etc/shadow"): NOBODY,
    ("read", "/root"): NOBODY,
    ("write", "/usr/local/bin/smpbus"): NOBODY,
    ("write", "/etc/systemd/system/smpbus-router.service"): NOBODY,
}


@pytest.fixture(scope="module")
def bus(machine: Machine) -> Machine:
    """The router and two connectors; the key of one is given by systemd."""
    machine.run(
        "sed '/^# The telephone exchange/,$d' config/connectors.example.toml "
        ">> /etc/smpbus/smpbus.toml\n"
        "smpbus token sys112 system112 && smpbus token smp ambulance\n"
        "install -m 644 tests/system/probe.py /usr/local/lib/probe.py\n"
        f"chown root: {KEYS}/smp.key\n"
        "folder=/etc/systemd/system/smpbus-connector@smp.service.d; mkdir $folder\n"
        f"printf '[Service]\\nLoadCredential=bus.key:{KEYS}/smp.key\\n' > $folder/key.conf\n"
        "systemctl daemon-reload"
    )
    machine.run(commands("3. Запуск")[0])
    machine.wait("both connectors", lambda: sessions(machine) == {"smp", "sys112"})
    machine.run(
        "mkdir -p /var/backups/smpbus; cp -a /var/lib/smpbus/journal.db /var/backups/smpbus/\n"
        f"for name in sys112 smp; do touch {STATE}/$name/mark; "
        f"chmod 600 {STATE}/$name/mark; chown smpbus-$name: {STATE}/$name/mark; done\n"
        f"touch {STATE}/shared/limit.quota; chmod 660 {STATE}/shared/limit.quota\n"
        f"chown smpbus-smp:smpbus {STATE}/shared/limit.quota"
    )
    return machine


def sessions(machine: Machine) -> set[str]:
    """Return who is on the bus."""
    asked = machine.call("smpbus sessions --json")
    if asked.returncode:
        return set()
    return {row["name"] for row in json.loads(asked.stdout)["sessions"]}


def tried(machine: Machine, unit: str, what: list[tuple[str, str]]) -> dict[str, str]:
    """Try things in the walls of a unit of which only the program is another; the router, whose
    sockets are asked for, runs on meanwhile in its own."""
    name = unit if "@" in unit else f"{unit}-probe"
    command = f"{PYTHON} /usr/local/lib/probe.py {shlex.quote(json.dumps(what))}"
    if name != unit:
        machine.run(f"cp /etc/systemd/system/{unit}.service /run/systemd/system/{name}.service")
    folder = f"/run/systemd/system/{name}.service.d"
    drop_in = (
        "[Service]\nType=oneshot\nRestart=no\nWatchdogSec=0\n"
        f"ExecStart=\nExecStart={command.replace('%', '%%')}\n"
    )
    machine.run(
        f"systemctl stop {name}; mkdir -p {folder}\n"
        f"printf %s {shlex.quote(drop_in)} > {folder}/probe.conf\n"
        f"systemctl daemon-reload; systemctl start {name}"
    )
    said = [line for line in machine.log(f"{name}.service").splitlines() if "PROBE " in line]
    machine.run(f"rm -r {folder}; systemctl daemon-reload")
    return dict(json.loads(said[-1].partition("PROBE ")[2]))


@pytest.mark.fault("S6")
def test_a_unit_gets_nothing_but_its_own(bus: Machine) -> None:
    """With one user for all, a connector read every key and the journal, wrote permissions.toml and
    was an operator: each of these is denied now, in the router's unit what is the connectors'."""
    pid = bus.show("smpbus-router", "MainPID")[0]
    table = TABLE | {("signal", pid): ROUTER, ("read", f"/proc/{pid}/environ"): ROUTER}
    came = {unit: tried(bus, unit, list(table)) for unit in UNITS}
    wrong = []
    print(f"{'':52}" + "".join(f"{unit.removeprefix('smpbus-'):>22}" for unit in UNITS))
    for (way, what), allowed in table.items():
        row = [came[unit][f"{way} {what}"] for unit in UNITS]
        print(f"{way + ' ' + what:52}" + "".join(f"{one:>22}" for one in row))
        for unit, one in zip(UNITS, row, strict=True):
            if (one == "allowed") != (unit in allowed):
                wrong.append((unit, way, what, one))
    assert not wrong


@pytest.mark.fault("S6")
def test_both_kinds_of_units_are_little_exposed(bus: Machine) -> None:
    """By systemd's own measure, as they are installed."""
    for unit in UNITS:
        said = bus.call(f"systemd-analyze security --no-pager {unit}.service").stdout
        exposure = float(said.partition("exposure level for")[2].partition(": ")[2].split()[0])
        print(unit, exposure)
        assert exposure <= EXPOSURE_MAX, said


@pytest.mark.fault("S6")
def test_what_runs_owns_its_state_and_nothing_else(bus: Machine) -> None:
    """Settings and public keys are root's, secret keys their process's alone."""
    assert bus.run("find /etc/smpbus -maxdepth 1 ! -user root -o ! -group smpbus") == ""
    assert bus.run("find /etc/smpbus -maxdepth 1 -perm /027") == ""
    assert bus.run(f"find {KEYS} -name '*.key' -perm /077") == ""
    for unit, owner in OWNERS.items():
        name = unit.rpartition("@")[2] if "@" in unit else ""
        assert bus.run(f"stat -c %U {STATE}/{name}").strip() == owner
        assert bus.run(f"find {STATE}/{name} -maxdepth 1 -type f ! -user {owner}") == ""
        pid = bus.run(f"systemctl start {unit}; systemctl show {unit} -p MainPID --value").strip()
        assert bus.run(f"ps -o user:32= -p {pid}").strip() == owner
        assert bus.run(f"grep 'core file size' /proc/{pid}/limits").split()[4:6] == ["0", "0"]


@pytest.mark.fault("S6")
def test_the_network_is_let_in_address_by_address(bus: Machine) -> None:
    """Each unit spoke to the whole of 10.0.0.0/8: now the router cannot even try its own address
    there, says so and how to mend it, and comes up when the address is let in."""
    listen = '["ipc:///run/smpbus/bus.sock", "tcp://10.98.0.1:5570"]'
    bus.run(
        "ip address add 10.98.0.1/32 dev lo; cp -p /etc/smpbus/smpbus.toml /root/\n"
        f"sed -i 's|^# listen = \\[.*|listen = {listen}|' /etc/smpbus/smpbus.toml\n"
        "systemctl restart --no-block smpbus-router"
    )
    try:
        bus.wait("word of it", lambda: "IPAddressAllow=" in bus.log("smpbus-router.service"))
        assert bus.show("smpbus-router", "ExecMainStatus") in (["69"], ["0"])  # it tries again
        folder = "/run/systemd/system/smpbus-router.service.d"
        bus.run(
            f"mkdir {folder}\n"
            f"printf '[Service]\\nIPAddressAllow=10.98.0.1\\n' > {folder}/own.conf\n"
            "systemctl daemon-reload; systemctl restart smpbus-router"
        )
        assert "tcp://10.98.0.1:5570" in bus.run("smpbus status --json")
    finally:
        bus.run(
            "cat /root/smpbus.toml > /etc/smpbus/smpbus.toml\n"
            "rm -rf /run/systemd/system/smpbus-router.service.d; systemctl daemon-reload\n"
            "systemctl restart smpbus-router"
        )
    bus.wait("both connectors", lambda: sessions(bus) == {"smp", "sys112"})


@pytest.mark.fault("S13")
def test_people_look_and_change_by_their_groups(bus: Machine) -> None:
    """By the guide's groups: one looks, one changes as well, whoever is in neither does nothing."""
    bus.run(
        "useradd --groups smpbus,smpbus-look duty\n"
        "useradd --groups smpbus,smpbus-look,smpbus-change senior\n"
        "useradd --groups smpbus stranger\nsystemctl start smpbus-router"
    )
    bus.wait("the router", lambda: bus.call("smpbus status").returncode == 0)
    change = "smpbus hold smp --reason test && smpbus release smp"
    for user, looks, changes in (
        ("duty", 0, 77), ("senior", 0, 0), ("stranger", 77, 77), ("nobody", 77, 77),
        ("smpbus", 0, 0), ("smpbus-smp", 77, 77),
    ):  # fmt: skip
        for command, status in (("smpbus status", looks), (change, changes)):
            asked = bus.call(command, user=user)
            assert asked.returncode == status, (user, command, asked.stderr)
            if status:
                assert asked.stderr.startswith("ОШИБКА: ")
                assert asked.stderr.count("\n") == 1, asked.stderr
    assert "команда hold: senior (uid " in bus.log("smpbus-router.service")


@pytest.mark.fault("S6")
def test_what_was_everybodys_is_taken_over(bus: Machine) -> None:
    """From an installation with one user for all: the guide's commands and a start give each file
    to its new owner, and the bus goes on with its journal."""
    before = bus.run("smpbus status --json | grep '\"bus\"'")
    bus.run(
        "systemctl stop 'smpbus-*'\n"
        "rm -r /etc/systemd/system/smpbus-connector@smp.service.d; systemctl daemon-reload\n"
        "chown -R smpbus:smpbus /etc/smpbus /var/lib/smpbus\n"
        "chmod 700 /var/lib/smpbus /var/lib/smpbus/shared; chmod 600 /var/lib/smpbus/shared/*\n"
        "systemd-sysusers && systemd-tmpfiles --create smpbus.conf && systemctl daemon-reload\n"
        "systemctl start smpbus.target"
    )
    bus.wait("both connectors", lambda: sessions(bus) == {"smp", "sys112"})
    assert bus.run("smpbus status --json | grep '\"bus\"'") == before
    for name in ("smp", "sys112"):
        assert bus.run(f"find {STATE}/{name} {KEYS}/{name}.key ! -user smpbus-{name}") == ""
    assert bus.run(f"stat -c '%U %a' {STATE}/shared/limit.quota").strip() == "smpbus 660"
