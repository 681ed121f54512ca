"""What the machine did meanwhile: processor time and memory of a process, and of everybody else."""

import os
from pathlib import Path

TICKS = os.sysconf("SC_CLK_TCK")


def stolen() -> tuple[int, int]:
    """Return the machine's ticks that its host gave to others, and all its ticks."""
    ticks = _ticks()
    return ticks[7], sum(ticks)


def share(before: tuple[int, int], after: tuple[int, int]) -> float:
    """Return which part of the second number the first one was, between two readings."""
    return (after[0] - before[0]) / max(1, after[1] - before[1])


def busy_s() -> float:
    """Return the processor seconds that all processes of the machine have used, since its start."""
    user, nice, system, _, _, irq, softirq, _ = _ticks()
    return (user + nice + system + irq + softirq) / TICKS


def cpu_s(pid: int) -> float:
    """Return how much processor time a process has used. Raises OSError when it is gone."""
    fields = Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()
    return (int(fields[11]) + int(fields[12])) / TICKS


def memory_mb(pid: int, field: str) -> float:
    """Return a line of /proc/PID/status (VmRSS, VmHWM) in MB."""
    for line in Path(f"/proc/{pid}/status").read_text().splitlines():
        if line.startswith(f"{field}:"):
            return int(line.split()[1]) * 1024 / 1e6
    raise ValueError(f"no {field} in /proc")


def _ticks() -> list[int]:
    return [int(word) for word in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
