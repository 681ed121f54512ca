"""What the campaign's own processes wrote down, held against what the bus promises."""

from collections import defaultdict
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.chaos.ledger import read
from tests.chaos.region import CONSUMERS, PUBLISHERS


@dataclass
class Verdict:
    """The figures, and a sentence for each broken promise."""

    accepted: int = 0
    settled: int = 0
    duplicates: int = 0
    lost: int = 0
    out_of_order: int = 0
    wrong: list[str] = field(default_factory=list)


def judge(folder: Path) -> Verdict:
    """Read all ledgers of a campaign that has ended."""
    verdict = Verdict()
    accepted = {
        id
        for name in PUBLISHERS
        for line in read(folder / f"{name}.ledger")
        for id in line.get("accepted", ())
    }
    taken = sorted(
        (line for name in CONSUMERS for line in read(folder / f"{name}.ledger")),
        key=lambda line: int(line["at"]),
    )
    effects = [line for line in taken if not line["back"]]
    _check_ids(taken, verdict)
    first = list({line["id"]: line for line in reversed(effects)}.values())[::-1]
    verdict.accepted, verdict.settled = len(accepted), len(first)
    verdict.duplicates = len(effects) - len(first)
    lost = accepted - {line["id"] for line in first}
    verdict.lost = len(lost)
    verdict.wrong += [f"accepted and never delivered: {id}" for id in sorted(lost)[:5]]
    _check_order(sorted(first, key=lambda line: int(line["at"])), verdict)
    return verdict


def _check_ids(taken: list[dict[str, Any]], verdict: Verdict) -> None:
    deliveries: dict[str, int] = {}
    for line in taken:
        if deliveries.setdefault(line["id"], line["delivery"]) != line["delivery"]:
            verdict.wrong.append(f"{line['id']} came under two delivery ids")


def _check_order(first: list[dict[str, Any]], verdict: Verdict) -> None:
    lines: dict[str, int] = defaultdict(lambda: -1)
    for line in first:
        if line["number"] <= lines[line["subject"]]:
            verdict.out_of_order += 1
            before = lines[line["subject"]]
            verdict.wrong.append(f"{line['subject']}: {line['number']} came after {before}")
        lines[line["subject"]] = max(line["number"], lines[line["subject"]])
