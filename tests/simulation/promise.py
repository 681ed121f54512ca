"""What a broken promise is, and which ones are known to be not yet kept."""

from typing import Final, NoReturn

# Promises that are checked apart, so that one which is not yet kept does not hide the others.
EXPIRY: Final = "what ran out in a hand or on its way to the disk is not delivered"
AT_ONCE: Final = "nothing goes to a session that loses its right to it in the same moment"
OPERATORS: Final = "two operators who ask the same at once are obeyed once"
FINER: Final = frozenset((EXPIRY, AT_ONCE, OPERATORS))
NOT_YET_KEPT: Final = frozenset((EXPIRY, AT_ONCE, OPERATORS))


class Violation(Exception):
    """A promise that was broken; `promise` is the same words for the same kind of fault."""

    def __init__(self, promise: str, detail: str) -> None:
        super().__init__(f"{promise}: {detail}")
        self.promise = promise
        self.detail = detail


def broken(promise: str, detail: str) -> NoReturn:
    """Say that a promise was broken."""
    raise Violation(promise, detail)
