"""Tables, times and sizes as a person reads them in an 80-column terminal."""

import os
import shutil
import textwrap
from collections.abc import Sequence
from datetime import datetime
from typing import Final

import click

from proto.wording import text

INDENT: Final = " " * 8


def width() -> int:
    """Return the columns of the terminal; 80 when there is none."""
    return shutil.get_terminal_size((80, 24)).columns


def styled(words: str, **style: object) -> str:
    """Return the words with colour, or plain where $NO_COLOR is set (click drops it in pipes)."""
    return words if os.environ.get("NO_COLOR") else click.style(words, **style)  # type: ignore[arg-type]


def print_table(
    header: Sequence[str], rows: Sequence[Sequence[object]], below: Sequence[str] = ()
) -> None:
    """Print rows under a header: numbers to the right, the widest text cut to fit the terminal.

    `below` has a text for each row, which is printed under it, whole.
    """
    cells = [["" if cell is None else str(cell) for cell in row] for row in rows]
    columns = list(zip(header, *cells, strict=True))
    right = [
        all(isinstance(row[index], int | float | None) for row in rows) and bool(rows)
        for index in range(len(header))
    ]
    widths = _fit([max(map(len, column)) for column in columns], right)
    click.echo(styled(_line(header, widths, right), bold=True))
    for number, row in enumerate(cells):
        click.echo(_line(row, widths, right))
        if below:
            for line in textwrap.wrap(below[number], max(20, width() - len(INDENT))):
                click.echo(f"{INDENT}{line}")


def _fit(widths: list[int], right: list[bool]) -> list[int]:
    room = width() - 2 * (len(widths) - 1)
    while sum(widths) > room:
        texts = [index for index, number in enumerate(right) if not number and widths[index] > 8]
        if not texts:
            break
        widest = max(texts, key=lambda index: widths[index])
        widths[widest] -= 1
    return widths


def _line(cells: Sequence[str], widths: list[int], right: list[bool]) -> str:
    parts = []
    for cell, size, number in zip(cells, widths, right, strict=True):
        short = cell if len(cell) <= size else f"{cell[: size - 1]}…"
        parts.append(short.rjust(size) if number else short.ljust(size))
    return "  ".join(parts).rstrip()


def local_time(ms: int | None) -> str:
    """Return milliseconds UTC as local ISO 8601 with offset; "-" for None, and the number itself
    when no calendar has it: a message carries what its sender says."""
    if ms is None:
        return "-"
    try:
        return datetime.fromtimestamp(ms / 1000).astimezone().isoformat(timespec="milliseconds")
    except (ValueError, OverflowError, OSError):
        return f"{ms} ms"


def span(ms: float) -> str:
    """Return a length of time in the two units that matter: "850 ms", "4.2 s", "3 h 12 min"."""
    seconds = ms / 1000
    if seconds < 1:
        return text("cli.span_ms", ms=round(ms))
    if seconds < 60:
        return text("cli.span_s", s=f"{seconds:.1f}")
    minutes = int(seconds // 60)
    if minutes < 60:
        return text("cli.span_min", minutes=minutes, s=int(seconds % 60))
    if minutes < 48 * 60:
        return text("cli.span_h", hours=minutes // 60, minutes=minutes % 60)
    return text("cli.span_d", days=minutes // 1440, hours=minutes % 1440 // 60)


def size(count: int) -> str:
    """Return bytes in binary units: "512 B", "1.2 MiB"."""
    amount = float(count)
    for unit in ("b", "kib", "mib", "gib"):
        if amount < 1024 or unit == "gib":
            break
        amount /= 1024
    shown = f"{amount:.0f}" if unit == "b" or amount >= 100 else f"{amount:.1f}"
    return f"{shown} {text(f'cli.unit_{unit}')}"
