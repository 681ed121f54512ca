"""The exchange's connector under a flood: `make bench-ami ARGS="--rate 10000 --seconds 10"`.

A generator pours events into a real connector process, which publishes to a real router; a consumer
takes what comes out and checks that every call began once, ended once, and none is left.
"""

import argparse
import asyncio
import os
import subprocess
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

import msgspec
import uvloop

from tests.bench.amistream import Stream
from tests.bench.exchange import PouringExchange
from tests.integration.bus import SMPBUS, RouterProcess
from tests.ports import free_port

ROUTES = (
    '[destinations.ats]\n[destinations.sink]\n[[routes]]\ntype = "telephony.*"\nto = ["sink"]\n'
)
PERMISSIONS = (
    '[peers.ats]\npublish = ["*"]\nconsume = ["ats"]\n[peers.consumer]\nconsume = ["sink"]\n'
)
SETTINGS = """
[connectors.ats]
statistics_s = 1.0
live_calls_file = "ats.calls"
[connectors.ats.partner]
url = "tcp://127.0.0.1:{port}"
credentials_file = "ats.password"
"""
EVENTS = 14  # of a call that mean something
SILENCE_S = 20.0


class _Body(msgspec.Struct):
    call_id: str = ""
    event: str = ""


@dataclass
class Taken:
    """What came out at the far end."""

    messages: int = 0
    last_at: float = 0.0
    lag_s: list[float] = field(default_factory=list)
    calls: Counter[tuple[str, str]] = field(default_factory=Counter)

    @property
    def ended(self) -> int:
        """How many calls have ended."""
        return sum(count for (_, event), count in self.calls.items() if event == "ended")


async def _consume(router: RouterProcess, taken: Taken) -> None:
    async with router.client("consumer") as bus:
        async for batch in bus.consume("sink", credit=2000).batches():
            now = time.time()
            for delivery in batch:
                taken.messages += 1
                if delivery.message.type == "telephony.call.v1":
                    body = msgspec.json.decode(delivery.message.body, type=_Body)
                    taken.calls[body.call_id, body.event] += 1
                    taken.lag_s.append(now - delivery.message.time / 1000)
                delivery.ack()
            taken.last_at = time.monotonic()


def _memory_mb(pid: int, line: str) -> float:
    for found in Path(f"/proc/{pid}/status").read_text().splitlines():
        if found.startswith(f"{line}:"):
            return int(found.split()[1]) * 1024 / 1e6
    raise ValueError(f"no {line} in /proc")


def _cpu_s(pid: int) -> float:
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


async def _run(rate: float, seconds: float, noise: int) -> None:
    stream = Stream(int(rate * seconds / (EVENTS + noise)), noise=noise)
    exchange = PouringExchange(stream, rate)
    port = free_port()
    server = await asyncio.start_server(exchange.serve, "127.0.0.1", port)
    with RouterProcess(peers=("ats", "consumer"), routes=ROUTES, permissions=PERMISSIONS) as router:
        taken = Taken()
        consuming = asyncio.create_task(_consume(router, taken))
        connector = _start_connector(router, port)
        try:
            await exchange.done.wait()
            poured = time.monotonic()
            backlog = stream.calls - taken.ended
            print(f"{len(stream.events)} events poured in {exchange.poured_s:.1f} s, "
                  f"{len(stream.events) / exchange.poured_s:,.0f} a second (wanted: {rate:,.0f})"
                  f"; {exchange.late} ticks more than 1 s late")  # fmt: skip
            await _calm(stream, taken)
            _report(stream, taken, backlog, poured)
            for name, pid in (("connector", connector.pid), ("router", router.pid)):
                most, now = _memory_mb(pid, "VmHWM"), _memory_mb(pid, "VmRSS")
                print(f"{name}: {_cpu_s(pid):.1f} s of processor; memory {most:.0f} MB at most,"
                      f" {now:.0f} MB at the end")  # fmt: skip
        finally:
            connector.terminate()
            connector.wait(20)
            consuming.cancel()
            await asyncio.gather(consuming, return_exceptions=True)
            server.close()


def _start_connector(router: RouterProcess, port: int) -> "subprocess.Popen[bytes]":
    password = router.folder / "ats.password"
    password.touch(mode=0o600)
    password.write_text("smpbus:made-up\n")
    with router.config.open("a") as config:
        config.write(SETTINGS.format(port=port))
    return subprocess.Popen([SMPBUS, "connector", "ats", "--config", str(router.config)])


async def _calm(stream: Stream, taken: Taken) -> None:
    """Wait until all calls have ended, or nothing has come for some seconds."""
    while taken.ended < stream.calls:
        before = taken.messages
        await asyncio.sleep(0.1 if taken.messages else 1.0)
        if taken.messages == before and time.monotonic() - taken.last_at > SILENCE_S:
            return


def _report(stream: Stream, taken: Taken, backlog: int, poured: float) -> None:
    lags = sorted(taken.lag_s)
    half, most = (lags[int(len(lags) * share)] * 1000 for share in (0.5, 0.99))
    print(f"{taken.messages} messages out ({taken.messages / len(stream.events):.2f} an event);"
          f" {backlog} calls not told ended when the pouring ended, calm"
          f" {max(0.0, taken.last_at - poured):.1f} s later; from the connector to the consumer"
          f" half in {half:.0f} ms, 99 of 100 in {most:.0f} ms")  # fmt: skip
    once = ("started", "answered", "ended")
    doubled = [key for key, count in taken.calls.items() if key[1] in once and count > 1]
    begun, ended = ({call for call, event in taken.calls if event == wanted}
                    for wanted in ("started", "ended"))  # fmt: skip
    print(f"{len(begun)} calls begun, {len(begun - ended)} left hanging, {len(doubled)} doubled")
    if len(begun) != stream.calls or begun != ended or doubled:
        raise SystemExit("bench-ami: FAILED")


def main() -> None:
    """Run as `python -m tests.bench.ami`."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rate", type=float, default=10_000.0, help="events a second")
    parser.add_argument("--seconds", type=float, default=10.0)
    parser.add_argument("--noise", type=int, default=28, help="events of a call that mean nothing")
    told = parser.parse_args()
    uvloop.run(_run(told.rate, told.seconds, told.noise))


if __name__ == "__main__":
    main()
