"""Who looked at whose data: what a door, a command or a page tells before it shows any.

Never a value of what is shown: the kind of it, who asked, what for, and which objects it is about.
"""

from collections.abc import Sequence
from typing import Protocol


class Unrecorded(Exception):
    """The access could not be written down, and so is not given: the door answers 503."""


class Accesses(Protocol):
    """Where accesses are written down. Which process writes is known to whoever made it."""

    async def note(self, what: str, who: str, why: str, ids: Sequence[str] = ()) -> None:
        """Write one access down; returns when it is kept. Raises Unrecorded.

        `what` is the operation, a word or a type of the catalogue ("patient.summary.v1",
        "remd.file"); `who` is the caller of the door and, behind a stroke, the person that it
        named ("smp/dispatcher7"); `why` is the purpose as it was told, at most 200 characters;
        `ids` are numbers of calls, cards or documents that the access is about, none of persons.
        """

    async def close(self) -> None:
        """Let go of where they are kept."""


class NoAccesses:
    """Accesses that nobody wants to know of."""

    async def note(self, what: str, who: str, why: str, ids: Sequence[str] = ()) -> None:
        """See Accesses."""

    async def close(self) -> None:
        """See Accesses."""
