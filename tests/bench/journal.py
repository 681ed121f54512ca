"""What the journal of a stopped router tells of a run: what was accepted when, and settled when."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import apsw

from proto.message import decode_message
from router.core.delivery import State
from router.store.sqlite import FILE

TELEMETRY = ("telephony.", "vehicle.")
TIMER = ".timer."  # a connector's own alarm clock, which may wait for days
WORKER = "worker.changed.v1"  # the register's, loaded before the run begins
NOBODY = "admin"  # reads its queue with smpbus queues and smpbus trace, and settles nothing


@dataclass
class Story:
    """The journal by phase. Times to settle are milliseconds, from accepted to settled."""

    accepted: Counter[tuple[str, str]] = field(default_factory=Counter)  # by phase and type
    settle_ms: defaultdict[tuple[str, str], list[int]] = field(
        default_factory=lambda: defaultdict(list)  # by phase and destination
    )
    unsettled: Counter[str] = field(default_factory=Counter)  # by type; timers apart
    timers: int = 0
    again: int = 0  # deliveries that took more than one attempt

    def rate(self, phase: str, seconds: float, *, telemetry: bool) -> float:
        """Return how many messages of a sort were accepted a second."""
        return sum(self._counts(phase, telemetry)) / seconds

    def total(self, *, telemetry: bool) -> int:
        """Return how many messages of a sort were accepted in all."""
        return sum(self._counts(None, telemetry))

    def _counts(self, phase: str | None, telemetry: bool) -> Iterator[int]:
        """Yield the counts by type; timers and what was loaded before the run are no business."""
        for (one, type), count in self.accepted.items():
            counts = TIMER not in type and type != WORKER
            if counts and phase in (None, one) and type.startswith(TELEMETRY) == telemetry:
                yield count


def read(folder: Path, phase_at: Callable[[float], str], until_s: float) -> Story:
    """Read what the journal in `folder` has accepted until `until_s`; `phase_at` names the phase
    of a time, both in seconds since 1970."""
    db = apsw.Connection(str(folder / FILE), flags=apsw.SQLITE_OPEN_READONLY)
    story = Story()
    ends = {
        delivery: (state, attempts, ended_at)
        for delivery, state, attempts, ended_at in db.execute(
            "select delivery, state, attempts, ended_at from outcome"
        )
    }
    rows = db.execute(
        "select accepted_at, first_delivery, destinations, raw from message where accepted_at < ?",
        (int(until_s * 1000),),
    )
    for accepted_at, first, destinations, raw in rows:
        phase, type = phase_at(accepted_at / 1000), decode_message(raw).type
        story.accepted[phase, type] += 1
        for delivery, destination in enumerate(destinations.split(" "), first):
            state, attempts, ended_at = ends.get(delivery, (None, 0, 0))
            story.again += attempts > 1
            if TIMER in type and state in (None, State.SETTLED):
                story.timers += 1
            elif state == State.SETTLED:
                story.settle_ms[phase, destination].append(ended_at - accepted_at)
            elif destination != NOBODY:
                story.unsettled[type] += 1
    db.close()
    return story


def quantile(values: Sequence[float], part: float) -> float:
    """Return what `part` of the values are at most; 0 of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else 0.0
