"""Errors that end a connector, each with the exit status it ends with (sysexits.h)."""

from typing import Final

EX_USAGE: Final = 64
EX_NOPERM: Final = 77
EX_CONFIG: Final = 78


class StartError(Exception):
    """The process cannot run: one sentence for the administrator, and the exit status."""

    def __init__(self, sentence: str, exit_code: int = EX_CONFIG) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.exit_code = exit_code
