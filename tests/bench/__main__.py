"""`make bench`: durable throughput and latency, end to end, through real processes.

    python -m tests.bench [--seconds-at-rate 20] [--messages 200000] [--runs 3]

Prints the settings, a line per run, the median of each measure, and as its last line one JSON
object: msgs_per_s, p50_ms, p99_ms, p999_ms, router_cpu_us_per_msg, rss_mb, status_ms (how long the
ops socket took at worst to answer `status` while the router was under full load).
"""

import argparse
import json
import os
import platform
import shutil
import statistics
import tempfile
import threading
import time
from pathlib import Path

from proto.ops import ops_request
from tests.bench.machine import share, stolen
from tests.bench.router import BenchRouter, result_of

CREDIT = 4000
RATE = 1000


class Bench:
    """A router on a fresh journal, and the runs against it."""

    def __init__(self, folder: Path, transport: str, curve: bool) -> None:
        self.router = BenchRouter(folder, transport, curve)

    def run(self, **plan: float) -> dict[str, float]:
        """One producer, one consumer, `count` messages."""
        plan = {"size": 1024, "rate": 0, "credit": CREDIT, **plan}
        router = self.router
        before, host = router.cpu_s(), stolen()
        consumer = router.peer("consume", **plan)
        assert consumer.stdout is not None
        consumer.stdout.readline()
        producer = router.peer("produce", **plan)
        with Questioner(router.ops) as questioner:
            made = result_of(producer)
        taken = result_of(consumer)
        cpu_s = router.cpu_s() - before
        return {
            "msgs_per_s": plan["count"] / (taken["ended"] - made["began"]),
            "accepted_per_s": plan["count"] / made["accepted_s"],
            "p50_ms": taken["p50_ms"],
            "p99_ms": taken["p99_ms"],
            "p999_ms": taken["p999_ms"],
            "router_cpu_us_per_msg": cpu_s / plan["count"] * 1e6,
            "producer_cpu_us_per_msg": made["cpu_s"] / plan["count"] * 1e6,
            "consumer_cpu_us_per_msg": taken["cpu_s"] / plan["count"] * 1e6,
            "rss_mb": router.status()["rss_bytes"] / 1e6,
            "status_ms": questioner.worst_s * 1000,
            "stolen": share(host, stolen()),
        }


class Questioner(threading.Thread):
    """Asks for `status` five times a second, as a dashboard would, and keeps the longest wait."""

    def __init__(self, ops: str) -> None:
        super().__init__()
        self.worst_s = 0.0
        self._ops = ops
        self._over = threading.Event()

    def run(self) -> None:
        """Ask until the run is over."""
        while not self._over.wait(0.2):
            began = time.perf_counter()
            ops_request(self._ops, "status", 10.0)
            self.worst_s = max(self.worst_s, time.perf_counter() - began)

    def __enter__(self) -> "Questioner":
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self.join()


def _median(runs: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(run[key] for run in runs) for key in runs[0]}


def _print(label: str, run: dict[str, float]) -> None:
    print(
        f"{label:28s} {run['msgs_per_s']:9,.0f} msg/s  p50 {run['p50_ms']:7.2f}  "
        f"p99 {run['p99_ms']:7.2f}  p99.9 {run['p999_ms']:7.2f} ms  CPU us/msg: router "
        f"{run['router_cpu_us_per_msg']:.1f}, producer {run['producer_cpu_us_per_msg']:.1f}, "
        f"consumer {run['consumer_cpu_us_per_msg']:.1f}  RSS {run['rss_mb']:.0f} MB  "
        f"status {run['status_ms']:.0f} ms  stolen by the host {run['stolen']:.0%}",
        flush=True,
    )


def main() -> None:
    """Run every measure and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("--messages", type=int, default=200_000, help="per throughput run")
    parser.add_argument("--runs", type=int, default=3, help="runs of each, the median counts")
    parser.add_argument("--seconds-at-rate", type=int, default=20)
    parser.add_argument("--transport", choices=("ipc", "tcp"), default="ipc")
    parser.add_argument("--no-curve", action="store_true", help="for comparison only")
    parser.add_argument("--folder", default=None, help="where the journal lies (default: temp)")
    arguments = parser.parse_args()
    folder = Path(tempfile.mkdtemp(prefix="smpbus-bench-", dir=arguments.folder))
    print(
        f"settings: {os.cpu_count()} cores, Python {platform.python_version()}, "
        f"{arguments.transport}, CURVE {'off' if arguments.no_curve else 'on'}, body 1024 B, "
        f"SQLite WAL synchronous=FULL, credit {CREDIT}, journal in {folder}",
        flush=True,
    )
    bench = Bench(folder, arguments.transport, not arguments.no_curve)
    try:
        bench.run(count=20_000, window=1000)  # warm up
        best: dict[str, float] = {}
        for window in (1000, 5000):
            runs = []
            for number in range(arguments.runs):
                runs.append(bench.run(count=arguments.messages, window=window))
                _print(f"window {window}, run {number + 1}", runs[-1])
            median = _median(runs)
            _print(f"window {window}, median", median)
            if not best or median["msgs_per_s"] > best["msgs_per_s"]:
                best = median
        runs = []
        for number in range(arguments.runs):
            count = RATE * arguments.seconds_at_rate
            runs.append(bench.run(count=count, window=5000, rate=RATE))
            _print(f"{RATE} msg/s, run {number + 1}", runs[-1])
        steady = _median(runs)
        _print(f"{RATE} msg/s, median", steady)
    finally:
        bench.router.stop()
        shutil.rmtree(folder, ignore_errors=True)
    summary = {
        "msgs_per_s": round(best["msgs_per_s"]),
        **{key: round(steady[key], 3) for key in ("p50_ms", "p99_ms", "p999_ms")},
        "router_cpu_us_per_msg": round(best["router_cpu_us_per_msg"], 2),
        "rss_mb": round(best["rss_mb"], 1),
        "status_ms": round(best["status_ms"], 1),
    }
    print(json.dumps(summary))


if __name__ == "__main__":
    main()
