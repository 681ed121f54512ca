"""One delivery as the model sees it, from the outside."""

from proto.message import Message
from router.core.delivery import OVERHEAD_BYTES

# Not known to be on disk; before its time; in its line; on the disk and not in memory, or there
# and waiting for what is.
UNWRITTEN, DELAYED, LINED, AWAY = range(4)


class Item:
    """A delivery that has not ended."""

    __slots__ = (
        "accepted_at",
        "attempts",
        "blind",
        "expiries",
        "hand",
        "id",
        "lane",
        "message",
        "n",
        "queue",
        "raw",
        "replayed",
        "retrying",
        "size",
        "state",
        "subject",
        "timed",
        "unread",
        "urgency",
        "wait_until",
    )  # fmt: skip

    def __init__(self, id: int, n: int, queue: str, message: Message, raw: bytes, at: int) -> None:
        self.id = id
        self.n = n
        self.queue = queue
        self.message = message
        self.raw = raw
        self.size = len(raw) + OVERHEAD_BYTES
        self.lane: int = message.priority
        self.unread = False  # on the disk only
        self.subject = message.subject
        self.accepted_at = at  # ms UTC
        self.attempts = 0
        self.state = UNWRITTEN
        self.hand: bytes | None = None  # the peer that holds it
        self.retrying = False
        self.wait_until = 0  # monotonic ms
        self.urgency: int = message.priority
        self.expiries: list[int] = []  # monotonic ms
        self.timed = False  # the latest of them is to come
        self.blind = False  # its time ran out in a hand, or before it was queued
        self.replayed = False

    def overdue(self, wall_ms: int, mono_ms: int) -> bool:
        """Whether its `expires` has come, by one of the clocks."""
        expires = self.message.expires
        if expires is None:
            return False
        return expires <= wall_ms or self.blind or any(at <= mono_ms for at in self.expiries)

    def overdue_by_both(self, wall_ms: int, mono_ms: int) -> bool:
        """Whether its `expires` has come by the wall clock and by the one that never jumps."""
        expires = self.message.expires
        if expires is None or expires > wall_ms:
            return False
        return self.blind or any(at <= mono_ms for at in self.expiries)
