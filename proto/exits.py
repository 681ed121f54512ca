"""How a process ends: the exit statuses (sysexits.h), and the error that carries one."""

import os
from typing import Final

EX_OK: Final = os.EX_OK
EX_REFUSED: Final = 1
EX_USAGE: Final = os.EX_USAGE
EX_DATAERR: Final = os.EX_DATAERR
EX_UNAVAILABLE: Final = os.EX_UNAVAILABLE
EX_CANTCREAT: Final = os.EX_CANTCREAT
EX_IOERR: Final = os.EX_IOERR
EX_TEMPFAIL: Final = os.EX_TEMPFAIL
EX_NOPERM: Final = os.EX_NOPERM
EX_CONFIG: Final = os.EX_CONFIG
EX_INTERRUPTED: Final = 130  # 128 + SIGINT, as shells have it


class StartError(Exception):
    """The process cannot run: one sentence for the administrator, and the exit status."""

    def __init__(self, sentence: str, exit_code: int = EX_CONFIG) -> None:
        super().__init__(sentence)
        self.sentence = sentence
        self.exit_code = exit_code
