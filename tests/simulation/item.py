"""One delivery as the model sees it, from the outside."""

from proto.message import Message
from router.core.delivery import OVERHEAD_BYTES

# Not known to be on disk; before its time; in its line; on the disk and not in memory, or there
# and waiting for what is.
UNWRITTEN, DELAYED, LINED, AWAY = range(4)
SUSPECT_MIN = 2


class Item:
    """A delivery that has not ended."""

    __slots__ = (
        "asleep",
        "attempts",
        "born_ms",
        "given_ms",
        "hand",
        "id",
        "lane",
        "lonely",
        "message",
        "n",
        "proof",
        "queue",
        "raw",
        "replayed",
        "retrying",
        "sender",
        "since_ms",
        "size",
        "state",
        "subject",
        "unread",
        "urgency",
        "vanished",
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
        self.sender = ""  # for whom this life of the router counts it
        self.given_ms = 0  # monotonic: when it came into the hand
        self.vanished = 0  # so often in a row did a consumer die of it or of something beside it,
        self.lonely = 0  # and so often of nothing else, though well otherwise
        self.proof = 0  # what had been settled in its queue when that was counted last

    @property
    def suspect(self) -> bool:
        """Whether its consumers may die of it."""
        return self.vanished >= SUSPECT_MIN

    def acquit(self) -> None:
        """A consumer has outlived it."""
        self.vanished = self.lonely = 0
