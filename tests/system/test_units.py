"""The shipped units under a systemd that really runs them, as the guide installs them."""

import json
import shlex
from functools import partial
from pathlib import Path

import pytest

from tests.system.guide import commands
from tests.system.machine import Machine

CONNECTORS = (
    *("sys112", "cssi112", "smp", "smpsql", "ats", "rmis", "rmr", "tfoms", "remd", "vimis"),
    *("external", "replication"),
)
LISTEN = "ipc:///run/smpbus/bus.sock"
SETTINGS = Path(__file__).with_name("settings.sh")
# The register of workers, as its simulator plays it, behind TLS.
PARTNER = """
import uvicorn
from connectors.simulators.rmr.simulator import create_app
from connectors.simulators.kit.simulation import SimulatorSettings
uvicorn.run(
    create_app(SimulatorSettings()),
    host="0.0.0.0",
    port=8116,
    ssl_keyfile="/etc/smpbus/keys/documents.key",
    ssl_certfile="/etc/smpbus/keys/documents.pem",
)
"""
# A peer of the bus: it ends well when the router has welcomed it at the address given.
PEER = """
import asyncio, sys
from pathlib import Path
from proto import BusClient
keys = Path("/etc/smpbus/keys")
async def main():
    async with BusClient(name="admin", key=keys / "admin.key", address=sys.argv[1],
                         server_key=keys / "router.pub"):
        pass
asyncio.run(asyncio.wait_for(main(), 15))
"""
PYTHON = "/opt/smpbus/current/bin/python"


def connector(name: str) -> str:
    """Return the unit of a connector."""
    return f"smpbus-connector@{name}.service"


def pid_of(machine: Machine, unit: str) -> int:
    """Return the process id of a unit that runs, as the machine numbers them."""
    pid = int(machine.show(unit, "MainPID")[0])
    assert pid > 1, f"{unit} does not run\n{machine.log(unit)}"  # kill 0 would end the tests
    return pid


def sessions(machine: Machine) -> set[str]:
    """Return who is on the bus."""
    asked = machine.call("smpbus sessions --json")
    if asked.returncode:
        return set()
    return {row["name"] for row in json.loads(asked.stdout)["sessions"]}


def answers(machine: Machine, name: str) -> bool | None:
    """Return whether the partner of a connector answers, as the bus tells it; None: not known."""
    for row in json.loads(machine.call("smpbus partners --json").stdout)["partners"]:
        if row["connector"] == name and row["partners"]:
            up: bool | None = row["partners"][0]["up"]
            return up
    return None


def running(machine: Machine, unit: str, old: int) -> bool:
    """Whether a unit is up with another process than `old`."""
    state, pid = machine.show(unit, "ActiveState", "MainPID")
    return state == "active" and int(pid) not in (0, old)


def listen_at(machine: Machine, *addresses: str) -> None:
    """Set where the router listens and start it there."""
    value = json.dumps([LISTEN, *addresses])
    machine.run(
        f"sed -i -E 's|^(# )?listen = \\[.*ipc:.*|listen = '{shlex.quote(value)}'|' "
        "/etc/smpbus/smpbus.toml\nsmpbus config check\nsystemctl restart smpbus-router"
    )


@pytest.fixture(scope="module")
def bus(machine: Machine) -> Machine:
    """The bus at work on the machine, with every connector that there is a folder of."""
    for block in commands("Общий кэш запросов"):
        machine.run(block)
    machine.run(SETTINGS.read_text(encoding="utf-8"))
    machine.run(
        "smpbus external token medevac\n"
        "systemd-run --unit=memcached-test memcached -u nobody -l 127.0.0.1\n"
        f"echo {shlex.quote(PARTNER)} > /root/partner.py\n"
        f"systemd-run --unit=partner {PYTHON} /root/partner.py"
    )
    machine.run(commands("3. Запуск")[0])
    machine.run(f"systemctl enable --now {' '.join(map(connector, CONNECTORS))}")
    machine.wait("every connector on the bus", lambda: sessions(machine) == set(CONNECTORS))
    return machine


