"""Runs targets, input by input, and judges: no exception, no word of a mistake in a log, no answer
5xx, nothing over a second, memory flat."""

import asyncio
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
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from random import Random
from typing import Any, Final

import uvloop

from tests.bench.machine import memory_mb
from tests.fuzz import answers, doors, files, wire
from tests.fuzz.real import play_real
from tests.fuzz.tally import SAYS, Finding, Memory, Tally
from tests.fuzz.target import Lines, Target, Wrong, mistake, show, spent_s

TARGETS: Final[dict[str, type[Target]]] = {
    target.name: target
    for module in (wire, doors, answers, files)
    for target in module.TARGETS
}  # fmt: skip
REAL: Final = "real"
REAL_SHARE: Final = 0.02  # of the inputs goes through real sockets
SLOW_S: Final = 1.0  # of the processor, twice: when it came and played again
HANGS_S: Final = 30.0  # of the processor
STANDS_S: Final = 1800  # a group, of any time: it waits for what does not come
WAITS_S: Final = 0.03
PROCESSES: Final = 2  # for each core: half of them wait, for news or until they may ask again
SHOWN_EVERY_S: Final = 15.0
WARM: Final = 0.2  # of the inputs: then caches are full
LEAST: Final = 0.002  # of the inputs, whatever a target weighs
SLOW_MAX: Final = 3  # played again for each group
ROOT: Final = Path(__file__).parents[2]


@dataclass(frozen=True)
class Work:
    """A share of the inputs: of each target the groups whose number fits; or `real` of them."""

    seed: int
    counts: dict[str, int]
    job: int = 0
    jobs: int = 1
    real: int = 0

    def groups(self) -> Iterator[tuple[type[Target], int, int]]:
        """Yield (target, first, behind the last), all targets evenly until the end."""
        turns = []
        for at, (name, count) in enumerate(self.counts.items()):
            size = TARGETS[name].group
            firsts = range(self.job * size, count, self.jobs * size)
            turns += [((turn + 0.5) / len(firsts), at, name, first)
                      for turn, first in enumerate(firsts)]  # fmt: skip
        for _, _, name, first in sorted(turns):
            yield TARGETS[name], first, min(first + TARGETS[name].group, self.counts[name])


def counts(inputs: int, names: Sequence[str] = ()) -> dict[str, int]:
    """Share inputs among targets by their weight; none has less than `LEAST` of them."""
    chosen = {name: TARGETS[name].weight for name in names or TARGETS}
    least = max(1, round(inputs * LEAST))
    rest = max(0, inputs - least * len(chosen))
    whole = sum(chosen.values())
    return {name: least + round(rest * weight / whole) for name, weight in chosen.items()}


def chance(seed: int, name: str, number: int) -> Random:
    """Return all the chance that one input has."""
    return Random(f"{seed}:{name}:{number}")


