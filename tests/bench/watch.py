"""Looks at a running region every second: queues, processes, lookups; says how it goes."""

import asyncio
import contextlib
import os
import time
from collections import Counter, defaultdict
from dataclasses import dataclass, field
from typing import Any

from proto.ops import OpsError
from tests.bench import machine
from tests.bench.region import Region
from tests.bench.traffic import Traffic

LOOK_S = 1.0
SHOW_S = 5.0
SERVED = ("near", "far", "stale")  # by the cache; "joined" waited for the partner's answer
COUNTED = (*SERVED, "joined", "missed", "failed")


@dataclass
class Moment:
    """The counters of everybody at the beginning of a phase."""

    at_s: float
    counters: dict[str, int]
    cpu_s: dict[str, float]
    lookups: dict[str, Counter[str]]
    stolen: tuple[int, int]
    busy_s: float


@dataclass
class Watch:
    """What was seen of a run; `moments` is by phase, and "" is the end of the last one."""

    region: Region
    moments: dict[str, Moment] = field(default_factory=dict)
    peaks: defaultdict[tuple[str, str], int] = field(default_factory=lambda: defaultdict(int))
    _shown_s: float = 0.0

    async def run(self, traffic: Traffic) -> None:
        """Look until cancelled."""
        phase = ""
        while True:
            at_s = time.time() - traffic.began_s if traffic.began_s else -1.0
            now = traffic.plan.phase_at(at_s)
            if now != phase and now not in self.moments:
                self.moments[now] = await asyncio.to_thread(self.moment)
                phase = now
            with contextlib.suppress(OpsError):
                self._look(phase, await asyncio.to_thread(self.region.status), at_s, traffic)
            await asyncio.sleep(LOOK_S)

    def moment(self) -> Moment:
        """Return the counters of now."""
        programs = self._programs()
        kinds = self.region.lookups()
        return Moment(
            time.time(),
            self.region.status()["counters"],
            {name: machine.cpu_s(pid) for name, pid in programs.items()},
            {kind: Counter({one: row[one] for one in COUNTED}) for kind, row in kinds.items()},
            machine.stolen(),
            machine.busy_s(),
        )

    def memory(self) -> dict[str, tuple[float, float]]:
        """Return what memory each process has, and had at most, in MB."""
        programs = self._programs()
        fields = ("VmRSS", "VmHWM")
        return {
            name: (machine.memory_mb(pid, fields[0]), machine.memory_mb(pid, fields[1]))
            for name, pid in programs.items()
        }

    def _programs(self) -> dict[str, int]:
        return {**self.region.programs(), "driver": os.getpid()}

    def _look(self, phase: str, status: dict[str, Any], at_s: float, traffic: Traffic) -> None:
        for row in status["queues"]:
            open_ = row["pending"] + row["in_flight"] + row["retrying"]
            place = phase, row["destination"]
            self.peaks[place] = max(self.peaks[place], open_)
        if time.monotonic() - self._shown_s < SHOW_S:
            return
        self._shown_s = time.monotonic()
        counters = status["counters"]
        waiting = {row["destination"]: row["pending"] + row["in_flight"] + row["retrying"]
                   for row in status["queues"]}  # fmt: skip
        busiest = " ".join(f"{name} {count}" for name, count in waiting.items() if count)
        sent = " ".join(f"{what} {count}" for what, count in sorted(traffic.sent.items()))
        print(
            f"{at_s:6.0f} s  {phase or 'drain':9s} sent: {sent} | bus: accepted"
            f" {counters['accepted']:,}, refused {counters['refused']}, retried"
            f" {counters['retried']}, dead {counters['dead']} | open: {busiest or 'nothing'}",
            flush=True,
        )