class TestStart:
    @pytest.mark.fault("C1")
    def test_every_connector_starts_in_the_walls_of_its_unit(self, bus: Machine) -> None:
        """The exchange's connector could not: its file of live calls lay outside its folder."""
        for unit in ("smpbus-router.service", *map(connector, CONNECTORS)):
            assert bus.show(unit, "ActiveState", "NRestarts") == ["active", "0"], bus.log(unit)

    def test_a_partner_is_found_by_name_and_asked_by_tls(self, bus: Machine) -> None:
        bus.wait("an answer of the register", lambda: answers(bus, "rmr") is True)

    def test_a_partner_elsewhere_is_behind_the_wall_until_it_is_let_in(self, bus: Machine) -> None:
        """Only this machine may be spoken to; the guide says how to allow more."""
        bus.run(
            "ip address add 192.0.2.1/32 dev lo\n"
            "sed -i 's/^127.0.0.1 register.test/192.0.2.1 register.test/' /etc/hosts\n"
            "systemctl restart smpbus-connector@rmr"
        )
        bus.wait("the loss of the register", lambda: answers(bus, "rmr") is False)

        drop_in = "[Service]\\nIPAddressAllow=192.0.2.1\\n"
        folder = "/etc/systemd/system/smpbus-connector@rmr.service.d"
        bus.run(
            f"mkdir {folder}; printf '{drop_in}' > {folder}/override.conf\n"
            "systemctl daemon-reload; systemctl restart smpbus-connector@rmr"
        )

        bus.wait("an answer of the register", lambda: answers(bus, "rmr") is True)

    def test_what_they_write_belongs_to_their_user_alone(self, bus: Machine) -> None:
        found = bus.run(
            "find /var/lib/smpbus -maxdepth 1 ! -type d '(' ! -user smpbus -o -perm /077 ')'\n"
            "find /var/lib/smpbus/* /run/smpbus -perm /007\n"
            "find /etc/smpbus/keys -name '*.key' -perm /077"
        )
        assert found == ""
        for name in CONNECTORS:
            assert bus.run(f"find /var/lib/smpbus/{name} ! -user smpbus-{name}") == "", name
        for name in ("sys112", "rmis", "rmr", "tfoms", "remd"):
            assert bus.run(f"ls /var/lib/smpbus/{name}"), name

    def test_they_wait_for_the_network_and_the_clock_at_boot(self, bus: Machine) -> None:
        """A server's own address is there, and its clock is right, only after these."""
        for unit in ("smpbus-router.service", connector("sys112")):
            after = bus.show(unit, "After")[0].split()
            assert {"network-online.target", "time-set.target", "time-sync.target"} <= set(after)


class TestWhoMayAsk:
    @pytest.mark.fault("B1")
    def test_who_may_not_ask_is_told_so(self, bus: Machine) -> None:
        asked = bus.call("smpbus status", user="nobody")

        assert asked.returncode == 77, asked.stderr
        assert asked.stderr.startswith("ОШИБКА: ")
        assert asked.stderr.count("\n") == 1, asked.stderr

    def test_a_group_may_ask_when_the_settings_say_so(self, bus: Machine) -> None:
        bus.run(
            "useradd --groups smpbus duty\n"
            "sed -i 's/^# look = .*/look = [\"duty\"]/' /etc/smpbus/smpbus.toml\n"
            "smpbus reload"
        )
        assert bus.call("smpbus status", user="duty").returncode == 77  # the folder is closed
        bus.run("usermod --append --groups smpbus-look duty")

        asked = bus.call("smpbus status", user="duty")

        assert asked.returncode == 0, asked.stderr


class TestAddresses:
    @pytest.mark.fault("C1")
    @pytest.mark.parametrize(
        ("listen", "peer"),
        [
            ("tcp://127.0.0.1:5570", "tcp://127.0.0.1:5570"),
            ("tcp://[::1]:5570", "tcp://[::1]:5570"),
            ("tcp://*:5570", "tcp://127.0.0.1:5570"),
        ],
    )
    def test_the_router_listens_on_tcp(self, bus: Machine, listen: str, peer: str) -> None:
        """The router died of each `tcp://ADDRESS:PORT`, since libzmq may not ask for the network's
        interfaces in there: it starts at once, and peers come in."""
        listen_at(bus, listen)

        bus.run(f"{PYTHON} -c {shlex.quote(PEER)} {shlex.quote(peer)}")

        assert bus.show("smpbus-router", "ActiveState", "NRestarts") == ["active", "0"]

    @pytest.mark.fault("C1")
    def test_an_address_that_comes_late_at_boot_is_waited_for(self, bus: Machine) -> None:
        """At boot the router was started before the server had its address; status 78 is not tried
        again, so the bus stayed down: it is started when the network is up."""
        bus.run(
            "cat > /etc/systemd/system/late-network.service <<'END'\n"
            "[Unit]\nBefore=network-online.target\n"
            "[Service]\nType=oneshot\nRemainAfterExit=yes\n"
            "ExecStart=/bin/sh -c 'sleep 2; ip address add 10.99.0.1/8 dev lo'\n"
            "[Install]\nWantedBy=network-online.target\nEND\n"
            "systemctl stop smpbus-router network-online.target\n"
            "systemctl enable late-network\n"
            "folder=/etc/systemd/system/smpbus-router.service.d; mkdir $folder\n"
            "printf '[Service]\\nIPAddressAllow=10.99.0.1\\n' > $folder/override.conf\n"
            "systemctl daemon-reload"
        )
        listen_at(bus, "tcp://10.99.0.1:5570")

        assert bus.show("smpbus-router", "ActiveState", "NRestarts") == ["active", "0"]
        bus.run(f"{PYTHON} -c {shlex.quote(PEER)} tcp://10.99.0.1:5570")


