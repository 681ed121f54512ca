"""`make load`: the load of a region of five million on this machine, with everything real.

    python -m tests.bench.load [--short] [--sustained 600] [--burst 60] ...

Every connector with its simulator, a router, memcached. Cards are sent by the simulator of
System-112, each at its moment whether or not the ones before were answered; the simulated ambulance
lives each call and makes the rest; the exchange and 400 vehicles bring the telemetry. Prints how it
goes, the table, and a line per acceptance; the exit status is 1 when one is missed, and the last
line is one JSON object.
"""

import argparse
import asyncio
import contextlib
import json
import os
import platform
import shutil
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from proto.ops import ops_request
from proto.wording import set_language
from tests.bench.journal import read
from tests.bench.region import Region
from tests.bench.table import Result
from tests.bench.traffic import Phase, Plan, Traffic
from tests.bench.watch import Watch

SEED = 7000
DRAIN_S = 120.0
LATEST_S = (
    1.0  # what is accepted so short before the end, statistics of the exchange, is not judged
)
CALM = ("smp", "sys112", "rmis", "ats", "map")  # whose queues are empty at rest
LIVING = ("smp", "rmis", "remd", "vimis", "ats")


async def _play(traffic: Traffic, watch: Watch) -> bool:
    """Play the plan, then wait until nothing goes on; return whether that came."""
    await _calm(watch.region)  # the register of workers is loaded at the start
    watching = asyncio.create_task(watch.run(traffic))
    try:
        await traffic.run()
        return await _calm(watch.region)
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching


async def _calm(region: Region) -> bool:
    deadline = time.monotonic() + DRAIN_S
    while not await asyncio.to_thread(_is_calm, region):
        if time.monotonic() > deadline:
            return False
        await asyncio.sleep(1.0)
    return True


def _is_calm(region: Region) -> bool:
    queues = {row["destination"]: row for row in region.status()["queues"]}
    rows = [queues[name] for name in CALM]
    if any(row[key] for row in rows for key in ("pending", "in_flight", "retrying")):
        return False
    if region.ledger("sys112")["pushing"]:
        return False
    return not any(region.ledger(name)["living"] for name in LIVING)


def _measure(region: Region, plan: Plan) -> Result:
    traffic, watch = Traffic(region, plan), Watch(region)
    calm = asyncio.run(_play(traffic, watch))
    until_s = time.time() - LATEST_S
    watch.moments.setdefault("", watch.moment())
    partners = {name: region.ledger(name) for name in ("sys112", "smp", "rmis")}
    books = ops_request(region.folder.ops, "check", 30.0)
    memory = watch.memory()
    region.stop()
    story = read(region.journal, lambda at_s: plan.phase_at(at_s - traffic.began_s), until_s)
    return Result(plan, traffic, watch, story, partners, books, memory, calm)


def _plan(asked: argparse.Namespace) -> Plan:
    if asked.short:
        asked.warm_up, asked.sustained, asked.burst = 15.0, 45.0, 15.0
    share = asked.business / (asked.business + asked.telemetry)
    phases = [
        Phase("warm-up", asked.warm_up, asked.business, asked.telemetry),
        Phase("sustained", asked.sustained, asked.business, asked.telemetry),
        Phase("burst", asked.burst, asked.total * share, asked.total * (1 - share)),
    ]
    ahead = 1 + asked.ahead
    phases = [
        Phase(one.name, one.seconds, one.business * ahead, one.telemetry * ahead)
        for one in phases
        if one.seconds
    ]
    return Plan(phases, asked.per_call, asked.phone_per_call, SEED)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.bench.load")
    parser.add_argument("--short", action="store_true", help="a minute and a half")
    parser.add_argument("--warm-up", type=float, default=90.0, help="seconds")
    parser.add_argument("--sustained", type=float, default=600.0, help="seconds")
    parser.add_argument("--burst", type=float, default=60.0, help="seconds")
    parser.add_argument("--business", type=float, default=50.0, help="messages/s, sustained")
    parser.add_argument("--telemetry", type=float, default=200.0, help="messages/s, sustained")
    parser.add_argument("--total", type=float, default=500.0, help="messages/s of the burst")
    parser.add_argument("--ahead", type=float, default=0.04, help="part that is offered beyond it")
    parser.add_argument("--per-call", type=float, default=23.0, help="business messages of a call")
    parser.add_argument("--phone-per-call", type=float, default=7.0, help="telephony of a call")
    parser.add_argument("--pace", type=float, default=0.3, help="seconds between steps of a call")
    parser.add_argument("--folder", default=None, help="where the journal lies (default: temp)")
    parser.add_argument("--keep", action="store_true", help="leave the folder with the logs")
    return parser.parse_args()


def main() -> int:
    """Run it and print the table; return the exit status."""
    asked = _arguments()
    set_language("en")
    plan = _plan(asked)
    path = Path(tempfile.mkdtemp(prefix="smpbus-load-", dir=asked.folder))
    print(
        f"settings: {os.cpu_count()} cores, Python {platform.python_version()}, ipc, CURVE on,"
        f" SQLite WAL synchronous=FULL, memcached on loopback; {asked.business:g} business and"
        f" {asked.telemetry:g} telemetry messages/s, burst {asked.total:g}/s, offered"
        f" {asked.ahead:.0%} beyond that; a step of a call every {asked.pace:g} s; in {path}",
        flush=True,
    )
    region = Region(path, asked.pace)
    try:
        region.start()
        result = _measure(region, plan)
    finally:
        region.stop()
        if not asked.keep:
            shutil.rmtree(path, ignore_errors=True)
    result.judge(asked.business, asked.telemetry, asked.total)
    result.print()
    summary: dict[str, Any] = result.summary
    print(json.dumps(summary))
    return 0 if all(summary["verdicts"].values()) else 1


if __name__ == "__main__":
    sys.exit(main())
