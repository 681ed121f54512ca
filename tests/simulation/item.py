"""One delivery as the model sees it, from the outside."""

from proto.message import Message
from router.core.delivery import OVERHEAD_BYTES

# Not known to be on disk; before its time; in its line; on the disk and not in memory, or there
# and waiting for what is.
UNWRITTEN, DELAYED, LINED, AWAY = range(4)


class Item:
    """A delivery that has not ended."""

    __slots__ = (
        "asleep",
        "attempts",
        "born_ms",
        "hand",
        "id",
        "lane",
        "message",
        "n",
        "queue",
        "raw",
        "replayed",
        "retrying",
        "since_ms",
        "size",
        "state",
        "subject",
        "unread",
        "urgency",
        "wait_until",
    )  # fmt: skip

    def __init__(self, id: int, n: int, queue: str, message: Message, raw: bytes) -> None:
        self.id = id
        self.n = n
        self.queue = queue
        self.message = message
        self.raw = raw
        self.size = len(raw) + OVERHEAD_BYTES
        self.lane: int = message.priority
        self.unread = False  # on the disk only
        self.subject = message.subject
        self.born_ms = 0  # by the true time: when its age began
        self.since_ms = 0  # monotonic: since when this life of the router has it in memory
        self.asleep: int | None = None  # on the disk only, until this time of the day
        self.attempts = 0
        self.state = UNWRITTEN
        self.hand: bytes | None = None  # the peer that holds it
        self.retrying = False
        self.wait_until = 0  # monotonic ms
        self.urgency: int = message.priority
        self.replayed = False
