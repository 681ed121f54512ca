"""A machine with systemd as its first process, for the tests of what is shipped for one.

It is a container of systemd-nspawn on this machine's own files: they lie under an overlay, so
nothing that happens in there is written here. It has a network of its own (loopback only), none of
this machine's services, and starts in less than a second.
"""

import os
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
SOURCES = Path("/root/smpbus")  # where the machine has the checkout
PACKAGES = Path("/usr/local/lib/smpbus-packages")  # and the packages of the lock file
BOOT_S = 30.0
STOP_S = 15.0
COMMAND_S = 60.0
DIES_WITH_US = ("setpriv", "--pdeathsig", "KILL")
# Run in a mount namespace of its own: all it mounts is gone with its last process.
START = """
set -eu
mount -t tmpfs -o size=2g,mode=755 tmpfs {folder}
cd {folder}
mkdir upper work root
mount -t overlay -o lowerdir=/,upperdir=upper,workdir=work overlay root
rm -rf root/etc/systemd/system root/etc/rc?.d root/etc/smpbus root/opt/smpbus \
    root/var/lib/smpbus root/var/log/journal
mkdir root/etc/systemd/system
: > root/etc/machine-id
echo smpbus-test > root/etc/hostname
# Without a systemd out here nobody gives the container cgroups of its own.
for group in {groups}; do
    mkdir "$group"
    echo $$ > "$group/cgroup.procs"
done
# What the units deny to addresses is enforced by programs of BPF, in the newer form of cgroups.
export SYSTEMD_NSPAWN_UNIFIED_HIERARCHY=1
exec systemd-nspawn --quiet --boot --directory=root --machine={name} --register=no {keep_unit} \
    --private-network --resolv-conf=off --timezone=off --link-journal=no --console=pipe \
    --kill-signal=SIGRTMIN+3 --system-call-filter=bpf --bind-ro={repository}:{sources} \
    --bind-ro={packages}:{packages_there} {python} systemd.unit=multi-user.target
"""


class CannotBootError(RuntimeError):
    """This machine cannot start another one; the sentence says why and how to mend it."""


def hindrance() -> str:
    """Return in one sentence why no machine can be started here, "" when one can."""
    if os.geteuid() != 0:
        return "only root can start a machine of systemd-nspawn: run the tests as root"
    for program in ("systemd-nspawn", "unshare", "nsenter", "setpriv"):
        if shutil.which(program) is None:
            return f"{program} is missing: apt-get install systemd-container util-linux"
    tried = subprocess.run(
        ["unshare", "--mount", "--net", "true"], capture_output=True, text=True, check=False
    )
    if tried.returncode:
        return (
            f"no namespaces may be made here ({tried.stderr.strip()}): "
            "run the tests on a machine or in a privileged container"
        )
    return ""


class Machine:
    """One running machine. `stop` ends it; nothing of it is left."""

    def __init__(self) -> None:
        reason = hindrance()
        if reason:
            raise CannotBootError(reason)
        self._folder = Path(tempfile.mkdtemp(prefix="unit-machine-"))
        self._console = self._folder.with_suffix(".console")
        name = self._folder.name
        own_systemd = Path("/run/systemd/system").exists()
        self._groups = [] if own_systemd else [root / name for root in _cgroup_roots()]
        script = START.format(
            folder=self._folder,
            groups=" ".join(map(str, self._groups)),
            name=name.replace("_", "x"),
            keep_unit="" if own_systemd else "--keep-unit",
            repository=REPOSITORY,
            sources=SOURCES,
            packages=_site_packages(),
            packages_there=PACKAGES,
            python=_bind_python(),
        )
        with self._console.open("wb") as console:
            self._process = subprocess.Popen(
                [
                    *DIES_WITH_US,
                    "unshare",
                    "--mount",
                    "--propagation=private",
                    "bash",
                    "-c",
                    script,
                ],
                stdin=subprocess.DEVNULL,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self._first = 0
        try:
            self._await_boot()
            self.run(_PREPARE)
        except BaseException:
            self.stop()
            raise

    def _await_boot(self) -> None:
        deadline = time.monotonic() + BOOT_S
        while True:
            self._first = self._first or _first_process(self._process.pid)
            if self._first:
                asked = self._enter(["systemctl", "is-system-running"], 10.0)
                if asked.stdout.strip() in ("running", "degraded"):
                    return
            if self._process.poll() is not None or time.monotonic() > deadline:
                said = self._console.read_text(errors="replace").strip() or "nothing was said"
                raise CannotBootError(
                    f"systemd-nspawn started no machine ({said}): it needs a machine or a "
                    "container with every capability and writable cgroups"
                )
            time.sleep(0.05)

    def _enter(self, command: list[str], timeout_s: float) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["nsenter", f"--target={self._first}", "--all", "--root", *command],
            cwd="/",
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=timeout_s,
            check=False,
            env={
                "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                "HOME": "/root",
                "LANG": "C.UTF-8",
                "SYSTEMD_PAGER": "cat",
                "DEBIAN_FRONTEND": "noninteractive",
            },
        )

    def call(
        self, script: str, *, user: str = "root", timeout_s: float = COMMAND_S
    ) -> subprocess.CompletedProcess[str]:
        """Run a script of the shell in there as `user`, in the sources; return how it ended."""
        as_user = [] if user == "root" else ["runuser", "-u", user, "--"]
        folder = SOURCES if user == "root" else "/"
        shell = ["bash", "-c", f"cd {folder}\n{script}"]
        return self._enter([*as_user, *shell], timeout_s)

    def run(self, script: str, *, timeout_s: float = COMMAND_S) -> str:
        """Run a script as root, line by line until one fails; return what it printed.

        Raises AssertionError with everything it said when it fails.
        """
        ended = self.call(f"set -eo pipefail\n{script}", timeout_s=timeout_s)
        assert ended.returncode == 0, f"{script}\n{ended.stdout}\n{ended.stderr}"
        return ended.stdout

    def show(self, unit: str, *keys: str) -> list[str]:
        """Return properties of a unit, in the order asked for."""
        said = self.run(f"systemctl show {shlex.quote(unit)} {' '.join(f'-p {k}' for k in keys)}")
        rows = dict(line.split("=", 1) for line in said.splitlines() if "=" in line)
        return [rows[key] for key in keys]

    def log(self, unit: str) -> str:
        """Return what a unit has written into the journal of the machine."""
        return self.run(f"journalctl --no-pager -o cat -u {shlex.quote(unit)}")

    def wait(self, what: str, holds: Callable[[], bool], patience_s: float = 40.0) -> None:
        """Return when `holds`; fail with what the units said after `patience_s`."""
        deadline = time.monotonic() + patience_s
        while not holds():
            if time.monotonic() > deadline:
                said = self.run("journalctl --no-pager -o short -n 60")
                raise AssertionError(f"waited in vain for: {what}\n{said}")
            time.sleep(0.3)

    def stop(self) -> None:
        """Power it off; kill what does not go, remove what is left of it."""
        for signum in (signal.SIGTERM, signal.SIGKILL):
            if self._process.poll() is None:
                self._process.send_signal(signum)
                try:
                    self._process.wait(STOP_S)
                except subprocess.TimeoutExpired:
                    continue
        for group in self._groups:
            _remove_cgroup(group)
        self._console.unlink(missing_ok=True)
        shutil.rmtree(self._folder, ignore_errors=True)  # empty: what was mounted is gone


