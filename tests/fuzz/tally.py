"""What a campaign comes to: findings, said at once and kept in a file; figures by target; memory of
each process; a table and one JSON object at the end."""

import json
import sys
import tempfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

GROWTH_MB: Final = 96.0  # of a process after its first fifth
FINDINGS_MAX: Final = 200
SHOWN_MAX: Final = 12_000  # of what a finding is shown with, in the file
ANSWERS_SHOWN: Final = 6
SAYS: Final = ", which says "  # what follows is of one input; what is before is of its kind


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
        again = f"python -m tests.fuzz --replay {self.target}:{self.seed}:{self.input}"
        times = f" ({self.count} times)" if self.count > 1 else ""
        return f"{self.target}: {self.problem}{times}\n    {again}\n    {self.shown}"


def kept(seed: int) -> Path:
    """Return the file that keeps the findings of a seed."""
    return Path(tempfile.gettempdir()) / f"smpbus-fuzz-{seed}.findings"


def tell(finding: Finding) -> None:
    """Say it at once, and keep it in a file: a campaign that is ended half way has told all."""
    told = f"FOUND {finding.sentence()}\n"
    with kept(finding.seed).open("a", encoding="utf-8", errors="backslashreplace") as file:
        file.write(told)
    sys.stderr.write(told)
    sys.stderr.flush()


@dataclass
class Figures:
    """One target: processor time, without that of others on a busy machine."""

    inputs: int = 0
    cpu_s: float = 0.0
    worst_s: float = 0.0
    answers: Counter[str] = field(default_factory=Counter)

    def add(self, other: "Figures") -> None:
        """Take in what another process played."""
        self.inputs += other.inputs
        self.cpu_s += other.cpu_s
        self.worst_s = max(self.worst_s, other.worst_s)
        self.answers += other.answers


@dataclass
class Memory:
    """Of one process, in MB: at its start, after the first fifth of its inputs, at its end."""

    start: float
    warm: float = 0.0
    end: float = 0.0

    @property
    def grown(self) -> float:
        """How much it grew when its caches were full."""
        return self.end - self.warm if self.warm else 0.0


@dataclass
class Tally:
    """What one process found."""

    findings: dict[str, Finding] = field(default_factory=dict)  # by target and problem
    figures: dict[str, Figures] = field(default_factory=dict)  # by target
    memory: dict[str, Memory] = field(default_factory=dict)  # by process

    @property
    def inputs(self) -> int:
        """How many were played."""
        return sum(one.inputs for one in self.figures.values())

    def of(self, target: str) -> Figures:
        """Return the figures of a target."""
        return self.figures.setdefault(target, Figures())

    def note(self, finding: Finding) -> None:
        """Keep the first of each kind, and say it at once."""
        key = f"{finding.target}: {finding.problem.partition(SAYS)[0]}"
        if key in self.findings:
            self.findings[key].count += 1
        elif len(self.findings) < FINDINGS_MAX:
            self.findings[key] = finding
            tell(finding)

    def add(self, other: "Tally") -> None:
        """Take in what another process found."""
        self.memory |= other.memory
        for key, finding in other.findings.items():
            if key in self.findings:
                self.findings[key].count += finding.count
            else:
                self.findings[key] = finding
        for name, figures in other.figures.items():
            self.of(name).add(figures)

    def problems(self) -> list[str]:
        """Return what is wrong, a sentence each."""
        return [finding.sentence() for finding in self.findings.values()] + [
            f"memory of {name} grew by {one.grown:.0f} MB after the first fifth"
            for name, one in self.memory.items()
            if one.grown > GROWTH_MB
        ]

    def table(self) -> Iterator[str]:
        """Yield lines: what each target was given, and what came of it."""
        yield f"{'target':24}{'inputs':>10}{'CPU us':>8}{'worst ms':>9}  answers"
        for name, one in sorted(self.figures.items()):
            most = one.answers.most_common(ANSWERS_SHOWN)
            answers = ", ".join(f"{word} {count}" for word, count in most)
            rest = one.answers.total() - sum(count for _, count in most)
            each_us = one.cpu_s / max(1, one.inputs) * 1e6
            yield (
                f"{name:24}{one.inputs:10}{each_us:8.0f}{one.worst_s * 1000:9.0f}  {answers}"
                + (f", other {rest}" if rest else "")
            )
        yield f"{'process':24}{'start MB':>10}{'warm MB':>9}{'end MB':>8}"
        for name, memory in sorted(self.memory.items()):
            yield f"{name:24}{memory.start:10.0f}{memory.warm:9.0f}{memory.end:8.0f}"

    def last_line(self, seed: int, seconds: float) -> str:
        """Return the figures as one JSON object."""
        figures = self.figures.items()
        return json.dumps({
            "ok": not self.problems(), "seed": seed, "inputs": self.inputs,
            "findings": len(self.findings),
            "slowest_s": round(max((one.worst_s for _, one in figures), default=0.0), 3),
            "grown_mb": round(max((one.grown for one in self.memory.values()), default=0.0), 1),
            "seconds": round(seconds, 1),
            "targets": {name: one.inputs for name, one in sorted(figures)},
            "kinds": [one.problem for one in self.findings.values()][:20],
        }, ensure_ascii=False)  # fmt: skip
