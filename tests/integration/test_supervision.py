"""The programs under real supervision: supervisord with the shipped programs, and the systemd units
as systemd itself judges them."""

import configparser
import os
import re
import shutil
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from connectors.simulators.demo.folder import DemoFolder, open_folder
from connectors.simulators.demo.supervision import SMPBUS, Supervisor, render
from proto.ops import OpsError, ops_request
from tests.until import wait_for

REPOSITORY = Path(__file__).parents[2]
UNITS = REPOSITORY / "systemd"
PROGRAMS = REPOSITORY / "config" / "supervisor" / "programs"
CONNECTORS = {"sys112", "smp", "ats", "rmis", "remd", "vimis", "rmr", "tfoms"}
PROGRAM_COUNT = 1 + len(CONNECTORS)
PATIENCE_S = 30.0
# Exposure at most 1.2 (systemd-analyze counts tenths).
EXPOSURE_MAX = 12


def router_pid(folder: DemoFolder) -> int:
    """Return the pid of the router that answers, 0 when none does."""
    try:
        return int(ops_request(folder.ops, "status")["pid"])
    except OpsError:
        return 0


def sessions(folder: DemoFolder) -> set[str]:
    """Return who is on the bus."""
    try:
        return {row["name"] for row in ops_request(folder.ops, "sessions")["sessions"]}
    except OpsError:
        return set()


def command_lines() -> dict[int, str]:
    """Return the command line of every process of this machine by its pid."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                found[int(entry.name)] = (entry / "cmdline").read_text().replace("\0", " ")
            except OSError:
                continue
    return found


def processes_of(folder: DemoFolder) -> list[str]:
    """Return the command lines that name this folder."""
    return [line for line in command_lines().values() if str(folder.path) in line]


@pytest.fixture
def folder(tmp_path: Path) -> Iterator[DemoFolder]:
    """A prepared folder in a path with what supervisor gives a meaning of its own: space and %."""
    opened = open_folder(tmp_path / "a 100% bus")
    opened.prepare()
    yield opened
    opened.close()


@pytest.fixture
def supervisor(folder: DemoFolder) -> Iterator[Supervisor]:
    """A running supervisord with the shipped programs: the router and the connectors."""
    running = Supervisor(folder, render(folder, {}))
    try:
        wait_for(lambda: sessions(folder) == CONNECTORS, "all connectors on the bus", PATIENCE_S)
        yield running
    finally:
        running.stop()


class TestSupervisor:
    def test_a_killed_router_is_started_again_and_connectors_return(
        self, folder: DemoFolder, supervisor: Supervisor
    ) -> None:
        killed = router_pid(folder)
        connectors = set(supervisor.children()) - {killed}

        os.kill(killed, signal.SIGKILL)

        wait_for(lambda: router_pid(folder) not in (0, killed), "another router", PATIENCE_S)
        wait_for(lambda: sessions(folder) == CONNECTORS, "all connectors on the bus", PATIENCE_S)
        assert connectors < set(supervisor.children()), "a connector was restarted with the router"

    def test_a_killed_connector_is_started_again(
        self, folder: DemoFolder, supervisor: Supervisor
    ) -> None:
        router = router_pid(folder)
        lines = command_lines()
        (killed,) = (pid for pid in supervisor.children() if "connector sys112" in lines[pid])

        os.kill(killed, signal.SIGKILL)

        wait_for(lambda: killed not in supervisor.children(), "its end", PATIENCE_S)
        wait_for(lambda: len(supervisor.children()) == PROGRAM_COUNT, "all programs", PATIENCE_S)
        wait_for(lambda: sessions(folder) == CONNECTORS, "all connectors on the bus", PATIENCE_S)
        assert router_pid(folder) == router

    def test_stop_is_clean(self, folder: DemoFolder, supervisor: Supervisor) -> None:
        children = supervisor.children()

        assert supervisor.stop() == []

        assert not supervisor.running
        assert len(children) == PROGRAM_COUNT
        assert not set(children) & set(command_lines())
        assert processes_of(folder) == []
        log = (folder.logs / "supervisord.log").read_text(encoding="utf-8")
        assert len(re.findall(r"stopped: \w+ \(exit status 0\)", log)) == PROGRAM_COUNT, log


class TestShippedPrograms:
    def test_there_is_one_program_per_file_under_its_name(self) -> None:
        assert {path.stem for path in PROGRAMS.glob("*.conf")} == {"router", *CONNECTORS}
        for path in PROGRAMS.glob("*.conf"):
            assert program(path).name == f"program:{path.stem}"

    @pytest.mark.parametrize("name", ["router", *sorted(CONNECTORS)])
    def test_settings_that_matter(self, name: str) -> None:
        section = program(PROGRAMS / f"{name}.conf")
        wanted = {
            "autorestart": "unexpected",
            "exitcodes": "0",
            "startsecs": "10",
            "stopwaitsecs": "40",
            "stopasgroup": "true",
            "killasgroup": "true",
            "redirect_stderr": "false",
            "stdout_logfile": "NONE",
        }
        assert {key: section[key] for key in wanted} == wanted

    def test_the_control_socket_is_for_its_owner_only(self) -> None:
        text = (PROGRAMS.parent / "smpbus.conf").read_text(encoding="utf-8")
        assert "chmod=0700" in text
        assert "inet_http_server" not in text

    def test_rendering_leaves_no_path_of_the_server(self, folder: DemoFolder) -> None:
        conf = render(folder, {"sys112": "--listen 127.0.0.1:1"})
        for path in conf.parent.rglob("*.conf"):
            settings = [
                line for line in path.read_text("utf-8").splitlines() if not line.startswith(";")
            ]
            text = "\n".join(settings).replace(str(folder.path).replace("%", "%%"), "")
            assert not re.search(r"/opt/smpbus|/etc/smpbus|/var/log/smpbus|/run/smpbus", text), path
            assert "user=" not in text


def program(path: Path) -> configparser.SectionProxy:
    """Return the only section of a shipped program's file."""
    parser = configparser.RawConfigParser()
    parser.read(path, encoding="utf-8")
    (name,) = parser.sections()
    return parser[name]


