"""Which rows of the outbox may go at once, and which have to wait. Pure; time is an argument.

Rows of one subject go one after another: the next one only when the router has the one before on
disk. Sent together, a refusal of the first for the time being would let the second overtake it.
"""

from collections.abc import Iterable
from typing import Final

from connectors.partners.smpsql.tables import Row

HELD_MAX: Final = 1000


def waves(rows: Iterable[Row]) -> list[list[Row]]:
    """Return lists that hold at most one row of each subject, in the subject's order."""
    found: list[list[Row]] = []
    depth: dict[str, int] = {}
    for row in rows:
        at = depth.get(row.subject, 0) if row.subject else 0
        if at == len(found):
            found.append([])
        found[at].append(row)
        if row.subject:
            depth[row.subject] = at + 1
    return found


class Held:
    """What the router does not take for the time being: whole subjects, rows without a subject."""

    def __init__(self) -> None:
        self._until: dict[str | int, float] = {}

    def hold(self, row: Row, until: float) -> None:
        """Hold the row, and what comes after it of its subject."""
        self._until[row.subject or row.seq] = until

    def holds(self, row: Row) -> bool:
        """Whether the row has to wait."""
        return (row.subject or row.seq) in self._until

    @property
    def full(self) -> bool:
        """Whether so much is held that asking around it makes no sense."""
        return len(self._until) >= HELD_MAX

    def release(self, now: float) -> tuple[list[str], list[int]]:
        """Let go what is due; return the subjects and the rows still held."""
        self._until = {key: until for key, until in self._until.items() if until > now}
        subjects = [key for key in self._until if isinstance(key, str)]
        return subjects, [key for key in self._until if isinstance(key, int)]

    def next_at(self) -> float:
        """Return when the first of them is let go; something has to be held."""
        return min(self._until.values())
