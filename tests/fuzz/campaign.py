"""Runs targets, input by input, and judges: no exception, no word of a mistake in a log, no answer
5xx, nothing over a second, memory flat."""

import asyncio
import json
import logging
import os
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any, Final

import uvloop

from proto.wording import text
from tests.bench.machine import memory_mb
from tests.fuzz import answers, doors, files, wire
from tests.fuzz.target import Lines, Target, Wrong, show, spent_s

TARGETS: Final[dict[str, type[Target]]] = {
    target.name: target
    for module in (wire, doors, answers, files)
    for target in module.TARGETS
}  # fmt: skip
SLOW_S: Final = 1.0
HANGS_S: Final = 30
WAITS_S: Final = 0.03
SHOWN_EVERY_S: Final = 15.0
GROWTH_MB: Final = 96.0
WARM: Final = 0.2  # of the inputs: then caches are full
FINDINGS_MAX: Final = 200
SAYS: Final = ", which says "  # what follows is of one input; what is before is of its kind
ROOT: Final = Path(__file__).parents[2]


@dataclass
class Finding:
    """Something wrong, and how to meet it again."""

    target: str
    seed: int
    input: int
    problem: str
    shown: str
    count: int = 1

    def sentence(self) -> str:
        """Return it for people, with the command."""
        again = f"python -m tests.fuzz --only {self.target} --seed {self.seed} --input {self.input}"
        times = f" ({self.count} times)" if self.count > 1 else ""
        return f"{self.target}: {self.problem}{times}\n    {again}\n    {self.shown}"


@dataclass
class Tally:
    """What one process found."""

    inputs: int = 0
    findings: dict[str, Finding] = field(default_factory=dict)  # by target and problem
    slowest_s: float = 0.0
    grown_mb: float = 0.0
    by_target: dict[str, tuple[int, float]] = field(default_factory=dict)  # inputs, seconds

    def note(self, finding: Finding) -> None:
        """Keep the first of each kind."""
        key = f"{finding.target}: {finding.problem.partition(SAYS)[0]}"
        if key in self.findings:
            self.findings[key].count += 1
        elif len(self.findings) < FINDINGS_MAX:
            self.findings[key] = finding

    def add(self, other: "Tally") -> None:
        """Take in what another process found."""
        self.inputs += other.inputs
        self.slowest_s = max(self.slowest_s, other.slowest_s)
        self.grown_mb = max(self.grown_mb, other.grown_mb)
        for key, finding in other.findings.items():
            if key in self.findings:
                self.findings[key].count += finding.count
            else:
                self.findings[key] = finding
        for name, (count, seconds) in other.by_target.items():
            before = self.by_target.get(name, (0, 0.0))
            self.by_target[name] = (before[0] + count, before[1] + seconds)


@dataclass(frozen=True)
class Work:
    """A share of the inputs: of each target the groups whose number fits."""

    seed: int
    counts: dict[str, int]
    job: int = 0
    jobs: int = 1

    def groups(self) -> Iterator[tuple[type[Target], int, int]]:
        """Yield (target, first, behind the last) in turns, so that all are at work all the time."""
        pending = {
            name: iter(range(self.job * TARGETS[name].group, count,
                             self.jobs * TARGETS[name].group))
            for name, count in self.counts.items()
        }  # fmt: skip
        while pending:
            for name, firsts in list(pending.items()):
                first = next(firsts, None)
                if first is None:
                    del pending[name]
                    continue
                target = TARGETS[name]
                yield target, first, min(first + target.group, self.counts[name])


def counts(inputs: int, names: Sequence[str] = ()) -> dict[str, int]:
    """Share inputs among targets by their weight."""
    chosen = {name: TARGETS[name].weight for name in names or TARGETS}
    whole = sum(chosen.values())
    return {name: max(1, round(inputs * weight / whole)) for name, weight in chosen.items()}


def chance(seed: int, name: str, number: int) -> Random:
    """Return all the chance that one input has."""
    return Random(f"{seed}:{name}:{number}")


