"""The producer and the consumer of the benchmark, each a process of its own.

Time stamps travel in the first 8 bytes of a body (CLOCK_MONOTONIC, one machine), so end to end
is from just before `publish` to the consumer's hands.
"""

import asyncio
import contextlib
import gc
import json
import resource
import struct
import sys
import time
from pathlib import Path
from typing import Any

import uvloop

from proto import BusClient, Message, new_id
from proto.message import now_ms

SUBJECTS = 10_000
PAD = bytes(range(256)) * 64


def _message(number: int, size: int, priority: int, dead: bool) -> Message:
    body = struct.pack(f"<d{size - 8}s", time.monotonic(), PAD)
    subject = f"call-{priority}-{number % SUBJECTS}"
    type = "dead.message.v1" if dead else "bench.message.v1"
    return Message(new_id(), type, "producer", subject, now_ms(), priority, body=body)


def _keys(folder: str, name: str) -> dict[str, Any]:
    """Return the client's keys; none for a router without CURVE."""
    if not folder:
        return {}
    return {"key": Path(folder, f"{name}.key"), "server_key": Path(folder, "router.pub")}


async def produce(address: str, folder: str, plan: dict[str, float]) -> dict[str, float]:
    """Publish as fast as the window allows, or at a steady rate when `rate` is not 0."""
    count, size, priority = int(plan["count"]), int(plan["size"]), int(plan.get("priority", 2))
    async with BusClient(address, name="producer", **_keys(folder, "producer")) as bus:
        stream = bus.stream(int(plan["window"]))
        began = time.monotonic()
        for number in range(count):
            if plan["rate"]:
                ahead = began + number / plan["rate"] - time.monotonic()
                if ahead > 0.0005:
                    await asyncio.sleep(ahead)
            await stream.publish(_message(number, size, priority, bool(plan.get("dead"))))
        await stream.drain()
        return {"began": began, "accepted_s": time.monotonic() - began}


async def consume(address: str, folder: str, plan: dict[str, float]) -> dict[str, float]:
    """Take and acknowledge `count` messages, or those of one priority until `count` of it came;
    return the latencies of these, when the first message came at all and when the last one did."""
    count, priority = int(plan["count"]), plan.get("priority")
    first = taken = 0.0
    latencies: list[float] = []
    async with BusClient(address, name="consumer", **_keys(folder, "consumer")) as bus:
        consumer = bus.consume("sink", credit=int(plan["credit"]))
        print("ready", flush=True)
        async for batch in consumer.batches():
            now = time.monotonic()
            first = first or now
            for delivery in batch:
                if priority is None or delivery.message.priority == priority:
                    latencies.append(now - struct.unpack_from("<d", delivery.message.body)[0])
                delivery.ack()
            taken += len(batch)
            if len(latencies) >= count:
                break
        ended = time.monotonic()
        consumer.close()
    latencies.sort()

    def quantile(share: float) -> float:
        return latencies[min(len(latencies) - 1, int(len(latencies) * share))] * 1000

    return {
        "first": first,
        "taken": taken,
        "ended": ended,
        "p50_ms": quantile(0.5),
        "p99_ms": quantile(0.99),
        "p999_ms": quantile(0.999),
        "max_ms": latencies[-1] * 1000,
    }


async def refuse(address: str, folder: str, plan: dict[str, float]) -> dict[str, float]:
    """Give back all that comes for the dead partner, as its connector does, for some seconds."""
    refused = 0
    async with BusClient(address, name="consumer", **_keys(folder, "consumer")) as bus:
        consumer = bus.consume("dead", credit=int(plan["credit"]))

        async def give_back() -> None:
            nonlocal refused
            async for delivery in consumer:
                delivery.retry("no answer")
                refused += 1

        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(give_back(), plan["seconds"])
    return {"refused": refused}


def main() -> None:
    """Run as `python -m tests.bench.peers produce|consume|refuse ADDRESS KEYS PLAN`."""
    role, address, folder, plan = sys.argv[1:5]
    work = {"produce": produce, "consume": consume, "refuse": refuse}[role]
    gc.set_threshold(200_000, 20, 20)  # what is measured is the bus, not this process's collector
    result = uvloop.run(work(address, folder, json.loads(plan)))
    usage = resource.getrusage(resource.RUSAGE_SELF)
    result["cpu_s"] = usage.ru_utime + usage.ru_stime
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
