"""What a simulated partner applied, by idempotency key: once each, and how often it was asked."""

from pathlib import Path
from typing import Any

import msgspec
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route


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

    def page(self) -> Route:
        """Return GET /ledger/entries?after=N: what came after the first N entries, and how many
        there are. The whole of a ledger grows with every day, this does not."""

        async def entries(request: Request) -> Response:
            after = request.query_params.get("after", "0")
            if not (after.isascii() and after.isdigit()):
                return Response("after: is not a number", 400)
            told = {"count": len(self.entries), "entries": self.entries[int(after) :]}
            return Response(msgspec.json.encode(told), media_type="application/json")

        return Route("/ledger/entries", entries)
