"""What the router asks of a store."""

from collections.abc import Iterator
from typing import NamedTuple, Protocol

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

    def trace(self, subject: str, limit: int) -> list[dict[str, object]]:
        """Return the messages of a subject with their deliveries, oldest first."""

    def subjects_of(self, number: str, limit: int) -> list[str]:
        """Return the subjects of messages that have `number` in their correlation_id, which may
        hold several with spaces between; the one spoken of last is the first."""

    def dead(
        self, destination: str | None, subject: str | None, deliveries: list[int] | None, limit: int
    ) -> list[OpenDelivery]:
        """Return dead letters, oldest first, narrowed by what is not None."""

    def verify(self) -> list[str]:
        """Look through the whole journal at rest; return a sentence per thing that is wrong."""

    def tidy(self) -> int:
        """Bring the subject index forward by one step; returns how many whole steps are left."""

    def prune(self, before_ms: int, limit: int) -> int:
        """Forget up to `limit` messages accepted before a time whose deliveries have all settled
        or expired; returns how many were looked at."""

    def size_bytes(self) -> int:
        """Return what the journal takes on the disk."""

    def close(self) -> None:
        """Give the files back in order."""
