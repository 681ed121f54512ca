"""Where the cases of a register come from: a file of JSON lines, or the store of call cards."""

import calendar
from collections.abc import Iterator
from datetime import date
from pathlib import Path

import msgspec

from connectors.billing.case import Case, Problem
from connectors.billing.draft import case_of
from connectors.billing.profile import Tables
from connectors.billing.store import Store
from proto.message import UNREADABLE

Cases = Iterator[tuple[int, Case | Problem]]


def read_lines(file: Path) -> Cases:
    """Yield the lines of a file of JSON lines. What is wrong is said without its value. Raises
    OSError."""
    decoder = msgspec.json.Decoder(Case)
    with file.open("rb") as lines:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            try:
                yield number, decoder.decode(line)
            except msgspec.ValidationError as error:
                rule, _, path = str(error).partition(" - at `$.")
                yield number, Problem(path.rstrip("`"), rule.split(",")[0])
            except UNREADABLE:
                yield number, Problem("", "is not JSON")


def month_of(year: int, month: int) -> tuple[date, date]:
    """Return the first and the last day of a month."""
    return date(year, month, 1), date(year, month, calendar.monthrange(year, month)[1])


def read_store(
    store: Store, tables: Tables, month: tuple[date, date], payer: str, *, to_fund: bool
) -> Cases:
    """Yield the cases of a month that `payer` pays; with `to_fund`, of all insured elsewhere."""
    if to_fund:
        cards = store.of_others(*month, tables.profile.insurers)
    else:
        cards = store.of_payer(*month, payer)
    for number, (draft, subject, insured) in enumerate(cards, 1):
        yield number, case_of(draft, subject, insured, tables)
