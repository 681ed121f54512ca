"""`make bench-against DIR=folder`: this checkout and another one, in turns, in one run.

    python -m tests.bench.against FOLDER [--rounds 5] [--messages 100000] [--seconds-at-rate 10]

`FOLDER` is another checkout with its own `.venv` (`git worktree add FOLDER COMMIT`, then
`make .venv/.installed-from-lock` in it). In each round both run `python -m tests.bench` once, and
who goes first alternates: what the host does to one it does to the other. Prints each round, the
medians and their ratios, and as its last line one JSON object of ratios, ours by the other's; of
`msgs_per_s` more is better, of all others less is.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).parents[2]
RUN_TIMEOUT_S = 600


def _measure(checkout: Path, arguments: list[str]) -> dict[str, float]:
    command = [str(checkout / ".venv" / "bin" / "python"), "-m", "tests.bench", *arguments]
    run = subprocess.run(
        command, cwd=checkout, stdout=subprocess.PIPE, text=True, timeout=RUN_TIMEOUT_S, check=True
    )
    result: dict[str, float] = json.loads(run.stdout.splitlines()[-1])
    return result


def _line(label: str, values: dict[str, float]) -> str:
    return f"{label:18s} " + "  ".join(f"{key} {value:g}" for key, value in values.items())


def main() -> int:
    """Run both in turns; returns an exit status."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.against")
    parser.add_argument("folder", type=Path, help="the other checkout, with its .venv")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--messages", type=int, default=100_000, help="per throughput run")
    parser.add_argument("--seconds-at-rate", type=int, default=10)
    options = parser.parse_args()
    other: Path = options.folder.resolve()
    if not (other / ".venv" / "bin" / "python").exists():
        print(
            f"bench-against: {other} has no .venv/bin/python; make it there with"
            " `make .venv/.installed-from-lock`",
            file=sys.stderr,
        )
        return os.EX_NOINPUT
    plan = ["--runs", "1", "--messages", str(options.messages)]
    plan += ["--seconds-at-rate", str(options.seconds_at_rate)]
    sides = {"this": HERE, "other": other}
    runs: dict[str, list[dict[str, float]]] = {name: [] for name in sides}
    for number in range(options.rounds):
        for name in sorted(sides, reverse=number % 2 == 0):
            runs[name].append(_measure(sides[name], plan))
            print(_line(f"round {number + 1}, {name}", runs[name][-1]), flush=True)
    medians = {
        name: {key: statistics.median(run[key] for run in found) for key in found[0]}
        for name, found in runs.items()
    }
    for name, values in medians.items():
        print(_line(f"median, {name}", values))
    ratios = {
        key: round(value / medians["other"][key], 3)
        for key, value in medians["this"].items()
        if medians["other"].get(key)
    }
    print(json.dumps(ratios))
    return os.EX_OK


if __name__ == "__main__":
    sys.exit(main())
