"""`make bench-outage`: whether a dead partner with a long queue slows the others down.

    python -m tests.bench.outage [--waiting 50000] [--runs 5] [--seconds 10]

The same steady rate goes to a living partner in turns: with the dead one's queue empty, and with
it long and its connector giving everything back. Prints each run, and as its last line one JSON
object with the medians.
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import tempfile
from pathlib import Path

from tests.bench.router import BenchRouter, result_of

SIZE = 1024
RATE = 500
CREDIT = 64


def _latency(router: BenchRouter, seconds: int) -> tuple[float, float]:
    count = RATE * seconds
    consumer = router.peer("consume", size=SIZE, credit=1000, count=count)
    assert consumer.stdout is not None
    consumer.stdout.readline()
    result_of(router.peer("produce", size=SIZE, rate=RATE, window=1000, count=count))
    taken = result_of(consumer)
    return taken["p50_ms"], taken["p99_ms"]


def main() -> None:
    """Measure a living partner alone and beside a dead one, in turns."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.outage")
    parser.add_argument("--waiting", type=int, default=50_000)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--seconds", type=int, default=10)
    parser.add_argument("--folder", default=None, help="where the journals lie (default: temp)")
    asked = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="smpbus-bench-", dir=asked.folder))
    print(f"settings: {os.cpu_count()} cores, Python {platform.python_version()}, ipc, CURVE on,"
          f" {RATE} msg/s of {SIZE} B to the living one, {asked.waiting:,} wait for the dead one,"
          f" journals in {folder}", flush=True)  # fmt: skip
    (folder / "calm").mkdir()
    (folder / "outage").mkdir()
    calm, outage = BenchRouter(folder / "calm"), BenchRouter(folder / "outage")
    runs: dict[str, list[tuple[float, float]]] = {"calm": [], "outage": []}
    try:
        fill = {"size": SIZE, "rate": 0, "window": 5000, "count": asked.waiting, "dead": 1}
        result_of(outage.peer("produce", **fill))
        for number in range(asked.runs):
            runs["calm"].append(_latency(calm, asked.seconds))
            refuser = outage.peer("refuse", credit=CREDIT, seconds=asked.seconds + 2)
            runs["outage"].append(_latency(outage, asked.seconds))
            refused = result_of(refuser)["refused"]
            for name, label in (("calm", "alone"), ("outage", f"beside, {refused:,} given back")):
                p50, p99 = runs[name][-1]
                print(f"run {number + 1}: {label:32} p50 {p50:6.2f}  p99 {p99:6.2f} ms", flush=True)
    finally:
        calm.stop()
        outage.stop()
        shutil.rmtree(folder, ignore_errors=True)
    calm_p99, outage_p99 = (statistics.median(p99 for _, p99 in one) for one in runs.values())
    print(json.dumps({"p99_alone_ms": round(calm_p99, 2), "p99_beside_ms": round(outage_p99, 2)}))


if __name__ == "__main__":
    main()
