"""What the core wants done: frames to send, a transaction to make durable, events to show.

The core appends; the shell takes. Nothing of a batch may leave the process before the store has
synced it: what waits for that sits in the batch itself and comes out by `Core.persisted`.
"""

from dataclasses import dataclass, field

from router.core.delivery import Delivery

Frames = list[bytes]

# Rows as the store writes them, in the order of its columns (plain tuples: the hot path).
# n, source, id, subject, accepted_at, first delivery, destinations (space between), checksum, raw
MessageRow = tuple[int, str, str, str, int, int, str, int, bytes]
# destination, priority, delivery, n
BacklogRow = tuple[str, int, int, int]
# delivery, n, destination, state, attempts, delivered_at, ended_at, note
OutcomeRow = tuple[int, int, str, int, int, int | None, int, str | None]
# delivery, attempt, at, outcome, note, due
AttemptRow = tuple[int, int, int, str, str | None, int | None]


@dataclass(slots=True, eq=False)
class Batch:
    """One transaction, and what waits for its sync.

    A message's deliveries are numbered on from its first one, in the order of its destinations;
    one is open until it has an outcome. `frontier` spares a start the search through all history:
    no message below it has an open delivery that is not in the backlog.
    """

    messages: list[MessageRow] = field(default_factory=list)
    filed: list[BacklogRow] = field(default_factory=list)  # into the backlog
    unfiled: list[BacklogRow] = field(default_factory=list)  # out of it
    outcomes: list[OutcomeRow] = field(default_factory=list)
    reopened: list[tuple[int, str]] = field(default_factory=list)  # dead deliveries, destination
    dropped: list[tuple[int, str, str]] = field(default_factory=list)  # the same, and why
    holds: dict[str, str | None] = field(default_factory=dict)  # destination -> reason or None
    attempts: list[AttemptRow] = field(default_factory=list)
    fresh: list[Delivery] = field(default_factory=list)
    accepts: list[tuple[bytes, int]] = field(default_factory=list)  # (peer, its batch number)
    frontier: int = 1  # message number

    @property
    def hurries(self) -> bool:
        """Whether a sender waits for this batch."""
        return bool(self.accepts)

    def __bool__(self) -> bool:
        return bool(
            self.messages
            or self.outcomes
            or self.attempts
            or self.accepts
            or self.reopened
            or self.dropped
            or self.holds
        )


@dataclass(slots=True)
class Output:
    """Collected since the shell last looked."""

    sends: list[tuple[bytes, Frames]] = field(default_factory=list)
    batch: Batch = field(default_factory=Batch)
    events: list[tuple[str, dict[str, object]]] = field(default_factory=list)


@dataclass(frozen=True, slots=True)
class OpenDelivery:
    """A delivery that the store holds as open, read at the start.

    `due` is when its next attempt is, if it was retried (ms UTC); `filed` is the priority under
    which it is in the backlog, if it is.
    """

    delivery: int
    n: int
    destination: str
    accepted_at: int
    raw: bytes
    attempts: int = 0
    due: int | None = None
    filed: int | None = None
    ended_at: int | None = None  # of a dead letter
    note: str | None = None  # of a dead letter: why
