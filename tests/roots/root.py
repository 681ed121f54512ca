"""One clean root: made by debootstrap, used in namespaces of its own, and taken away again."""

import json
import os
import shlex
import shutil
import subprocess
import sys
from pathlib import Path
from typing import IO

from tests.roots.suite import Suite

REPOSITORY = Path(__file__).parents[2]
CERTIFICATES = Path("/etc/ssl/certs/ca-certificates.crt")
SOURCES = "/root/smpbus"
# All that README asks for: "with git and make".
INCLUDED = "ca-certificates,git,make"
# A process table and mounts of its own: they end with the last command, whatever it started.
ENTER = """
set -eu
mount --bind {root} {root}  # tools expect / to be a mount of its own
cd {root}
mount --rbind /sys sys
mount --rbind /dev dev
mount -t proc proc proc
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs -o mode=1777 tmpfs tmp
# Not chroot: who is in one may make no user namespaces, and so run no unit with PrivateUsers=.
mkdir -p .outside
pivot_root . .outside
umount --lazy /.outside
rmdir /.outside
exec /usr/bin/env -i {environment} bash -c {script}
"""


LOOPBACK = "ip link set lo up"


class Root:
    """A root of one suite in `folder`. `close` removes it."""

    def __init__(self, suite: Suite, folder: Path, log: IO[str]) -> None:
        self.suite = suite
        self.path = folder / suite.code
        self._log = log

    def make(self, archive: str, security: str) -> None:
        """Make it, with this machine's settings of apt and pip. Raises CalledProcessError."""
        script = "mount --make-rprivate / && exec debootstrap --variant=minbase " + shlex.join(
            [f"--include={INCLUDED}", self.suite.code, str(self.path), archive]
        )
        self._outside(["unshare", "--mount", "bash", "-c", script], 600)
        lines = [
            f"deb {archive} {self.suite.code} main",
            f"deb {archive} {self.suite.code}-updates main",
        ]
        if security:
            lines.append(f"deb {security} {self.suite.code}-security main")
        if self.suite.family == "ubuntu":
            lines = [f"{line} universe" for line in lines]
        self._write("etc/apt/sources.list", "\n".join(lines) + "\n")
        for name in ("apt.conf", "apt.conf.d", "auth.conf.d"):
            self._copy(Path("/etc/apt") / name)
        self._copy(Path("/etc/resolv.conf"))
        self._copy(Path("/etc/hosts"))
        self._copy_certificates()
        self._write("root/.config/pip/pip.conf", _pip_settings())
        self._outside(
            ["git", "clone", "--quiet", str(REPOSITORY), str(self.path / SOURCES.lstrip("/"))], 120
        )

    def run(self, script: str, timeout_s: float, *, network: bool = False) -> int:
        """Run a script of bash in the checkout in there; return its exit status, 124: no time left.

        Without `network` there is only a loopback of its own.
        """
        inside = script if network else f"{LOOPBACK} && {script}"
        entering = ENTER.format(
            root=shlex.quote(str(self.path)),
            environment=" ".join(f"{key}={shlex.quote(value)}" for key, value in _environment()),
            script=shlex.quote(f"cd {SOURCES} && {inside}"),
        )
        namespaces = ["--mount", "--propagation=private", "--pid", "--fork", "--kill-child"]
        command = ["unshare", *namespaces, *([] if network else ["--net"]), "bash", "-c", entering]
        self._log.write(f"\n$ {script}\n")
        self._log.flush()
        limit = ["timeout", "--kill-after=10", str(int(timeout_s))]
        return subprocess.run(
            [*limit, *command],
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            check=False,
        ).returncode

    def version(self, command: str) -> str:
        """Return the first line that a command prints in there, "-" when it fails."""
        asked = subprocess.run(
            ["chroot", str(self.path), "bash", "-c", command],
            capture_output=True,
            text=True,
            check=False,
        )
        return (asked.stdout.strip().splitlines() or ["-"])[0]

    def close(self) -> None:
        """Remove it."""
        subprocess.run(["rm", "-rf", "--one-file-system", str(self.path)], check=False)

    def _outside(self, command: list[str], timeout_s: float) -> None:
        self._log.write(f"\n$ {shlex.join(command)}\n")
        self._log.flush()
        subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=subprocess.STDOUT,
            timeout=timeout_s,
            check=True,
        )

    def _write(self, name: str, text: str) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text, encoding="utf-8")

    def _copy(self, source: Path) -> None:
        target = self.path / source.relative_to("/")
        if source.is_dir():
            shutil.copytree(source, target, dirs_exist_ok=True)
        elif source.exists():
            shutil.copy(source, target)

    def _copy_certificates(self) -> None:
        """A network's own authority is trusted in there as it is here."""
        if CERTIFICATES.exists():
            shutil.copy(CERTIFICATES, self.path / "etc/ssl/smpbus-roots.crt")


def _environment() -> list[tuple[str, str]]:
    kept = ("http_proxy", "https_proxy", "no_proxy", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY", "CI")
    given = [(key, os.environ[key]) for key in kept if key in os.environ]
    return [
        ("PATH", "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"),
        ("HOME", "/root"),
        ("LANG", "C.UTF-8"),
        ("TERM", "dumb"),
        ("PIP_CERT", "/etc/ssl/smpbus-roots.crt"),
        ("NODE_EXTRA_CA_CERTS", "/etc/ssl/smpbus-roots.crt"),
        ("SMPBUS_IN_ROOT", "1"),
        *given,
    ]


def _pip_settings() -> str:
    """Return what pip is told here about where packages are, without this machine's folders."""
    listed = subprocess.run(
        [sys.executable, "-m", "pip", "config", "list"], capture_output=True, text=True, check=False
    )
    found = {}
    for line in listed.stdout.splitlines():
        key, _, value = line.partition("=")
        name = key.rpartition(".")[2].replace("_", "-")
        if name in ("index-url", "extra-index-url", "trusted-host", "proxy", "timeout"):
            words = json.loads(value.replace("'", '"')).split() if value else []
            found[name] = [word for word in words if not word.startswith(("file:", "/"))]
    lines = [f"{name} = {' '.join(words)}" for name, words in found.items() if words]
    return "\n".join(["[global]", *lines]) + "\n"