class Player:
    """Plays groups in this process."""

    def __init__(self, seed: int, folder: Path) -> None:
        self.tally = Tally()
        self._seed = seed
        self._folder = folder
        self._lines = Lines(mistake())
        self._slow: list[int] = []
        self._shown_at = time.monotonic()

    async def play(self, work: Work) -> None:
        """Play a share of the inputs."""
        loop = asyncio.get_running_loop()
        loop.set_exception_handler(lambda _, told: self._lines.found.append(_background(told)))
        root = logging.getLogger()
        root.handlers[:] = [self._lines]
        root.setLevel(logging.WARNING)
        whole = sum(work.counts.values()) / work.jobs
        memory = Memory(memory_mb(os.getpid(), "VmRSS"))
        for target, first, end in work.groups():
            await self.group(target, first, end)
            self._show(work, whole)
            if not memory.warm and self.tally.inputs > whole * WARM:
                memory.warm = memory_mb(os.getpid(), "VmRSS")
        memory.end = memory_mb(os.getpid(), "VmRSS")
        self.tally.memory[f"job {work.job}"] = memory

    def _show(self, work: Work, whole: float) -> None:
        now = time.monotonic()
        if now - self._shown_at > SHOWN_EVERY_S:
            self._shown_at = now
            done, found = self.tally.inputs, len(self.tally.findings)
            print(f"job {work.job}: {done} of {whole:.0f} inputs, {found} findings",
                  file=sys.stderr, flush=True)  # fmt: skip

    async def group(self, shape: type[Target], first: int, end: int) -> None:
        """Play a group, or its beginning."""
        signal.alarm(STANDS_S)
        target = shape()
        number = first
        try:
            await target.open(self._empty())
            for number in range(first, end):
                await self._one(target, number)
                if number % 100 == 0:
                    await asyncio.sleep(0)
            await asyncio.sleep(0)
            await target.close()
        except Exception as error:
            self._found(target, number, f"at the end of its group: {_told(error)}")
        self._judge_lines(target, number)
        slow, self._slow = self._slow[:SLOW_MAX], []
        for number in slow:
            if (again_s := await self._again_s(shape, first, number)) > SLOW_S:
                self._found(target, number, f"took over a second twice{SAYS}{again_s:.1f} s")
        signal.setitimer(signal.ITIMER_PROF, 0.0)
        signal.alarm(0)

    def _empty(self) -> Path:
        folder = self._folder / "group"
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        return folder

    async def _one(self, target: Target, number: int) -> None:
        random = chance(self._seed, target.name, number)
        signal.setitimer(signal.ITIMER_PROF, HANGS_S)
        answer = "wrong"
        began = spent_s()
        try:
            async with asyncio.timeout(WAITS_S) as waiting:
                answer = await target.run(random)
        except Exception as error:
            # Whoever asks for it may wait: for news, or until a partner may be asked again.
            if waiting.expired():
                answer = "waits"
            else:
                self._found(target, number, _told(error))
        took_s = spent_s() - began
        figures = self.tally.of(target.name)
        figures.inputs += 1
        figures.cpu_s += took_s
        figures.answers[answer] += 1
        figures.worst_s = max(figures.worst_s, took_s)
        if took_s > SLOW_S:
            self._slow.append(number)
        if self._lines.found:
            self._judge_lines(target, number)

    async def _again_s(self, shape: type[Target], first: int, number: int) -> float:
        """Play one input again, behind those before it; return what it takes of the processor."""
        target = shape()
        took_s = 0.0
        await target.open(self._empty())
        for one in range(first, number + 1):
            began = spent_s()
            try:
                async with asyncio.timeout(WAITS_S):
                    await target.run(chance(self._seed, target.name, one))
            except Exception:
                pass  # judged when it came
            took_s = spent_s() - began
        await target.close()
        self._lines.found.clear()
        return took_s

    def _judge_lines(self, target: Target, number: int) -> None:
        for line in self._lines.found:
            self._found(target, number, line[:200])
        self._lines.found.clear()

    def _found(self, target: Target, number: int, problem: str) -> None:
        self.tally.note(Finding(target.name, self._seed, number, problem, show(target.shown)))


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
    at = ours[-1] if ours else frames[-1] if frames else None
    where = f"{at.filename.removeprefix(f'{ROOT}/')}:{at.lineno}" if at else "nowhere"
    return f"{type(error).__name__} at {where}{SAYS}{str(error)[:150]}"


def _hangs(*_: object) -> None:
    raise Wrong(f"went on for {HANGS_S:.0f} s")


def play(work: Work) -> Tally:
    """Play a share in this process."""
    signal.signal(signal.SIGPROF, _hangs)
    signal.signal(signal.SIGALRM, _hangs)
    folder = Path(tempfile.mkdtemp(prefix="smpbus-fuzz-", dir="/tmp"))
    try:
        if work.real:
            return play_real(work.seed, work.real, folder)
        player = Player(work.seed, folder)
        uvloop.run(player.play(work))
        return player.tally
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def play_all(seed: int, wanted: dict[str, int], real: int, jobs: int) -> Tally:
    """Play on so many cores."""
    processes = 1 if jobs == 1 and not real else jobs * PROCESSES
    shares = [Work(seed, wanted, job, processes) for job in range(processes)] if wanted else []
    if real:
        shares.insert(0, Work(seed, {}, real=real))
    if len(shares) == 1:
        return play(shares[0])
    whole = Tally()
    with ProcessPoolExecutor(len(shares), mp_context=get_context("spawn")) as pool:
        for tally in pool.map(play, shares):
            whole.add(tally)
    return whole


def again(name: str, seed: int, number: int) -> Tally:
    """Play one input alone, behind those of its group that come before it."""
    if name.startswith(REAL):
        return play_real(seed, number + 1, Path(tempfile.mkdtemp(prefix="smpbus-fuzz-")), name)
    group = TARGETS[name].group
    first = number - number % group

    async def run(player: Player) -> None:
        await player.play(Work(seed, {}))
        await player.group(TARGETS[name], first, number + 1)

    signal.signal(signal.SIGPROF, _hangs)
    signal.signal(signal.SIGALRM, _hangs)
    folder = Path(tempfile.mkdtemp(prefix="smpbus-fuzz-", dir="/tmp"))
    player = Player(seed, folder)
    try:
        uvloop.run(run(player))
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return player.tally
