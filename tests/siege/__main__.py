"""`make siege`: attacks of every kind on a running bus, and a good peer that must not notice.

    python -m tests.siege [--short] [--only NAME ...] [--attack-s 16] [--list]

Ten minutes, with --short two. Prints a table, a line for each attack, what is wrong, and as its
last line one JSON object. `worst_p99_ratio` is the good peer's worst p99 under attack against its
calm one of the same run, which counts as 10 ms at least: 2 is the bar. The exit status is 1 when
something is wrong; the folder with ledgers and logs is then kept and named. As root it runs in a
network namespace of its own, with nothing but loopback in it.
"""

import argparse
import os
import shutil
import subprocess
import sys

from tests.siege.attacks import ATTACKS
from tests.siege.campaign import Siege, besiege, last_line
from tests.siege.verdict import HEAD, row

INSIDE = "SMPBUS_SIEGE_INSIDE"
FULL_S, SHORT_S = 15.5, 2.2  # of each attack
CALM_S, CALM_SHORT_S = 25.0, 6.0


def enter_namespace() -> None:
    """Go on in a network namespace of our own, where that is allowed."""
    if INSIDE in os.environ or os.geteuid() or not shutil.which("unshare"):
        return
    if subprocess.run(["unshare", "-n", "true"], check=False, capture_output=True).returncode:
        return
    os.environ[INSIDE] = "1"
    again = 'ip link set lo up && exec "$@"'
    command = ["unshare", "-n", "sh", "-c", again, "sh", sys.executable, "-m", "tests.siege"]
    os.execvp("unshare", [*command, *sys.argv[1:]])


def main() -> int:
    """Run the siege that the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.siege")
    parser.add_argument("--short", action="store_true")
    parser.add_argument("--only", nargs="+", metavar="NAME", default=[])
    parser.add_argument("--attack-s", type=float, default=0.0)
    parser.add_argument("--list", action="store_true")
    asked = parser.parse_args()
    known = {attack.name for attack in ATTACKS}
    if asked.list:
        print("\n".join(sorted(known)))
        return 0
    if unknown := set(asked.only) - known:
        parser.error(f"no such attack: {', '.join(sorted(unknown))}; --list names them")
    enter_namespace()
    attacks = tuple(one for one in ATTACKS if not asked.only or one.name in asked.only)
    attack_s = asked.attack_s or (SHORT_S if asked.short else FULL_S)
    siege = Siege(attacks, CALM_SHORT_S if asked.short else CALM_S, attack_s)
    besiege(siege)
    print()
    print(HEAD)
    for line in siege.lines:
        print(row(line))
    for sentence in siege.sentences():
        print(sentence)
    print(last_line(siege))
    return 0 if siege.ok else 1


if __name__ == "__main__":
    sys.exit(main())
