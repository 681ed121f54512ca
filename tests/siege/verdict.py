"""What the good peer and the good caller wrote down, held against what the bus promises."""

import json
import math
from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from tests.chaos.ledger import read

RATIO_MAX: Final = 2.0
FLOOR_S: Final = 0.010  # below this a calm p99 does not tighten the bar: 20 ms are always allowed
ROUTER_MB: Final = 512.0
CONNECTOR_MB: Final = 256.0
CARD_S: Final = 10.0
CONNECTOR_NAMES: Final = ("sys112", "smp", "rmis", "external", "remd", "vimis")


@dataclass
class Book:
    """What became of the good peer's messages; times are seconds of the monotonic clock."""

    due: dict[str, float] = field(default_factory=dict)
    accepted: dict[str, float] = field(default_factory=dict)
    taken: dict[str, float] = field(default_factory=dict)
    refused: dict[str, tuple[str, float]] = field(default_factory=dict)
    order: list[tuple[str, int, str]] = field(default_factory=list)  # subject, number, id
    doubled: int = 0
    _read: int = 0  # bytes

    def follow(self, folder: Path) -> "Book":
        """Read the ledger on, as far as it has come."""
        file = folder / "good.ledger"
        if file.exists():
            with file.open("rb") as lines:
                lines.seek(self._read)
                whole = lines.read().rpartition(b"\n")[0]
            self._read += len(whole)
            for line in whole.split(b"\n"):
                if line:
                    self._note(json.loads(line))
        return self

    def _note(self, line: dict[str, Any]) -> None:
        if "due" in line:
            self.due[line["id"]] = line["due"]
        elif "accepted" in line:
            self.accepted[line["accepted"]] = line["at"]
        elif "refused" in line:
            self.refused[line["refused"]] = (line["code"], line["at"])
        elif line["taken"] in self.taken:
            self.doubled += 1
        else:
            self.taken[line["taken"]] = line["at"]
            self.order.append((line["subject"], line["number"], line["taken"]))

    def took(self, begin: float, end: float) -> list[float]:
        """Return how long each message of that time took until it was accepted and taken, in
        order; what has not been yet took until now, which is `end` at least."""
        found = []
        now = max(end, *self.taken.values(), *self.accepted.values())
        for id, due in self.due.items():
            if begin <= due < end and id not in self.refused:
                found.append(max(self.accepted.get(id, now), self.taken.get(id, now)) - due)
        return sorted(found)

    def refusals(self, begin: float, end: float) -> int:
        """Return how many messages were refused in that time."""
        return sum(begin <= at < end for _, at in self.refused.values())

    def lost(self) -> int:
        """Return how many were accepted and never taken."""
        return len(self.accepted.keys() - self.taken.keys())

    def reordered(self) -> int:
        """Return how many were taken after a later one of their subject."""
        newest: defaultdict[str, int] = defaultdict(lambda: -1)
        found = 0
        for subject, number, _ in self.order:
            found += number <= newest[subject]
            newest[subject] = max(number, newest[subject])
        return found


def cards(folder: Path) -> list[dict[str, Any]]:
    """Return the cards that the door answered 2xx."""
    return list(read(folder / "caller.ledger"))


def quantile(values: list[float], share: float) -> float:
    """Return a quantile of sorted values; infinite when there are none."""
    return values[min(len(values) - 1, math.ceil(len(values) * share) - 1)] if values else math.inf


@dataclass
class Line:
    """The figures of one phase."""

    name: str
    begin: float
    end: float
    p50_s: float = math.inf
    p99_s: float = math.inf
    ratio: float = math.nan
    router_mb: float = 0.0
    connector_mb: float = 0.0
    largest: str = ""  # the connector whose peak that is
    accepted: int = 0
    refused: int = 0
    card_s: float = 0.0  # the longest that a card waited at the door
    wrong: list[str] = field(default_factory=list)

    def measure(self, book: Book, calm_p99_s: float | None, waited: list[dict[str, Any]]) -> None:
        """Take the good peer's figures out of its ledger."""
        took = book.took(self.begin, self.end)
        self.p50_s, self.p99_s = quantile(took, 0.5), quantile(took, 0.99)
        self.accepted = sum(self.begin <= at < self.end for at in book.accepted.values())
        self.refused = book.refusals(self.begin, self.end)
        if calm_p99_s is not None:
            self.ratio = self.p99_s / max(calm_p99_s, FLOOR_S)
        waits = [one["ended"] - one["began"] for one in waited
                 if self.begin <= one["began"] < self.end]  # fmt: skip
        self.card_s = max(waits, default=0.0)

    def judge(self, *, by_time: bool) -> None:
        """Add a sentence for each bar that was missed; without `by_time` no quantile is judged."""
        if by_time and self.ratio > RATIO_MAX:
            self.wrong.append(f"p99 {self.p99_s * 1000:.0f} ms")
        if self.router_mb >= ROUTER_MB:
            self.wrong.append(f"router {self.router_mb:.0f} MB")
        if self.connector_mb >= CONNECTOR_MB:
            self.wrong.append(f"{self.largest} {self.connector_mb:.0f} MB")
        if self.refused:
            self.wrong.append(f"{self.refused} emergencies refused")
        if not self.accepted:
            self.wrong.append("nothing accepted")
        if by_time and self.card_s > CARD_S:
            self.wrong.append(f"a card waited {self.card_s:.0f} s")


HEAD: Final = (
    f"{'attack':24} {'p50':>8} {'p99':>8} {'ratio':>6} {'router':>7} {'connector':>16} "
    f"{'accepted':>8} {'card':>6}  verdict"
)


def row(line: Line) -> str:
    """Return a line of the table; times are milliseconds, memory is MB."""
    largest = f"{line.largest} {line.connector_mb:.0f}"
    return (
        f"{line.name:24} {line.p50_s * 1000:8.1f} {line.p99_s * 1000:8.1f} {line.ratio:6.2f} "
        f"{line.router_mb:7.0f} {largest:>16} {line.accepted:8} {line.card_s:6.1f}  "
        + ("; ".join(line.wrong) or "ok")
    )
