"""What a drill found out, for people and for programs."""

import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from connectors.simulators.drill.books import Hop, Judgement, judge, quantile
from proto.wording import text

# A partner's trouble may not slow the others down by more than this, in the median: what they
# share is a machine, which may be busy.
SLOWED_MS: Final = 1000
FEW: Final = 5  # fewer deliveries have no median


@dataclass
class Course:
    """What happened when. Times are ms since 1970 UTC."""

    name: str
    destination: str
    mode: str
    rate: float
    bus: str = ""
    down_at: int = 0
    back_at: int = 0
    calls: int = 0
    hops: list[Hop] = field(default_factory=list)
    keys: list[str] | None = None


@dataclass(frozen=True)
class Delay:
    """How long deliveries of a destination took, before and meanwhile, in ms."""

    destination: str
    before: tuple[float | None, float | None]
    meanwhile: tuple[float | None, float | None]
    slowed: bool


class Report:
    """A finished drill."""

    def __init__(self, course: Course) -> None:
        self.course = course
        self.taken = [hop for hop in course.hops if hop.destination == course.destination]
        self.judgement: Judgement = judge(course.bus, self.taken, course.keys)
        self.delays = list(self._delays())

    @property
    def noticed_s(self) -> float | None:
        """After how long the first delivery was tried again; None: none had to be."""
        course = self.course
        tries = [at for hop in self.taken for at in hop.retried_at if at >= course.down_at]
        return (min(tries) - course.down_at) / 1000 if tries else None

    @property
    def tries(self) -> int:
        """How often deliveries were tried in vain."""
        return sum(len(hop.retried_at) for hop in self.taken)

    @property
    def peak(self) -> int:
        """How many of the drill's deliveries were open at once."""
        steps = [(hop.accepted_at, 1) for hop in self.taken]
        steps += [(hop.ended_at, -1) for hop in self.taken if hop.ended_at is not None]
        return max(itertools.accumulate(step for _, step in sorted(steps)), default=0)

    @property
    def oldest_s(self) -> float:
        """How long the one waited that waited longest."""
        waits = [hop.ended_at - hop.accepted_at for hop in self.taken if hop.ended_at is not None]
        return max(waits, default=0) / 1000

    @property
    def drained_s(self) -> float | None:
        """How long after the return what had come before it was delivered; None: not yet."""
        back_at = self.course.back_at
        waiting = [hop for hop in self.taken if hop.accepted_at < back_at]
        ends = [hop.ended_at for hop in waiting if hop.ended_at is not None]
        if len(ends) < len(waiting):
            return None
        return max(0, max(ends, default=0) - back_at) / 1000

    @property
    def broken(self) -> list[str]:
        """The promises that were not kept, as sentences."""
        found = self.judgement
        counts = {
            "lost": found.lost,
            "doubled": found.doubled,
            "disordered": found.disordered,
            "given_up": found.given_up,
            "open": found.open,
        }
        said = [text(f"drill.broken_{what}", count=n) for what, n in counts.items() if n]
        said += [
            text("drill.broken_slowed", destination=delay.destination)
            for delay in self.delays
            if delay.slowed
        ]
        if not self.taken:
            said.append(text("drill.broken_nothing", destination=self.course.destination))
        return said

    def plain(self) -> dict[str, Any]:
        """Return it for a program. Times are seconds and milliseconds as the names say."""
        course, found = self.course, self.judgement
        return {
            "partner": course.name,
            "mode": course.mode,
            "down_s": round((course.back_at - course.down_at) / 1000, 1),
            "calls": course.calls,
            "rate_per_s": course.rate,
            "deliveries": found.deliveries,
            "noticed_s": self.noticed_s,
            "tries_in_vain": self.tries,
            "queue_peak": self.peak,
            "oldest_s": round(self.oldest_s, 1),
            "drained_s": self.drained_s,
            "lost": found.lost,
            "doubled": found.doubled,
            "out_of_order": found.disordered,
            "given_up": found.given_up,
            "open": found.open,
            "others_ms": {
                delay.destination: {"before": delay.before, "meanwhile": delay.meanwhile}
                for delay in self.delays
            },
            "broken": self.broken,
        }

    def lines(self) -> Iterator[str]:
        """Yield what the administrator reads."""
        told = self.plain()
        yield text("drill.head", **told)
        noticed = self.noticed_s
        yield text("drill.unnoticed") if noticed is None else text("drill.noticed", **told)
        yield text("drill.queue", **told)
        drained = "drill.undrained" if self.drained_s is None else "drill.drained"
        yield text(drained, **told)
        yield text("drill.judged" if self.course.keys is not None else "drill.unjudged", **told)
        if self.delays:
            yield text("drill.others")
        for delay in self.delays:
            yield text(
                "drill.other",
                destination=f"{delay.destination:<10}",
                before=_pair(delay.before),
                meanwhile=_pair(delay.meanwhile),
            )

    def _delays(self) -> Iterator[Delay]:
        course = self.course
        names = {hop.destination for hop in course.hops} - {course.destination}
        for name in sorted(names):
            ended = [hop for hop in course.hops if hop.destination == name and hop.ended_at]
            before = _times(hop for hop in ended if hop.accepted_at < course.down_at)
            meanwhile = _times(
                hop for hop in ended if course.down_at <= hop.accepted_at < course.back_at
            )
            if not meanwhile:
                continue
            pairs = _quantiles(before), _quantiles(meanwhile)
            enough = min(len(before), len(meanwhile)) >= FEW
            slowed = enough and (pairs[1][0] or 0) > (pairs[0][0] or 0) + SLOWED_MS
            yield Delay(name, *pairs, slowed)


def _times(hops: Iterator[Hop]) -> list[float]:
    return [float(hop.ended_at - hop.accepted_at) for hop in hops if hop.ended_at is not None]


def _quantiles(values: Sequence[float]) -> tuple[float | None, float | None]:
    return quantile(values, 0.5), quantile(values, 0.99)


def _pair(pair: tuple[float | None, float | None]) -> str:
    return " / ".join("—" if one is None else f"{one:.0f}" for one in pair)
