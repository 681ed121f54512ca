"""What a broken promise is."""

from typing import NoReturn


class Violation(Exception):
    """A promise that was broken; `promise` is the same words for the same kind of fault."""

    def __init__(self, promise: str, detail: str) -> None:
        super().__init__(f"{promise}: {detail}")
        self.promise = promise
        self.detail = detail


def broken(promise: str, detail: str) -> NoReturn:
    """Say that a promise was broken."""
    raise Violation(promise, detail)
