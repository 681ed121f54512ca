"""`smpbus partners`: which systems answer, since when, how fast, and what caches spare them.

All of it is what the connectors report; the router itself talks to no partner.
"""

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Final

import click

from proto.wording import text
from router.commands.option import ask, common, echo_json, machine
from router.commands.table import local_time, print_table, span, styled, width

LATE_MS: Final = 30_000  # connectors report every few seconds
COLUMNS: Final = ("connector", "system", "state", "since", "answered", "p50", "p99")
LOOKUP_COLUMNS: Final = ("connector", "kind", "count", "hits", "failed", "p50", "p99")


@click.command(help=text("help.partners"))
@common
@machine
def partners(path: Path | None, as_json: bool) -> None:
    """Show a row per partner."""
    result = ask(path, "partners")
    if as_json:
        return echo_json(result)
    rows, now = result["partners"], time.time() * 1000
    table = [cells for row in rows for cells in _rows(row, now)]
    print_table([text(f"partners.{column}") for column in COLUMNS], table)
    _print_lookups(rows)
    notes = [note for row in rows for note in _notes(row, now)]
    if notes:
        click.echo()
    for note in notes:
        click.echo(note)


def print_summary(rows: list[dict[str, Any]]) -> None:
    """Print a line per partner, for `smpbus status`; those that never came share one."""
    now = time.time() * 1000
    for row in rows:
        for partner in row["partners"]:
            told = text(
                "partners.line", connector=row["connector"], system=partner["system"],
                state=_said(partner, now), **_speed(partner),
            )  # fmt: skip
            click.echo(_coloured(_cut(told), partner["up"] is False))
        if lookups := row["lookups"]:
            click.echo(_cut(text("partners.line_lookups", **_together(lookups))))
        if row["state"] == "unreadable" or (row["state"] == "absent" and row["since"]):
            told = text("partners.line_state", connector=row["connector"], state=_state(row, now))
            click.echo(_coloured(_cut(told), True))
    never = [row["connector"] for row in rows if row["state"] == "absent" and not row["since"]]
    if never:
        click.echo(_cut(text("partners.line_never", names=", ".join(never))))


def _rows(row: dict[str, Any], now: float) -> Iterator[list[object]]:
    name = row["connector"]
    if not row["partners"]:
        since = "-" if row["since"] is None else _ago(row["since"], now)
        yield [name, "-", text(f"partners.{row['state']}"), since, "-", "-", "-"]
    for partner in row["partners"]:
        yield [
            name,
            partner["system"],
            text(f"partners.{_word(partner)}"),
            "-" if partner["up"] is None else _ago(partner["since"], now),
            _ago(partner["answered_at"], now),
            _ms(partner["p50_ms"]),
            _ms(partner["p99_ms"]),
        ]


def _print_lookups(rows: list[dict[str, Any]]) -> None:
    table = [
        [
            row["connector"], one["kind"], one["count"], _share(one["hit_rate"]), one["failed"],
            _ms(one["p50_ms"]), _ms(one["p99_ms"]),
        ]
        for row in rows
        for one in row["lookups"]
    ]  # fmt: skip
    if table:
        click.echo()
        click.echo(text("partners.lookups"))
        print_table([text(f"partners.{column}") for column in LOOKUP_COLUMNS], table)


def _notes(row: dict[str, Any], now: float) -> Iterator[str]:
    """Yield what a table has no room for, and only what is not as it should be."""
    name = row["connector"]
    for partner in row["partners"]:
        if partner["up"] is False:
            since, why = local_time(partner["since"])[:19], _failures(partner["failures"])
            system = partner["system"]
            told = text("partners.down_since", name=name, system=system, since=since, why=why)
            yield styled(told, fg="red")
    for queue, code in row["not_given"].items():
        yield styled(text("partners.not_given", name=name, queue=queue, code=code), fg="red")
    for what, count in row["hanging"].items():
        yield styled(text("partners.hanging", name=name, what=what, count=count), fg="red")
    away = row.get("figures", {}).get("state_files_away")
    for file, reason in away.items() if isinstance(away, dict) else ():
        yield styled(text("partners.state_away", name=name, file=file, reason=reason), fg="red")
    if row["set_aside"]:
        told = text("partners.set_aside", name=name, count=row["set_aside"])
        yield styled(told, fg="yellow")
    if row["cache"] is False:
        yield styled(text("partners.cache_away", name=name), fg="yellow")
    if row.get("turned_away"):
        yield text("partners.turned_away", name=name, count=row["turned_away"])
    if row["rejected"]:
        yield text("partners.rejected", name=name, count=row["rejected"])
    if row["waiting"]:
        yield text("partners.waiting", name=name, count=row["waiting"])
    reported_at = row["reported_at"]
    if reported_at is not None and now - reported_at > LATE_MS:
        yield styled(text("partners.late", name=name, ago=span(now - reported_at)), fg="yellow")


def _failures(failures: dict[str, int]) -> str:
    told = []
    for kind, count in sorted(failures.items(), key=lambda one: -one[1]):
        try:
            told.append(f"{text(f'partners.kind_{kind}')} {count}")
        except KeyError:
            told.append(f"{kind} {count}")
    return ", ".join(told)


def _word(partner: dict[str, Any]) -> str:
    if partner["breaker"] != "closed":
        return str(partner["breaker"])
    return "unknown" if partner["up"] is None else "up" if partner["up"] else "down"


def _said(partner: dict[str, Any], now: float) -> str:
    if partner["up"] is None:
        return text("partners.not_asked")
    since = _ago(partner["since"], now)
    return text("partners.answers" if partner["up"] else "partners.answers_not", since=since)


def _state(row: dict[str, Any], now: float) -> str:
    since = "-" if row["since"] is None else _ago(row["since"], now)
    return f"{text('partners.' + row['state'])}, {since}"


def _speed(partner: dict[str, Any]) -> dict[str, str]:
    if partner["up"] is False or partner["p50_ms"] is None:
        return {"speed": ""}
    told = text("partners.speed", p50=_ms(partner["p50_ms"]), p99=_ms(partner["p99_ms"]))
    return {"speed": told}


def _together(lookups: list[dict[str, Any]]) -> dict[str, object]:
    """Return what all kinds of lookups come to; of latencies the worst."""
    count = sum(one["count"] for one in lookups)
    hits = sum(one["near"] + one["far"] + one["stale"] for one in lookups)
    slow = [one["p99_ms"] for one in lookups]
    return {
        "count": count,
        "hits": _share(hits / count if count else None),
        "p99": _ms(None if None in slow else max(slow)),
    }


def _ago(at: int | None, now: float) -> str:
    return "-" if at is None else span(max(0, now - at))


def _ms(ms: float | None) -> str:
    if ms is None:
        return "-"
    return text("partners.under_ms") if ms < 1 else span(ms)


def _share(share: float | None) -> str:
    return "-" if share is None else f"{100 * share:.1f} %"


def _cut(line: str) -> str:
    most = width()
    return line if len(line) <= most else f"{line[: most - 1]}…"


def _coloured(line: str, bad: bool) -> str:
    return styled(line, fg="red") if bad else line
