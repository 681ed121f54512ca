"""A session: one connected peer, authenticated by its key, known by its configured name."""

from dataclasses import dataclass, field
from typing import Final

import msgspec

from proto import frames
from router.core.delivery import Allowance, Holding
from router.core.permission import Rights
from router.core.queue import Queue

WANTED_MAX: Final = 64  # queues whose credit is remembered: a peer may name any
Refusal = tuple[str, str]  # code and sentence
Held = dict[str, Refusal]  # of one batch: subject -> why a message of it is to come again


@dataclass(slots=True)  # its fields are read for every message
class Target:
    """Where a session's messages of one type and priority go, or why (code, sentence) nowhere.

    `names` are the queues' names with spaces between, as the journal keeps them.
    """

    queues: tuple[Queue, ...]
    names: str = ""
    refusal: Refusal | None = None
    body_bytes_max: int = 0

    def easy(self) -> int:
        """Return how many messages surely find room in its queues."""
        if self.refusal is not None:
            return 0
        return min(queue.easy_max - queue.open for queue in self.queues)


@dataclass(slots=True)
class Unfinished:
    """A PUBLISH of which the messages from `at` on have not been looked at; what of it was refused,
    and the subjects of which nothing more is taken out of it."""

    number: int
    messages: list[msgspec.Raw]
    at: int = 0
    refusals: list[frames.Refusal] = field(default_factory=list)
    held: Held = field(default_factory=dict)


class Session:
    """`peer` is the socket's routing id, good only for sending; `key` is who it is."""

    def __init__(
        self, peer: bytes, key: bytes, name: str, software: str, rights: Rights, wall_ms: int
    ) -> None:
        self.peer = peer
        self.key = key
        self.name = name
        self.software = software
        self.rights = rights
        self.since = wall_ms
        self.heard_ms = 0  # monotonic
        self.allowance = Allowance(2**62)
        self.holdings: dict[str, Holding] = {}
        # credit that it may not have, until a reload gives the right or makes the queue known
        self.wanted: dict[str, frames.Credit] = {}
        # what the routes and rights say of (type, priority); emptied by a reload
        self.routed: dict[tuple[str, int], Target] = {}
        self.unfinished: Unfinished | None = None
        self.published = 0
        self.acked = 0
        self.report = b""  # the newest, for operators: nothing in the core depends on it
        self.reported_at: int | None = None
        self.reports = 0

    def want(self, credit: frames.Credit) -> None:
        """Remember credit that was refused."""
        if credit.destination in self.wanted or len(self.wanted) < WANTED_MAX:
            self.wanted[credit.destination] = credit

    def take_report(self, body: bytes, wall_ms: int) -> None:
        """Keep what the peer says of itself instead of what it said before."""
        self.report, self.reported_at = body, wall_ms
        self.reports += 1

    def held(self) -> int:
        """Return how many deliveries are in this session's hands."""
        return sum(len(holding.held) for holding in self.holdings.values())
