"""What the router asks of a store."""

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple, Protocol

from proto.person import Search
from router.core.output import Batch, Filed, Load, OpenDelivery


class StoreError(Exception):
    """The store cannot be opened or trusted; the text is one sentence that names the file."""


class Opened(NamedTuple):
    """What a store says when it is opened: its own name, and the start's durable number."""

    bus: str
    epoch: int
    next_n: int
    next_delivery: int
    totals: dict[str, dict[str, int]]  # destination -> accepted/settled/dead/... -> count
    holds: dict[str, str]  # destination -> why it is held back
    generations: tuple[tuple[int, str], ...]  # first delivery number, word; in order
    newest_ms: int  # when the newest message was accepted (UTC), 0 if there is none


class Which(NamedTuple):
    """Which dead letters; None does not narrow."""

    destination: str | None = None
    subject: str | None = None
    type: str | None = None
    deliveries: Sequence[int] | None = None


class Letter(NamedTuple):
    """A dead letter: `head` holds the first bytes of the message as it came over the wire, `size`
    says how many there are (see `router.store.head`). Times are ms UTC; `note` says why."""

    delivery: int
    n: int
    destination: str
    accepted_at: int
    head: bytes
    size: int
    attempts: int
    ended_at: int
    note: str | None


class Store(Protocol):
    """One transaction per batch, one sync per transaction. Used from one thread only."""

    def open(self, epoch_min: int = 0, generation: str = "") -> Opened:
        """Recover, make a new epoch and a new generation durable, and only then return.

        The epoch is above the last one and at least `epoch_min`: the milliseconds of the clock make
        it grow over a journal that was put back from a copy, too. `generation` is a word that no
        start has had; "" lets the store draw one. Raises StoreError.
        """

    def filed(self) -> Iterator[Filed]:
        """Yield the backlog by destination, lane and delivery, run by run."""

    def recent(self) -> Iterator[OpenDelivery]:
        """Yield every open delivery that is not filed. Raises StoreError on corruption."""

    def load(self, load: Load) -> list[OpenDelivery]:
        """Read back what is filed, up to limits of the store's own; an empty answer means that
        there is no more. Raises StoreError on corruption."""

    def write(self, batch: Batch) -> dict[int, int]:
        """Make a batch durable. Returns {n: n accepted before} for repeated (source, id).

        What is `spilled` of a repeated message is not filed. `loads` are not carried out.

        Any exception means that the store's state is unknown: the process must end at once.
        """

    # What operators ask goes by steps of some milliseconds: between two `next` the store may write.

    def trace_steps(self, subject: str, limit: int) -> Iterator[list[dict[str, object]]]:
        """Yield the messages of a subject with their deliveries, the newest first: `head` holds
        their first bytes, `size` says how many there are. Beyond `limit` only `n` of each is told.
        """

    def subject_steps(self, number: str, limit: int) -> Iterator[list[str]]:
        """Yield up to `limit` subjects of messages that have `number` in their correlation_id,
        which may hold several with spaces between; the one spoken of last is the first."""

    def dead_steps(self, which: Which, newest: bool = False) -> Iterator[list[Letter]]:
        """Yield dead letters without their bodies, by delivery, up or (`newest`) down. Raises
        StoreError on corruption."""

    def letters(self, deliveries: Sequence[int], bytes_max: int) -> list[OpenDelivery]:
        """Return those of these that are dead, whole, by delivery, until `bytes_max` is reached;
        one at least. Raises StoreError on corruption."""

    def person_steps(self, search: Search, after: int) -> Iterator[tuple[int, list[int]]]:
        """Yield how far a search through all messages has come, and the numbers of those in which
        it finds somebody, from the one after a number on."""

    def subject_numbers(self, subject: str) -> Iterator[list[int]]:
        """Yield the numbers of the messages of a subject."""

    def told(self, numbers: Sequence[int]) -> list[dict[str, Any]]:
        """Return messages by number, as `trace_steps` tells of them."""

    def erase(self, numbers: Sequence[int], note: str) -> list[int]:
        """Take the bodies of messages, and the notes of their deliveries, out of the journal for
        good; of those only that have no open delivery and no dead letter. Returns which."""

    def verify(self) -> list[str]:
        """Look through the whole journal at rest; return a sentence per thing that is wrong."""

    def tidy(self) -> int:
        """Bring the subject index forward by one step; returns how many whole steps are left."""

    def prune(self, before_ms: int, limit: int, passed: bool = False) -> int:
        """Forget, of the next `limit` messages accepted before a time, those whose deliveries have
        all settled, expired or been dropped before it; `passed`: of those that were passed over
        since the start. Returns how many were looked at: 0 when it has come to the end, where the
        next pass over what was passed begins."""

    def note(self, key: str, value: str) -> None:
        """Keep a note of the shell's own beside the messages, in place of the one before it."""

    def noted(self, key: str) -> str:
        """Return the note under a key, "" when there is none."""

    def size_bytes(self) -> int:
        """Return what the journal takes on the disk."""

    def empty_bytes(self) -> int:
        """Return how much of that is empty: it is filled before the journal grows."""

    def is_in_place(self) -> bool:
        """Whether the journal is still the file of its name."""

    def rescue(self) -> str:
        """Write the journal, which has lost its place, to its folder once more; returns where. It
        takes its place again, unless another file stands there."""

    def close(self) -> None:
        """Give the files back in order."""
