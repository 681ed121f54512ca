"""The simulation as a campaign over many seeds.

    python -m tests.simulation --seeds 2000 [--first 0] [--jobs 2] [--steps 500]
    python -m tests.simulation --seed 17 [--steps 500]

Prints a line every few seconds, each failing seed, a failing one of each kind made short, and as
its last line one JSON object. The exit status is 1 when a promise was broken.
"""

import argparse
import os
import sys

from tests.simulation.campaign import Campaign, explain, replay, run

STEPS_MIN = 10


def main() -> int:
    """Run what the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__,
                                     formatter_class=argparse.RawTextHelpFormatter)  # fmt: skip
    parser.add_argument("--seeds", type=int, default=2000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="the first one")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    parser.add_argument("--steps", type=int, default=500, help="in each life")
    parser.add_argument("--seed", type=int, help="live this one alone, step by step")
    asked = parser.parse_args()
    first, seeds = (asked.first, asked.seeds) if asked.seed is None else (asked.seed, 1)
    campaign = Campaign(first, seeds, max(STEPS_MIN, asked.steps), max(1, asked.jobs))
    tally = run(campaign) if asked.seed is None else replay(campaign)
    if tally.failed:
        explain(campaign, tally.failed)
    print(tally.last_line())
    return 1 if tally.failed else 0


if __name__ == "__main__":
    sys.exit(main())
