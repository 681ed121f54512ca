"""What an error code of the register means for us: config/remd_errors.toml."""

from pathlib import Path
from typing import Final, Literal

import msgspec

from proto.configuration.typed import read_table

FILE: Final = "remd_errors.toml"
Verdict = Literal["again", "correct", "stop", "done"]


class Verdicts(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Codes by what is to be done."""

    again: frozenset[str]
    correct: frozenset[str]
    stop: frozenset[str]
    done: frozenset[str]

    def of(self, codes: list[str]) -> Verdict:
        """Return the verdict of several codes: what cannot be mended by repeating decides."""
        if not codes or any(self._one(code) == "stop" for code in codes):
            return "stop"
        found = {self._one(code) for code in codes}
        if "correct" in found:
            return "correct"
        return "again" if "again" in found else "done"

    def _one(self, code: str) -> Verdict:
        if code in self.again:
            return "again"
        if code in self.correct:
            return "correct"
        return "done" if code in self.done else "stop"


def load_verdicts(file: Path | None = None) -> Verdicts:
    """Read the table. Raises StartError; a code stands in one class only."""
    found, layers = read_table(Verdicts, FILE, file)
    seen: dict[str, str] = {}
    for verdict in found.__struct_fields__:
        for code in sorted(getattr(found, verdict)):
            if code in seen:
                layers.place(verdict).fail("config.twice", value=code, other=seen[code])
            seen[code] = verdict
    return found
