"""What a broken promise is, and which ones are known to be not yet kept."""

from typing import Final, NoReturn

# Promises that are checked apart, so that one which is not yet kept does not hide the others.
LINE_URGENCY: Final = "a subject is as urgent as the most urgent that waits in its line"
EXPIRY: Final = "what ran out in a hand or on its way to the disk is not delivered"
RIGHTS: Final = "a reload that takes a right to consume takes it at once"
FINER: Final = frozenset((LINE_URGENCY, EXPIRY, RIGHTS))
NOT_YET_KEPT: Final = frozenset[str]()


class Violation(Exception):
    """A promise that was broken; `promise` is the same words for the same kind of fault."""

    def __init__(self, promise: str, detail: str) -> None:
        super().__init__(f"{promise}: {detail}")
        self.promise = promise
        self.detail = detail


def broken(promise: str, detail: str) -> NoReturn:
    """Say that a promise was broken."""
    raise Violation(promise, detail)
