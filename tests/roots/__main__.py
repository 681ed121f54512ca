"""make test-roots [ARGS="trixie bookworm noble"]: a clean root of each suite, README's two commands
in each, and a table of how they ended. Needs root and debootstrap."""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

from tests.roots.root import Root
from tests.roots.suite import SUITES, Suite, archive_of, security_of

FREE_BYTES_MIN = 6 * 1024**3
MINUTES = 25  # for one suite, all of it
# What README says the commands do first by themselves. It needs the network; they do not.
PREPARE = (
    "make packages .venv/.installed-from-lock proto/clients/node/node_modules/.package-lock.json"
)
RUN = "make run ARGS=--once"
# What fails is tried once more, alone: the log names what was short of time on a busy machine.
TEST = 'make test || make test ARGS="--last-failed --last-failed-no-failures none -n 0"'
VERSIONS = {
    "Python": "python3 -c 'import platform; print(platform.python_version())'",
    "PostgreSQL": "ls /usr/lib/postgresql",
    "PgBouncer": "pgbouncer -V | grep -o '[0-9.]*' | head -1",
    "PHP": "php -r 'echo PHP_VERSION;'",
    "Node": "node --version",
    "memcached": "memcached -V | grep -o '[0-9.]*'",
    "systemd": "systemd-analyze --version | grep -o '[0-9]*' | head -1",
}


@dataclass
class Outcome:
    """What became of one suite: a row of the table."""

    suite: Suite
    verdict: str = "not reached: no archive that apt uses here has it"
    steps: str = ""
    versions: str = ""
    ok: bool | None = None  # None: not reached


def try_suite(suite: Suite, folder: Path, logs: Path, *, keep: bool) -> Outcome:
    """Make the root, run both commands in it, take it away unless it is to be kept."""
    outcome = Outcome(suite)
    archive = archive_of(suite, folder)
    if not archive:
        return outcome
    outcome.ok = False
    log_path = logs / f"{suite.code}.log"
    print(f"== {suite.title}: its log is {log_path}", flush=True)
    deadline = time.monotonic() + MINUTES * 60
    with log_path.open("w", encoding="utf-8") as log:
        root = Root(suite, folder, log)
        try:
            steps = []
            begun = time.monotonic()
            root.make(archive, security_of(suite, folder))
            steps.append(f"root {time.monotonic() - begun:.0f} s")
            outcome.verdict = "OK"
            for name, script in (("packages", PREPARE), ("run", RUN), ("test", TEST)):
                begun = time.monotonic()
                left = max(1.0, deadline - begun)
                status = root.run(script, left, network=script == PREPARE)
                steps.append(f"{name} {time.monotonic() - begun:.0f} s")
                print(f"   {suite.title}: {steps[-1]}, status {status}", flush=True)
                if status:
                    why = "no time left" if status in (124, 137) else f"status {status}"
                    outcome.verdict = f"FAILED: {script}: {why}"
                    break
            outcome.steps = ", ".join(steps)
            outcome.versions = ", ".join(
                f"{name} {root.version(command)}" for name, command in VERSIONS.items()
            )
            outcome.ok = outcome.verdict == "OK"
        except (subprocess.CalledProcessError, subprocess.TimeoutExpired) as error:
            outcome.verdict = f"FAILED: no root could be made: {error}"
        finally:
            if not keep:
                root.close()
    said = log_path.read_text(encoding="utf-8", errors="replace")
    if passed := re.findall(r"^\d+ passed.*$|^\d+ failed.*$", said, re.MULTILINE):
        outcome.verdict += f" ({passed[-1]})"
    if not outcome.ok:
        print("\n".join(said.splitlines()[-60:]), flush=True)
    return outcome


def table(outcomes: list[Outcome]) -> str:
    """Return the table."""
    lines = ["| system | verdict | times | versions |", "| --- | --- | --- | --- |"]
    lines += [
        f"| {one.suite.title} | {one.verdict} | {one.steps} | {one.versions} |" for one in outcomes
    ]
    return "\n".join(lines)


def main() -> int:
    """Return 0 when every suite that is reached is right, and at least one is."""
    parser = argparse.ArgumentParser(prog="make test-roots", description=__doc__)
    codes = [suite.code for suite in SUITES]
    parser.add_argument("suites", nargs="*", metavar="suite", help=f"of {', '.join(codes)}; all")
    parser.add_argument(
        "--keep", metavar="FOLDER", help="leave the roots in this folder, to look into"
    )
    given = parser.parse_args()
    chosen = given.suites or codes
    if unknown := set(chosen) - set(codes):
        parser.error(
            f"there is no suite {', '.join(sorted(unknown))}; there are {', '.join(codes)}"
        )
    if os.geteuid() != 0:
        print("make test-roots: only root can make a root; run it as root", file=sys.stderr)
        return 1
    logs = Path(tempfile.gettempdir()) / "clean-roots-logs"
    logs.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="clean-roots-", ignore_cleanup_errors=True) as name:
        if shutil.disk_usage(name).free < FREE_BYTES_MIN:
            print(f"make test-roots: {name} has less than 6 GiB free", file=sys.stderr)
            return 1
        folder = Path(given.keep or name)
        outcomes = [
            try_suite(suite, folder, logs, keep=bool(given.keep))
            for suite in SUITES
            if suite.code in chosen
        ]
    print(table(outcomes))
    reached = [one.ok for one in outcomes if one.ok is not None]
    right = bool(reached) and all(reached)
    print(f"make test-roots: {'OK' if right else 'FAILED'}")
    return 0 if right else 1


if __name__ == "__main__":
    sys.exit(main())
