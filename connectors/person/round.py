"""One round through everything that keeps persons: the journal, by the router, and the files of the
connectors. It looks, or it erases; what it found and did becomes a protocol without a value.
"""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import apsw

from connectors.runtime import persons
from proto.ops import ops_request
from proto.person import Part, Search

ANSWER_S: Final = 30.0
BATCH: Final = 100
DONE, IN_WORK, FOUND = "erased", "in_work", "found"


@dataclass
class Sought:
    """Who is looked for: `words` as `proto.person` has them, and numbers of calls or cards; `kinds`
    says by what, for the protocol."""

    words: list[tuple[Part, ...]] = field(default_factory=list)
    numbers: list[str] = field(default_factory=list)
    kinds: list[str] = field(default_factory=list)

    @property
    def search(self) -> Search | None:
        """The search by words, if there are any."""
        return Search(tuple(self.words)) if self.words else None


@dataclass
class Findings:
    """What was found: rows for the protocol, each with what became of it."""

    journal: list[dict[str, Any]] = field(default_factory=list)
    files: list[dict[str, Any]] = field(default_factory=list)
    unreadable: list[dict[str, str]] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.journal) + len(self.files)

    def counts(self) -> dict[str, int]:
        """Return how many rows became what."""
        return dict(Counter(row["became"] for row in (*self.journal, *self.files)))

    def partners(self) -> dict[str, int]:
        """Return to whom something of it was brought, and how many messages."""
        settled = (
            one["destination"]
            for row in self.journal
            for one in row["deliveries"]
            if one["state"] == "settled"
        )
        return dict(sorted(Counter(settled).items()))


class Round:
    """Looks through the journal of a running router and the files of some connectors."""

    def __init__(self, ops: str, connectors: dict[str, Any], folder: Path, sought: Sought) -> None:
        """`connectors` are their tables by name; relative paths start from `folder`."""
        self._ops = ops
        self._connectors = connectors
        self._folder = folder
        self._sought = sought

    def look(self, *, only_named: bool, told: Callable[[int], None]) -> Findings:
        """Return what is there. `only_named`: of messages only those in which the words are, not
        all of the same calls. `told` hears how far the search has come. Raises OpsError."""
        messages = {one["n"]: one | {"named": True} for one in self._named(told)}
        numbers = list(self._sought.numbers)
        if not only_named:
            numbers += [number for one in messages.values() for number in _numbers(one)]
        for one in self._of(list(dict.fromkeys(numbers))):
            messages.setdefault(one["n"], one | {"named": False})
        findings = Findings()
        for _, row in sorted(messages.items()):
            is_open = any(one["state"] == "open" for one in row["deliveries"])
            ended = FOUND if row["size"] else DONE  # an earlier round had it
            findings.journal.append(row | {"became": IN_WORK if is_open else ended})
        numbers += [] if only_named else [n for row in findings.journal for n in _numbers(row)]
        self._files(findings, dict.fromkeys(numbers), persons.find, FOUND)
        return findings

    def erase(self, findings: Findings, reason: str) -> Findings:
        """Erase what was found, but for what is in work; return what became of it. Raises
        OpsError."""
        rows = {row["n"]: row for row in findings.journal if row["size"]}
        done = set()
        for part in _parts(list(rows), BATCH):
            asked = {"messages": part, "reason": reason}
            done.update(ops_request(self._ops, "person_erase", ANSWER_S, **asked)["erased"])
        became = Findings()
        for row in findings.journal:
            what = DONE if row["n"] in done or not row["size"] else IN_WORK
            became.journal.append(row | {"became": what})
        numbers = dict.fromkeys(
            (*self._sought.numbers, *(n for row in findings.files for n in row["numbers"]),
             *(n for row in findings.journal for n in _numbers(row)))
        )  # fmt: skip
        self._files(became, numbers, persons.erase, DONE)
        return became

    def _named(self, told: Callable[[int], None]) -> Iterator[dict[str, Any]]:
        after: int | None = 0 if self._sought.words else None
        while after is not None:
            words = self._sought.words
            answer = ops_request(self._ops, "person_find", ANSWER_S, words=words, after=after)
            yield from answer["messages"]
            after = answer["next"]
            if after is not None:
                told(after)

    def _of(self, numbers: list[str]) -> Iterator[dict[str, Any]]:
        for part in _parts(numbers, BATCH):
            yield from ops_request(self._ops, "person_find", ANSWER_S, numbers=part)["messages"]

    def _files(
        self,
        findings: Findings,
        numbers: dict[str, None],
        work: Callable[[persons.Place, Search | None, Sequence[str]], list[persons.Row]],
        became: str,
    ) -> None:
        for place in persons.places(self._connectors, self._folder):
            try:
                rows = work(place, self._sought.search, list(numbers))
            except (apsw.Error, OSError) as error:
                told = {"connector": place.connector, "file": str(place.file)}
                findings.unreadable.append(told | {"reason": type(error).__name__})
                continue
            for row in rows:
                findings.files.append(
                    {"connector": place.connector, "file": str(row.file), "table": row.table,
                     "key": row.key, "numbers": list(row.numbers),
                     "became": IN_WORK if row.busy else became}
                )  # fmt: skip


def _numbers(row: dict[str, Any]) -> list[str]:
    told = [row["subject"], *(row["numbers"] or "").split()]
    return [one for one in told if one]


def _parts(values: list[Any], size: int) -> Iterator[list[Any]]:
    for at in range(0, len(values), size):
        yield values[at : at + size]
