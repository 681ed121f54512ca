"""`make fuzz`: mutated inputs for everything that reads what others wrote.

    python -m tests.fuzz [--inputs 10000000] [--jobs 2] [--seed N] [--only TARGET ...]
    python -m tests.fuzz --replay TARGET:SEED:NUMBER      one of them again

Prints each finding at once, with the command that meets it again, and keeps it in the file named
first; at the end a table, and as its last line one JSON object. The exit status is 1 when something
was found. Times are of the processor, and what took too long is played again before it counts: a
busy machine finds nothing.
"""

import argparse
import sys
import time

from tests.fuzz.campaign import REAL, REAL_SHARE, TARGETS, again, counts, play_all
from tests.fuzz.tally import kept


def main() -> int:
    """Fuzz what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz")
    parser.add_argument("--inputs", type=int, default=10_000_000)
    parser.add_argument("--jobs", type=int, default=1)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 100_000)
    parser.add_argument("--only", nargs="+", choices=[*TARGETS, REAL], default=[])
    parser.add_argument("--replay", metavar="TARGET:SEED:NUMBER")
    asked = parser.parse_args()
    began = time.monotonic()
    if asked.replay:
        name, seed, number = asked.replay.rsplit(":", 2)
        if name not in TARGETS and not name.startswith(f"{REAL}."):
            parser.error(f"there is no target {name}; there are: {', '.join(TARGETS)}")
        asked.seed = int(seed)
        print(f"seed {asked.seed}, findings are kept in {kept(asked.seed)}", flush=True)
        tally = again(name, int(seed), int(number))
    else:
        print(f"seed {asked.seed}, findings are kept in {kept(asked.seed)}", flush=True)
        names = [one for one in asked.only if one != REAL]
        share = 1.0 if asked.only == [REAL] else REAL_SHARE
        real = round(asked.inputs * share) if REAL in asked.only or not asked.only else 0
        wanted = counts(asked.inputs - real, names) if names or not asked.only else {}
        tally = play_all(asked.seed, wanted, real, max(1, asked.jobs))
    for line in tally.table():
        print(line)
    told = tally.problems()
    for sentence in told:
        print(sentence)
    print(tally.last_line(asked.seed, time.monotonic() - began))
    return 1 if told else 0


if __name__ == "__main__":
    sys.exit(main())