class TestSupervision:
    def test_who_is_killed_or_hangs_is_started_again(self, bus: Machine) -> None:
        """The watchdog ends what hangs (SIGSTOP), Restart= brings back what was killed."""
        killed, hanging = connector("ats"), ("smpbus-router.service", connector("smp"))
        before = {unit: pid_of(bus, unit) for unit in (killed, *hanging)}

        bus.run(f"kill -KILL {before[killed]}")
        bus.run(f"kill -STOP {' '.join(str(before[unit]) for unit in hanging)}")

        for unit in (killed, *hanging):
            bus.wait(f"another {unit}", partial(running, bus, unit, before[unit]))
        assert "watchdog" in bus.log("smpbus-router.service").lower()
        bus.wait("every connector on the bus", lambda: sessions(bus) == set(CONNECTORS))

    @pytest.mark.parametrize("unit", ["smpbus-router.service", connector("exit")])
    def test_what_a_restart_cannot_mend_is_left_alone(self, bus: Machine, unit: str) -> None:
        """Statuses 64 and 78 end it for good; 69, 74, 75 and 77 are tried again."""
        # By the guide's words for a connector of one's own.
        bus.call("useradd --system --no-create-home --gid smpbus smpbus-exit")
        bus.run(f"systemctl stop {unit}; mkdir -p /run/systemd/system/{unit}.d")
        try:
            for status in (64, 78, 69, 74, 75, 77):
                bus.run(
                    f"cat > /run/systemd/system/{unit}.d/exit.conf <<'END'\n"
                    f"[Service]\nRestartSec=0\nExecStart=\nExecStart=/bin/sh -c 'exit {status}'\n"
                    "END\nsystemctl daemon-reload\n"
                    f"systemctl reset-failed {unit} || true; systemctl start --no-block {unit}"
                )
                if status in (64, 78):
                    bus.wait(
                        f"its end by {status}", lambda: bus.show(unit, "SubState") == ["failed"]
                    )
                    assert bus.show(unit, "ExecMainStatus", "NRestarts") == [str(status), "0"]
                else:
                    bus.wait(
                        f"another try after {status}", lambda: bus.show(unit, "NRestarts") > ["2"]
                    )
                    bus.run(f"systemctl stop {unit}")
        finally:
            bus.run(f"rm -r /run/systemd/system/{unit}.d; systemctl daemon-reload")
            bus.run("systemctl start smpbus-router")

    def test_wrong_settings_are_named_once(self, bus: Machine) -> None:
        bus.run("cp /etc/smpbus/smpbus.toml /root/; echo '[store]' >> /etc/smpbus/smpbus.toml")
        try:
            bus.call("systemctl restart smpbus-router")
            bus.wait("its end", lambda: bus.show("smpbus-router", "SubState") == ["failed"])
            assert bus.show("smpbus-router", "ExecMainStatus", "NRestarts") == ["78", "0"]
            assert "ОШИБКА" in bus.log("smpbus-router.service")
        finally:
            bus.run(
                "cat /root/smpbus.toml > /etc/smpbus/smpbus.toml\n"
                "systemctl reset-failed smpbus-router; systemctl start smpbus-router"
            )
        bus.wait("every connector on the bus", lambda: sessions(bus) == set(CONNECTORS))

    def test_reload_takes_new_routes_without_a_restart(self, bus: Machine) -> None:
        before = pid_of(bus, "smpbus-router")
        bus.run("printf '\\n[destinations.added]\\n' >> /etc/smpbus/routes.toml")

        bus.run("systemctl reload smpbus-router")

        bus.wait("the new queue", lambda: "added" in bus.call("smpbus queues").stdout)
        assert pid_of(bus, "smpbus-router") == before

    def test_stop_is_in_order_and_in_time(self, bus: Machine) -> None:
        """The guide's command before an update: it returns when the journal is closed."""
        units = ["smpbus-router.service", *map(connector, CONNECTORS)]

        bus.run(commands("7. Обновление")[0], timeout_s=40.0)

        for unit in units:
            ended = bus.show(unit, "ActiveState", "Result", "ExecMainStatus")
            assert ended == ["inactive", "success", "0"], bus.log(unit)
        bus.run("test -s /var/backups/smpbus/journal.db; systemctl start smpbus.target")
        bus.wait("every connector on the bus", lambda: sessions(bus) == set(CONNECTORS))

        bus.run(commands("Вернуть журнал из копии")[0], timeout_s=40.0)
        bus.wait("every connector on the bus", lambda: sessions(bus) == set(CONNECTORS))
