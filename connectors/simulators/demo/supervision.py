"""The demo's supervisor: the shipped programs of config/supervisor/ with this folder's paths, and
the partners' simulators beside them."""

import contextlib
import os
import re
import shlex
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Final

from connectors.simulators.demo.folder import DemoFolder
from proto.configuration.shipped import shipped_folder
from proto.wording import language

SMPBUS: Final = Path(sys.executable).with_name("smpbus")
SUPERVISORD: Final = Path(sys.executable).with_name("supervisord")
STOP_S: Final = 60.0
# Left out where an ordinary user runs it: they need root, or limits that only root may raise.
_ROOT_ONLY: Final = ("user=", "minfds=")
_SIMULATOR: Final = """\
; Plays the partner of the connector {name}; only the demo has it.
[program:sim-{name}]
command=/opt/smpbus/current/bin/smpbus sim {name} {options}
priority=30
autorestart=unexpected
exitcodes=0
startsecs=1
stopasgroup=true
killasgroup=true
stdout_logfile=NONE
stderr_logfile=/var/log/smpbus/sim-{name}.log
"""


def render(folder: DemoFolder, simulators: dict[str, str]) -> Path:
    """Write supervisor's configuration and return its path.

    `simulators` are the options of each simulator by its partner's name.
    """
    shipped = shipped_folder() / "supervisor"
    target = folder.config / "supervisor"
    (target / "programs").mkdir(parents=True, exist_ok=True)
    for source in sorted(shipped.rglob("*.conf")):
        written = target / source.relative_to(shipped)
        written.write_text(with_paths(source.read_text(encoding="utf-8"), folder), "utf-8")
    for name, options in simulators.items():
        program = _SIMULATOR.format(name=name, options=options.replace("%", "%%"))
        written = target / "programs" / f"sim-{name}.conf"
        written.write_text(with_paths(program, folder), "utf-8")
    return target / "smpbus.conf"


def with_paths(shipped: str, folder: DemoFolder) -> str:
    """Return a shipped supervisor file with the paths of a demo folder.

    Logs are relative to the folder, where supervisord runs: of a program's log, and only there,
    supervisor expands "%" twice.
    """
    paths = {
        "/opt/smpbus/current/bin/smpbus": SMPBUS,
        "/etc/smpbus/smpbus.toml": folder.settings,
        "/var/log/smpbus": folder.logs.relative_to(folder.path),
        "/run/smpbus": folder.run,
    }
    pattern = re.compile("|".join(map(re.escape, paths)))
    lines = []
    for line in shipped.splitlines():
        if line.startswith(_ROOT_ONLY):
            continue
        command = line.startswith("command=")

        def here(match: re.Match[str], command: bool = command) -> str:
            path = str(paths[match[0]]).replace("%", "%%")
            return shlex.quote(path) if command else path

        lines.append(pattern.sub(here, line))
    return "\n".join(lines) + "\n"


class Supervisor:
    """One running supervisord; in a session of its own, so that Ctrl-C reaches only us."""

    def __init__(self, folder: DemoFolder, conf: Path) -> None:
        self._folder = folder
        with (folder.logs / "supervisor.log").open("ab") as output:
            self._process = subprocess.Popen(
                [str(SUPERVISORD), "--nodaemon", "--silent", "--configuration", str(conf)],
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
                cwd=folder.path,
                env=environment(),
                start_new_session=True,
            )

    @property
    def running(self) -> bool:
        """Whether supervisord itself still lives."""
        return self._process.poll() is None

    def children(self) -> list[int]:
        """Return the pids of the programs."""
        pid = self._process.pid
        with contextlib.suppress(OSError):
            return [int(word) for word in _read(f"/proc/{pid}/task/{pid}/children").split()]
        return []

    def stop(self) -> list[int]:
        """Stop every program in order; return the pids that had to be killed."""
        children = self.children()
        self._process.terminate()
        try:
            self._process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        left = [pid for pid in children if _is_orphan(pid, self._folder.path)]
        for pid in left:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        return left


def environment() -> dict[str, str]:
    """Return the environment of the demo's programs: nothing that would change their settings."""
    kept = {
        name: value
        for name, value in os.environ.items()
        if not name.startswith("SMPBUS_") and name not in ("NOTIFY_SOCKET", "WATCHDOG_USEC")
    }
    return kept | {"SMPBUS_LANG": language()}


def stop_leftover(folder: DemoFolder) -> bool:
    """Stop the supervisord of a demo that was killed in this folder; return whether one was."""
    conf = folder.config / "supervisor" / "smpbus.conf"
    try:
        pid = int(_read(folder.run / "supervisord.pid"))
        arguments = _read(f"/proc/{pid}/cmdline").split("\0")
    except (OSError, ValueError):
        return False
    if str(conf) not in arguments:
        return False
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + STOP_S
    while time.monotonic() < deadline and Path(f"/proc/{pid}").exists():
        time.sleep(0.1)
    return True


def _is_orphan(pid: int, folder: Path) -> bool:
    """Whether `pid` is a program of this demo folder that lives on without its supervisor."""
    with contextlib.suppress(OSError):
        return str(folder) in _read(f"/proc/{pid}/cmdline")
    return False


def _read(path: str | Path) -> str:
    return Path(path).read_text(encoding="utf-8", errors="replace")
