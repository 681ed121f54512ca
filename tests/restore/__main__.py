"""`make restore`: an old copy of the bus's files put back, seed by seed.

    python -m tests.restore [--seeds 50] [--first N] [--house 5]

Real router, connectors and simulated partners; one house of processes serves `--house` seeds.
Prints a line a seed and as its last line one JSON object. The exit status is 1 when something was
reported as delivered that the partner does not have; that house's folder is then kept and named.
"""

import argparse
import json
import sys
import time

from tests.integration.house import FEDERAL, House
from tests.restore.drill import Verdict, drill


def main() -> int:
    """Run the drill that the command line asks for."""
    parser = argparse.ArgumentParser(prog="python -m tests.restore")
    parser.add_argument("--seeds", type=int, default=50)
    parser.add_argument("--first", type=int, default=0)
    parser.add_argument("--house", type=int, default=5)
    asked = parser.parse_args()
    began = time.monotonic()
    verdicts: list[Verdict] = []
    seeds = list(range(asked.first, asked.first + asked.seeds))
    for start in range(0, len(seeds), asked.house):
        house = House(*FEDERAL)
        is_kept = True
        try:
            house.start_all()
            some = seeds[start : start + asked.house]
            verdicts += (_say(drill(house, seed), began) for seed in some)
            is_kept = any(verdict.missing for verdict in verdicts[start:])
        finally:
            house.close(keep=is_kept)
            if is_kept:
                print(f"ledgers, journal and logs: {house.folder}", flush=True)
    missing = sum(len(verdict.missing) for verdict in verdicts)
    checked = sum(verdict.checked for verdict in verdicts)
    print(json.dumps({"ok": not missing, "seeds": len(verdicts), "checked": checked,
                      "missing": missing, "seconds": round(time.monotonic() - began)}))  # fmt: skip
    return 1 if missing else 0


def _say(verdict: Verdict, began: float) -> Verdict:
    print(
        f"{time.monotonic() - began:6.0f} s  seed {verdict.seed}: {verdict.way}:"
        f" {verdict.checked} compared, {len(verdict.missing)} missing",
        flush=True,
    )
    for sentence in verdict.missing[:10]:
        print(f"    {sentence}")
    return verdict


if __name__ == "__main__":
    sys.exit(main())
