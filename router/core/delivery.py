"""One message at one destination, as the core holds it while it is open, and whose hands it is in.

Names go down, objects go up: a delivery knows its queue by name, hands know their session by the
routing id, and both leave what those are to the modules above.
"""

from enum import IntEnum
from typing import Final


class State(IntEnum):
    """Where an open delivery stands, and how it can end (from SETTLED on).

    A dead one may be replayed, which opens it again, or dropped.
    """

    DELAYED = 0  # its not_before has not come
    WAITING = 1  # an earlier message of its subject is open
    READY = 2  # in a lane, next when a consumer has credit
    IN_FLIGHT = 3  # at a consumer
    RETRYING = 4  # its next attempt has a time
    SETTLED = 5
    DEAD = 6
    EXPIRED = 7
    DROPPED = 8  # a dead letter that an operator gave up


# The same by short names: an enum's member costs a search in its class at each use.
DELAYED, WAITING, READY, IN_FLIGHT, RETRYING, SETTLED, DEAD, EXPIRED, DROPPED = State


URGENT_SHARE: Final = 8
OVERHEAD_BYTES: Final = 700  # measured: the object, its subject, its places in lists and dicts


class Allowance:
    """How many bytes of deliveries a session may be sent before it has read some."""

    __slots__ = ("bytes",)

    def __init__(self, bytes: int) -> None:
        self.bytes = bytes


class Delivery:
    """`id` is stable for ever; `raw` is the message as it came over the wire."""

    __slots__ = (
        "accepted_at",
        "attempts",
        "born_ms",
        "delivered_at",
        "destination",
        "due",
        "expires",
        "filed",
        "holder",
        "id",
        "lane",
        "lonely",
        "n",
        "place",
        "priority",
        "proof",
        "raw",
        "sender",
        "state",
        "subject",
        "suspect",
        "timed",
        "vanished",
        "wake_ms",
    )  # fmt: skip

    def __init__(
        self,
        id: int,
        n: int,
        destination: str,
        subject: str,
        priority: int,
        raw: bytes,
        accepted_at: int,
        born_ms: int,
        due: int | None = None,
        expires: int | None = None,
        attempts: int = 0,
        sender: str = "",
    ) -> None:
        self.id = id
        self.n = n
        self.destination = destination
        self.subject = subject
        self.priority = priority  # its own, or that of what waits behind it
        self.lane = priority  # its own
        self.place = priority  # the lane of the backlog under which it is filed, if it is
        self.raw = raw
        self.accepted_at = accepted_at  # ms UTC
        self.born_ms = born_ms  # monotonic: when this router got it, and its age begins
        self.due = due  # ms UTC; None is now
        self.expires = expires  # ms UTC
        self.attempts = attempts
        self.state = READY
        self.holder: Holding | None = None
        self.delivered_at: int | None = None  # ms UTC, of the latest attempt
        self.timed = False  # a timer waits for its expires
        self.filed = False  # in the store's backlog
        self.wake_ms = 0  # monotonic: when it was handed out, or may go again
        self.vanished = 0  # so often in a row did its consumer die soon after it got it,
        self.lonely = 0  # and so often of these had it nothing else, and was well otherwise
        self.proof = 0  # what the queue's consumers had settled when that was last counted
        self.sender = sender  # who counts for it in its queue, "" if nobody does
        self.suspect = False  # it may be what its consumers die of: it goes alone

    def acquit(self) -> None:
        """Its consumer has outlived it: it is no suspect."""
        self.vanished = self.lonely = 0
        self.suspect = False

    @property
    def size(self) -> int:
        """Return about how many bytes of memory it takes."""
        return len(self.raw) + OVERHEAD_BYTES


class Holding:
    """What one session holds of one queue, and how much it is ready to hold."""

    __slots__ = ("allowance", "destination", "held", "peer", "serves", "suspect", "window")

    def __init__(self, peer: bytes, destination: str, allowance: "Allowance") -> None:
        """`allowance` is that of the session, which has it in common."""
        self.peer = peer
        self.destination = destination
        self.allowance = allowance
        self.window = 0
        self.serves: bool | None = None  # questions; None: it does not know of that word
        self.held: dict[int, Delivery] = {}
        self.suspect: Delivery | None = None  # one of them, on trial

    def room(self, priority: int) -> int:
        """Return how many more deliveries of this priority fit into the credit; none, if what it
        was sent is unread."""
        if self.allowance.bytes <= 0 or (self.suspect is not None and priority):
            return 0
        window = self.window
        if priority >= 2 and window >= URGENT_SHARE // 2:
            window -= max(1, window // URGENT_SHARE)
        return window - len(self.held)

    def is_quiet(self, since_ms: int) -> bool:
        """Whether it has room, and has got nothing since a monotonic time."""
        if self.room(0) <= 0 or self.suspect is not None:
            return False
        return not self.held or next(reversed(self.held.values())).wake_ms <= since_ms
