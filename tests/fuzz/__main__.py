"""`make fuzz`: mutated inputs for everything that reads what others wrote.

    python -m tests.fuzz [--inputs 10000000] [--jobs 2] [--seed N] [--only TARGET ...]
    python -m tests.fuzz --only TARGET --seed N --input N      one of them again

Prints each finding with the command that meets it again, a table, and as its last line one JSON
object. The exit status is 1 when something was found.
"""

import argparse
import sys
import time

from tests.fuzz.campaign import TARGETS, Tally, again, counts, last_line, play_all, problems
from tests.fuzz.real import play_real

REAL_SHARE = 0.02  # of the inputs goes through real sockets


def main() -> int:
    """Fuzz what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--inputs", type=int, default=10_000_000)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 100_000)
    parser.add_argument("--only", nargs="+", choices=[*TARGETS, "real"], default=[])
    parser.add_argument("--input", type=int)
    asked = parser.parse_args()
    began = time.monotonic()
    print(f"seed {asked.seed}", flush=True)
    if asked.input is not None:
        if len(asked.only) != 1 or asked.only == ["real"]:
            parser.error("--input needs --only with one target")
        tally = again(asked.only[0], asked.seed, asked.input)
    else:
        tally = Tally()
        names = [one for one in asked.only if one != "real"]
        if names or not asked.only:
            shares = counts(round(asked.inputs * (1 - REAL_SHARE)), names)
            tally.add(play_all(asked.seed, shares, max(1, asked.jobs)))
        if "real" in asked.only or not asked.only:
            tally.add(play_real(asked.seed, round(asked.inputs * REAL_SHARE)))
        for name, (count, seconds) in sorted(tally.by_target.items()):
            print(f"{name:20} {count:10} inputs {count / max(seconds, 1e-9):10.0f} a second")
    told = problems(tally)
    for sentence in told:
        print(sentence)
    print(last_line(asked.seed, tally, time.monotonic() - began))
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main())