# The packages are there before the guide's `pip install` asks for them, since the machine has no
# network: it finds them installed. The program itself is built and installed by that command.
_PREPARE = f"""
if [ -d /opt/python ]; then
    printf '#!/bin/sh\\nexec /opt/python/bin/python3 "$@"\\n' > /usr/local/bin/python3
    chmod 755 /usr/local/bin/python3
    echo /opt/python/lib > /etc/ld.so.conf.d/smpbus-test.conf
    ldconfig
fi
venv=/opt/smpbus/0.1.0
seed=$venv/lib/python$(python3 -c 'import sys; print("%d.%d" % sys.version_info[:2])')/site-packages
mkdir -p $seed $venv/bin
echo {PACKAGES} > $seed/seed.pth
script() {{
    printf '#!%s/bin/python\\nfrom %s import main\\nmain()\\n' $venv $2 > $venv/bin/$1
    chmod 755 $venv/bin/$1
}}
script pip pip._internal.cli.main
script supervisord supervisor.supervisord
script supervisorctl supervisor.supervisorctl
"""


def _cgroup_roots() -> list[Path]:
    mounted = (
        Path("/sys/fs/cgroup"),
        Path("/sys/fs/cgroup/systemd"),
        Path("/sys/fs/cgroup/unified"),
    )
    return [path for path in mounted if (path / "cgroup.procs").exists()]


def _remove_cgroup(group: Path) -> None:
    """Remove a control group and those below it, once they are empty."""
    for path, _, _ in os.walk(group, topdown=False):
        for _ in range(50):
            try:
                os.rmdir(path)
                break
            except OSError:  # its last process is on its way out
                time.sleep(0.05)


def _first_process(ancestor: int) -> int:
    """Return the process that the container sees as 1: the child of systemd-nspawn; 0: none yet."""
    children = Path(f"/proc/{ancestor}/task/{ancestor}/children")
    try:
        if Path(f"/proc/{ancestor}/comm").read_text().strip() != "systemd-nspawn":
            return 0
        found = [int(pid) for pid in children.read_text().split()]
    except OSError:
        return 0
    for pid in found:
        try:
            command = Path(f"/proc/{pid}/comm").read_text().strip()
        except OSError:
            continue
        if command == "systemd":
            return pid
    return 0


def _site_packages() -> Path:
    return Path(next(path for path in sys.path if path.endswith("site-packages")))


def _bind_python() -> str:
    """Return what gives the machine this Python, if its own is another.

    What the lock file names differs from version to version.
    """
    own = subprocess.run(
        ["/usr/bin/python3", "-c", "import sys; print(*sys.version_info[:3])"],
        capture_output=True,
        text=True,
        check=False,
    )
    if own.stdout.split() == [str(part) for part in sys.version_info[:3]]:
        return ""
    return f"--bind-ro={sys.base_prefix}:/opt/python"
