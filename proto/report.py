"""What a peer reports of itself (REPORT), for operators: its partners, its lookups, its counters.

All connectors use one shape, so that the router and the command line need to know none of them.
Every field has a default and a bound; fields that a later version adds are ignored. No personal
data.
"""

from typing import Annotated, Any, Final, Literal

import msgspec

from .message import UNREADABLE
from .nesting import check_depth

Count = Annotated[int, msgspec.Meta(ge=0, le=2**53)]
Milliseconds = Annotated[float, msgspec.Meta(ge=0, le=1e9)]
Word = Annotated[str, msgspec.Meta(pattern=r"\A[a-z][a-z0-9_]{0,31}\Z")]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=64)]

# Nobody listens; no whole answer in time; the connection broke; the answer was too long; the answer
# says "not now"; the answer is not of the contract.
FAILURES: Final = ("connect", "timeout", "broken", "too_long", "unready", "reply")


class PartnerReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """One system that the peer talks to.

    `up` is whether it answered the last time it was asked (None: not asked yet), `since` when that
    began, `answered_at` when it last answered (ms UTC). Counters run from the start of the
    process: `requests` went out, `answers` came and took `answer_ms` together, the failures are
    told by a word. The quantiles are of the answers of the last minute.
    """

    system: Name
    up: bool | None = None
    since: Count | None = None
    answered_at: Count | None = None
    breaker: Literal["closed", "open", "half_open"] = "closed"
    requests: Count = 0
    answers: Count = 0
    answer_ms: Annotated[float, msgspec.Meta(ge=0, le=1e15)] = 0.0
    failures: Annotated[dict[Word, Count], msgspec.Meta(max_length=16)] = {}
    p50_ms: Milliseconds | None = None
    p99_ms: Milliseconds | None = None


class LookupReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """Cached questions of one kind, from the start of the process: the answer was in this process
    (`near`), in memcached (`far`), there but old (`stale`), being asked for already (`joined`),
    asked for (`missed`), or not to be had (`failed`)."""

    kind: Word
    near: Count = 0
    far: Count = 0
    stale: Count = 0
    joined: Count = 0
    missed: Count = 0
    failed: Count = 0
    total_ms: Annotated[float, msgspec.Meta(ge=0, le=1e15)] = 0.0
    p50_ms: Milliseconds | None = None
    p99_ms: Milliseconds | None = None

    @property
    def count(self) -> int:
        """How many lookups there were."""
        return sum((self.near, self.far, self.stale, self.joined, self.missed, self.failed))

    @property
    def hits(self) -> int:
        """How many a cache answered."""
        return self.near + self.far + self.stale


class PeerReport(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The whole. `rejected` counts what partners sent and was not of the contract, `waiting` is
    what waits for the bus; `cache` says whether memcached answers (None: there is none); `figures`
    are the peer's own, shown as they are. `not_given` are the queues that the router does not give
    it, each with the code that says why; `hanging` counts calls out of the process that do not
    return, by what is called; `set_aside` counts what was dropped for good, each with a line;
    `turned_away` counts who had no good token or called from where nobody may."""

    partners: Annotated[list[PartnerReport], msgspec.Meta(max_length=8)] = []
    lookups: Annotated[list[LookupReport], msgspec.Meta(max_length=16)] = []
    cache: bool | None = None
    rejected: Count = 0
    waiting: Count = 0
    not_given: Annotated[dict[Name, Name], msgspec.Meta(max_length=16)] = {}
    hanging: Annotated[dict[Name, Count], msgspec.Meta(max_length=16)] = {}
    set_aside: Count = 0
    turned_away: Count = 0
    figures: dict[str, Any] = {}


_decode = msgspec.json.Decoder(PeerReport).decode


def read_report(body: bytes) -> PeerReport | None:
    """Return the report, None when it is not one."""
    try:
        check_depth(body)
        return _decode(body)
    except UNREADABLE:
        return None
