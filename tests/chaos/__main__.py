"""`make chaos`: kill -9 of router, connectors and clients under load.

    python -m tests.chaos [--kills 200] [--seed N]

Prints how it goes, each broken promise, and as its last line one JSON object. The exit status is 1
when a promise was broken; the folder with ledgers and logs is then kept and named.
"""

import argparse
import sys
import time

from tests.chaos.campaign import Campaign
from tests.chaos.region import Region


def main() -> int:
    """Run the campaign that the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.chaos")
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=time.time_ns() % 100_000)
    asked = parser.parse_args()
    print(f"seed {asked.seed}", flush=True)
    campaign, region = Campaign(asked.kills, asked.seed), Region()
    kept = True
    try:
        verdict = campaign.run(region)
        kept = bool(verdict.wrong)
    finally:
        region.close(keep=kept)
        if kept:
            print(f"ledgers and logs: {region.folder}", flush=True)
    for sentence in verdict.wrong[:20]:
        print(sentence)
    print(campaign.last_line(verdict))
    return 1 if kept else 0


if __name__ == "__main__":
    sys.exit(main())
