"""Errors that end the router, each with the exit status it ends with (sysexits.h)."""

from typing import Final

EX_OK: Final = 0
EX_UNAVAILABLE: Final = 69
EX_CANTCREAT: Final = 73
EX_IOERR: Final = 74
EX_TEMPFAIL: Final = 75
EX_NOPERM: Final = 77
EX_CONFIG: Final = 78


class StartError(Exception):
    """The router cannot run: one sentence for the administrator, and the exit status."""

    def __init__(self, sentence: str, exit_code: int = EX_CONFIG) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.exit_code = exit_code
