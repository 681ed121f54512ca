"""What a simulated partner applied, by idempotency key: once each, and how often it was asked."""

from pathlib import Path
from typing import Any

import msgspec


class Ledger:
    """Entries in the order of their first coming; kept in `file` over restarts, if one is given."""

    def __init__(self, file: Path | None = None) -> None:
        self.entries: list[dict[str, Any]] = []
        self.repeats = 0
        self._answers: dict[str, tuple[int, Any]] = {}
        self._file = file
        if file is not None and file.exists():
            for line in file.read_bytes().splitlines():
                record = msgspec.json.decode(line)
                self._remember(record["entry"], record["status"], record["answer"])

    def answer_of(self, key: str) -> tuple[int, Any] | None:
        """Return the answer already given for `key`, counting the repeat; None for a new key."""
        known = self._answers.get(key)
        self.repeats += known is not None
        return known

    def record(self, key: str, entry: dict[str, Any], status: int, answer: Any) -> None:
        """Note that `key` was applied and how it was answered."""
        entry = {"key": key, **entry}
        self._remember(entry, status, answer)
        if self._file is not None:
            line = msgspec.json.encode({"entry": entry, "status": status, "answer": answer})
            with self._file.open("ab") as file:
                file.write(line + b"\n")

    def _remember(self, entry: dict[str, Any], status: int, answer: Any) -> None:
        self.entries.append(entry)
        self._answers[entry["key"]] = (status, answer)
