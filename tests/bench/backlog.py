"""`make bench-backlog`: a destination whose consumer is away, with more waiting than memory holds.

    python -m tests.bench.backlog [--messages 2000000] [--urgent 1000]

Fills one queue, measures the router's memory, how fast urgent messages go through while the rest is
drained, and how soon a router that was killed is back. Prints a line per measure, and as its last
line one JSON object.
"""

import argparse
import json
import os
import platform
import shutil
import subprocess
import tempfile
import threading
import time
from pathlib import Path

from tests.bench.router import BenchRouter, result_of

SIZE = 1024
URGENT_RATE = 100
CREDIT = 200
MB = 1e6


def _fill(router: BenchRouter, count: int) -> None:
    producer = router.peer("produce", size=SIZE, rate=0, window=5000, count=count)
    done = threading.Event()

    def show() -> None:
        while not done.wait(10):
            waiting = router.status()["open"]
            print(f"  {waiting:,} wait, {router.memory_mb('VmRSS'):.0f} MB", flush=True)

    thread = threading.Thread(target=show)
    thread.start()
    try:
        made = result_of(producer, 3600)
    finally:
        done.set()
        thread.join()
    print(f"filled: {count:,} x {SIZE} B in {made['accepted_s']:.1f} s", flush=True)


def _urgent(router: BenchRouter, count: int) -> dict[str, float]:
    """Publish urgent messages at a steady rate while the backlog is drained."""
    consumer = router.peer("consume", size=SIZE, credit=CREDIT, count=count, priority=0)
    assert consumer.stdout is not None
    consumer.stdout.readline()
    plan = {"size": SIZE, "rate": URGENT_RATE, "window": 100, "priority": 0, "count": count}
    result_of(router.peer("produce", **plan))
    return result_of(consumer)


def _restart(router: BenchRouter) -> tuple[float, float]:
    """Kill the router; return the seconds until it answers and until it delivers."""
    router.kill()
    began = time.monotonic()
    answers = router.start()
    consumer: subprocess.Popen[str] = router.peer("consume", size=SIZE, credit=1, count=1)
    first = result_of(consumer)["first"]
    return answers, first - began


def main() -> None:
    """Fill, measure, restart, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.backlog")
    parser.add_argument("--messages", type=int, default=2_000_000)
    parser.add_argument("--urgent", type=int, default=1_000)
    parser.add_argument("--folder", default=None, help="where the journal lies (default: temp)")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="smpbus-bench-", dir=arguments.folder))
    print(f"settings: {os.cpu_count()} cores, Python {platform.python_version()}, ipc, CURVE on,"
          f" credit {CREDIT}, {URGENT_RATE} urgent/s, journal in {folder}", flush=True)  # fmt: skip
    router = BenchRouter(folder)
    try:
        _fill(router, arguments.messages)
        full_mb = router.memory_mb("VmRSS")
        print(f"memory: {full_mb:.0f} MB resident", flush=True)
        urgent = _urgent(router, arguments.urgent)
        print(f"urgent: p50 {urgent['p50_ms']:.1f}, p99 {urgent['p99_ms']:.1f} ms while"
              f" {urgent['taken']:,.0f} were taken", flush=True)  # fmt: skip
        answers_s, delivers_s = _restart(router)
        print(f"killed: answers after {answers_s:.2f} s, delivers after {delivers_s:.2f} s,"
              f" {router.status()['open']:,} wait", flush=True)  # fmt: skip
        peak_mb = max(full_mb, router.memory_mb("VmHWM"))
    finally:
        router.stop()
        shutil.rmtree(folder, ignore_errors=True)
    print(json.dumps({
        "messages": arguments.messages, "rss_mb": round(full_mb), "rss_peak_mb": round(peak_mb),
        "urgent_p50_ms": round(urgent["p50_ms"], 1), "urgent_p99_ms": round(urgent["p99_ms"], 1),
        "status_s": round(answers_s, 2), "delivers_s": round(delivers_s, 2),
    }))  # fmt: skip


if __name__ == "__main__":
    main()
