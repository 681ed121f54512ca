"""What the core wants done: frames to send, a transaction to make durable, events to show.

The core appends; the shell takes. Nothing of a batch may leave the process before the store has
synced it: what waits for that sits in the batch itself and comes out by `Core.persisted`.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import msgspec

from router.core.delivery import Delivery

Frames = list[bytes]

# Rows as the store writes them, in the order of its columns (plain tuples: the hot path).
# n, source, id, subject, accepted_at, first delivery, destinations (space between), checksum, raw
MessageRow = tuple[int, str, str, str, int, int, str, int, bytes]
# destination, lane, delivery, n, hash of the subject (0: it has none)
BacklogRow = tuple[str, int, int, int, int]
# delivery, n, destination, state, attempts, delivered_at, ended_at, note
OutcomeRow = tuple[int, int, str, int, int, int | None, int, str | None]
# delivery, attempt, at, outcome, note, due, age in ms
AttemptRow = tuple[int, int, int, str, str | None, int | None, int]


class Filed(NamedTuple):
    """A run of the backlog as a start finds it: one lane, by delivery, side by side."""

    destination: str
    lane: int
    deliveries: Sequence[int]
    hashes: Sequence[int]  # of their subjects, 0: it has none


@dataclass(frozen=True, slots=True)
class Load:
    """What is to be read back of the backlog of a destination: the rows of `lane` that come after
    a delivery, as many as fit the store's limits, or those at `places` (delivery, lane) and no
    others: all of them when `subject` waits for them, else the first ones that fit the limits."""

    destination: str
    lane: int = 0
    after: int = 0
    places: tuple[tuple[int, int], ...] = ()
    subject: str = ""

    @property
    def wakes(self) -> bool:
        """Whether it reads what slept until its time came."""
        return bool(self.places) and not self.subject


@dataclass(slots=True, eq=False)
class Batch:
    """One transaction, what waits for its sync, and what is to be read when it is on disk.

    A message's deliveries are numbered on from its first one, in the order of its destinations;
    one is open until it has an outcome. `frontier` spares a start the search through all history:
    no message below it has an open delivery that is not in the backlog.
    """

    messages: list[MessageRow] = field(default_factory=list)
    filed: list[BacklogRow] = field(default_factory=list)  # into the backlog
    spilled: list[BacklogRow] = field(default_factory=list)  # the same, of messages in this batch
    unfiled: list[BacklogRow] = field(default_factory=list)  # out of it
    outcomes: list[OutcomeRow] = field(default_factory=list)
    reopened: list[tuple[int, str]] = field(default_factory=list)  # dead deliveries, destination
    dropped: list[tuple[int, str, str]] = field(default_factory=list)  # the same, and why
    holds: dict[str, str | None] = field(default_factory=dict)  # destination -> reason or None
    attempts: list[AttemptRow] = field(default_factory=list)
    fresh: list[Delivery] = field(default_factory=list)
    accepts: list[tuple[bytes, int]] = field(default_factory=list)  # (peer, its batch number)
    loads: list[Load] = field(default_factory=list)
    frontier: int = 1  # message number
    size: int = 0  # bytes of its messages

    @property
    def hurries(self) -> bool:
        """Whether a sender waits for this batch, or a queue for what it reads."""
        return bool(self.messages or self.accepts or self.loads)

    @property
    def writes(self) -> bool:
        """Whether there is something to make durable."""
        return bool(
            self.messages
            or self.outcomes
            or self.attempts
            or self.accepts
            or self.filed
            or self.reopened
            or self.dropped
            or self.holds
        )

    def __bool__(self) -> bool:
        return bool(self.loads) or self.writes


@dataclass(slots=True)
class Output:
    """Collected since the shell last looked."""

    sends: list[tuple[bytes, Frames]] = field(default_factory=list)
    batch: Batch = field(default_factory=Batch)
    events: list[tuple[str, dict[str, object]]] = field(default_factory=list)


class OpenDelivery(msgspec.Struct, frozen=True, gc=False):
    """A delivery that the store holds as open, read at the start.

    `due` is when its next attempt is, if it was retried (ms UTC); `filed` is the lane under which
    it is in the backlog, if it is. Since it was last retried or replayed its consumers `vanished`
    so often with it in hand, and so often of these it was the only one (`lonely`). `age` (ms) is
    what routers have seen pass since they got it, or replayed it.
    """

    delivery: int
    n: int
    destination: str
    accepted_at: int
    raw: bytes
    attempts: int = 0
    due: int | None = None
    filed: int | None = None
    vanished: int = 0
    lonely: int = 0
    age: int = 0
    ended_at: int | None = None  # of a dead letter
    note: str | None = None  # of a dead letter: why