class Player:
    """Plays groups in this process."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.tally = Tally()
        self._seed = seed
        self._folder = folder
        self._lines = Lines(_mistake())
        self._warm_mb = 0.0
        self._shown_at = time.monotonic()

    async def play(self, work: Work) -> None:
        """Play a share of the inputs."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, told: self._lines.found.append(_background(told)))
        root = logging.getLogger()
        root.handlers[:] = [self._lines]
        root.setLevel(logging.WARNING)
        whole = sum(work.counts.values()) / work.jobs
        for target, first, end in work.groups():
            await self._group(target(), first, end)
            self._show(whole)
            if not self._warm_mb and self.tally.inputs > whole * WARM:
                self._warm_mb = memory_mb(os.getpid(), "VmRSS")
        if self._warm_mb:
            self.tally.grown_mb = memory_mb(os.getpid(), "VmRSS") - self._warm_mb

    def _show(self, whole: float) -> None:
        now = time.monotonic()
        if now - self._shown_at > SHOWN_EVERY_S:
            self._shown_at = now
            done, found = self.tally.inputs, len(self.tally.findings)
            print(f"{done} of {whole:.0f} inputs, {found} findings", file=sys.stderr, flush=True)

    async def _group(self, target: Target, first: int, end: int) -> None:
        began = time.monotonic()
        folder = self._folder / "group"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        number = first
        try:
            await target.open(folder)
            for number in range(first, end):
                await self._one(target, number)
                if number % 100 == 0:
                    await asyncio.sleep(0)
            await asyncio.sleep(0)
            await target.close()
        except Exception as error:
            self._found(target, number, f"at the end of its group: {_told(error)}")
        self._judge_lines(target, number)
        before = self.tally.by_target.get(target.name, (0, 0.0))
        self.tally.by_target[target.name] = (
            before[0] + end - first, before[1] + time.monotonic() - began,
        )  # fmt: skip

    async def _one(self, target: Target, number: int) -> None:
        random = chance(self._seed, target.name, number)
        self.tally.inputs += 1
        signal.alarm(HANGS_S)
        began = spent_s()
        try:
            async with asyncio.timeout(WAITS_S) as waiting:
                await target.run(random)
        except Exception as error:
            # Whoever asks for it may wait: for news, or until a partner may be asked again.
            if not waiting.expired():
                self._found(target, number, _told(error))
        took_s = spent_s() - began
        signal.alarm(0)
        self.tally.slowest_s = max(self.tally.slowest_s, took_s)
        if took_s > SLOW_S:
            self._found(target, number, "took over a second")
        if self._lines.found:
            self._judge_lines(target, number)

    def _judge_lines(self, target: Target, number: int) -> None:
        for line in self._lines.found:
            self._found(target, number, line[:200])
        self._lines.found.clear()

    def _found(self, target: Target, number: int, problem: str) -> None:
        self.tally.note(Finding(target.name, self._seed, number, problem, show(target.shown)))


def _mistake() -> str:
    """Return what a line of the log begins with when a connector made a mistake."""
    return text("connector.mistake", id="\0", kind="").partition("\0")[0].strip()


def _background(told: dict[str, Any]) -> str:
    error = told.get("exception")
    return f"in the background: {_told(error) if error else told.get('message')}"


def _told(error: BaseException) -> str:
    """Return the kind of an error and the place in our files where it arose."""
    if isinstance(error, Wrong):
        return str(error)
    frames = traceback.extract_tb(error.__traceback__)
    ours = [one for one in frames if one.filename.startswith(str(ROOT)) and ".venv" not in
            one.filename and "tests/fuzz/campaign" not in one.filename]  # fmt: skip
    at = ours[-1] if ours else frames[-1]
    where = at.filename.removeprefix(f"{ROOT}/")
    return f"{type(error).__name__} at {where}:{at.lineno}{SAYS}{str(error)[:150]}"


def _hangs(*_: object) -> None:
    raise Wrong(f"went on for {HANGS_S} s")


def play(work: Work) -> Tally:
    """Play a share in this process."""
    signal.signal(signal.SIGALRM, _hangs)
    folder = Path(tempfile.mkdtemp(prefix="smpbus-fuzz-", dir="/tmp"))
    player = Player(work.seed, folder)
    try:
        uvloop.run(player.play(work))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return player.tally


def play_all(seed: int, wanted: dict[str, int], jobs: int) -> Tally:
    """Play in so many processes."""
    shares = [Work(seed, wanted, job, jobs) for job in range(jobs)]
    if jobs == 1:
        return play(shares[0])
    whole = Tally()
    with ProcessPoolExecutor(jobs, mp_context=get_context("spawn")) as pool:
        for tally in pool.map(play, shares):
            whole.add(tally)
    return whole


def again(name: str, seed: int, number: int) -> Tally:
    """Play one input alone, behind those of its group that come before it."""
    group = TARGETS[name].group
    first = number - number % group

    async def run(player: Player) -> None:
        await player.play(Work(seed, {}))
        await player._group(TARGETS[name](), first, number + 1)

    signal.signal(signal.SIGALRM, _hangs)
    folder = Path(tempfile.mkdtemp(prefix="smpbus-fuzz-", dir="/tmp"))
    player = Player(seed, folder)
    try:
        uvloop.run(run(player))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return player.tally


def problems(tally: Tally) -> list[str]:
    """Return what is wrong, a sentence each."""
    told = [finding.sentence() for finding in tally.findings.values()]
    if tally.grown_mb > GROWTH_MB:
        told.append(f"memory grew by {tally.grown_mb:.0f} MB after the first fifth")
    return told


def last_line(seed: int, tally: Tally, seconds: float) -> str:
    """Return the figures as one JSON object."""
    return json.dumps({
        "ok": not problems(tally), "seed": seed, "inputs": tally.inputs,
        "findings": len(tally.findings), "slowest_s": round(tally.slowest_s, 3),
        "grown_mb": round(tally.grown_mb, 1), "seconds": round(seconds, 1),
        "targets": {name: count for name, (count, _) in sorted(tally.by_target.items())},
        "kinds": [asdict(one)["problem"] for one in tally.findings.values()][:20],
    }, ensure_ascii=False)  # fmt: skip