class TestSystemd:
    @pytest.mark.parametrize("unit", ["smpbus-router.service", "smpbus-connector@.service"])
    def test_exposure(self, unit: str) -> None:
        judged = subprocess.run(
            [
                "systemd-analyze",
                "security",
                "--offline=true",
                f"--threshold={EXPOSURE_MAX}",
                "--no-pager",
                str(UNITS / unit),
            ],
            capture_output=True,
            text=True,
            check=False,
        )
        assert judged.returncode == 0, judged.stdout + judged.stderr
        assert "Overall exposure level" in judged.stdout + judged.stderr

    def test_verify(self, tmp_path: Path) -> None:
        for path in (*UNITS.glob("*.service"), UNITS / "smpbus.target"):
            shutil.copy(path, tmp_path)
            copy = tmp_path / path.name
            text = copy.read_text(encoding="utf-8")
            copy.write_text(text.replace("/opt/smpbus/current/bin/smpbus", str(SMPBUS)), "utf-8")
        units = sorted(str(path) for path in tmp_path.iterdir())
        assert len(units) == 3
        verified = subprocess.run(
            ["systemd-analyze", "verify", "--man=no", *units],
            capture_output=True,
            text=True,
            check=False,
        )
        assert (verified.returncode, verified.stdout, verified.stderr) == (0, "", "")

    @pytest.mark.parametrize("unit", ["smpbus-router.service", "smpbus-connector@.service"])
    def test_libzmq_may_set_the_policy_of_its_threads(self, unit: str) -> None:
        """Denied that call libzmq 4.3.5 aborts (thread.cpp), so the unit would never start: it is
        told that the call went well (errno 0), and no call is made."""
        lines = (UNITS / unit).read_text(encoding="utf-8").splitlines()
        filters = [line for line in lines if line.startswith("SystemCallFilter=")]
        assert filters[-1] == "SystemCallFilter=~sched_setscheduler:0"

    def test_a_connector_does_not_fall_with_the_router(self) -> None:
        text = (UNITS / "smpbus-connector@.service").read_text(encoding="utf-8")
        assert not re.search(r"^(Requires|BindsTo|Requisite)=", text, re.MULTILINE)

    @pytest.mark.parametrize("unit", ["smpbus-router.service", "smpbus-connector@.service"])
    def test_restarts_for_ever_but_not_with_wrong_settings(self, unit: str) -> None:
        lines = (UNITS / unit).read_text(encoding="utf-8").splitlines()
        for wanted in (
            "Type=notify",
            "WatchdogSec=10",
            "Restart=always",
            "RestartSec=1",
            "StartLimitIntervalSec=0",
            "RestartPreventExitStatus=64 78",
            "LimitNOFILE=65536",
        ):
            assert wanted in lines

    def test_snippets_name_the_user_of_the_units(self) -> None:
        users = (UNITS / "sysusers.d" / "smpbus.conf").read_text(encoding="utf-8")
        folders = (UNITS / "tmpfiles.d" / "smpbus.conf").read_text(encoding="utf-8")
        assert re.search(r"^u smpbus ", users, re.MULTILINE)
        owners = re.findall(r"^d (\S+) +(\d+) (\S+) +(\S+) +-$", folders, re.MULTILINE)
        assert owners == [
            ("/etc/smpbus", "0750", "root", "smpbus"),
            ("/etc/smpbus/keys", "0750", "root", "smpbus"),
            ("/etc/smpbus/tokens", "0750", "root", "smpbus"),
            ("/var/lib/smpbus", "0711", "smpbus", "smpbus"),
            ("/var/lib/smpbus/shared", "0770", "smpbus", "smpbus"),
            ("/var/log/smpbus", "0750", "smpbus", "smpbus"),
            ("/run/smpbus", "0750", "smpbus", "smpbus"),
            ("/run/smpbus/ops", "2750", "smpbus", "smpbus-look"),
        ]
