"""`smpbus status`, `queues`, `sessions` and `reload`: how the router is, at one look."""

import time
from pathlib import Path
from typing import Any

import click

from proto.wording import text
from router.commands.option import ask, common, echo_json, machine
from router.commands.partners import print_summary
from router.commands.table import print_table, size, span, styled


@click.command(help=text("help.status"))
@common
@machine
def status(path: Path | None, as_json: bool) -> None:
    """Show the whole state."""
    result = ask(path, "status")
    if as_json:
        return echo_json(result)
    _print_head(result)
    print_summary(result["partners"])
    click.echo()
    _print_queues(result["queues"])


@click.command(help=text("help.queues"))
@common
@machine
def queues(path: Path | None, as_json: bool) -> None:
    """Show a row per destination."""
    result = ask(path, "queues")
    if as_json:
        return echo_json(result)
    _print_queues(result["queues"])


@click.command(help=text("help.sessions"))
@common
@machine
def sessions(path: Path | None, as_json: bool) -> None:
    """Show a row per connected peer."""
    result = ask(path, "sessions")
    if as_json:
        return echo_json(result)
    now = time.time() * 1000
    keys = ("name", "since", "heard", "credit", "in_flight", "published", "acked")
    rows = [
        [
            row["name"],
            span(max(0, now - row["since"])),
            span(row["last_heard_ms"]),
            " ".join(f"{name}:{window}" for name, window in row["credit"].items()) or "-",
            row["in_flight"],
            row["published"],
            row["acked"],
        ]
        for row in result["sessions"]
    ]
    print_table([text(f"cli.session_{key}") for key in keys], rows)


@click.command(help=text("help.reload"))
@common
@machine
def reload(path: Path | None, as_json: bool) -> None:
    """Have the router read its configuration again."""
    result = ask(path, "reload")
    if as_json:
        return echo_json(result)
    click.echo(text("cli.reloaded", digest=result.get("digest", "")), err=True)
    if result.get("ignored"):
        sentence = text("router.reload_ignored", keys=", ".join(result["ignored"]))
        click.echo(text("log.warning", sentence=sentence), err=True)


def _print_head(status: dict[str, Any]) -> None:
    counters, store = status["counters"], status["store"]
    running = status["state"] == "running"
    state = styled(_word("state", status["state"]), fg="green" if running else "yellow")
    up = span(status["uptime_s"] * 1000)
    click.echo(
        text("cli.status_head", version=status["version"], state=state, up=up, pid=status["pid"])
    )
    for address in status["listen"]:
        click.echo(text("cli.status_listen", address=address))
    click.echo(text("cli.status_counts", **counters))
    click.echo(text("cli.status_open", open=status["open"], sessions=status["sessions"]))
    click.echo(text("cli.status_bus", bus=status["bus"]))
    click.echo(text("cli.status_store", path=store["path"]))
    room = text(
        "cli.status_disk",
        taken=size(store["bytes"]),
        empty=size(store["empty_bytes"]),
        free=size(store["free_bytes"]),
        commit=span(store["last_commit_ms"]),
    )
    click.echo(room)
    click.echo(text("cli.status_memory", rss=size(status["rss_bytes"])))
    if bounds := status.get("bounds"):
        told = {name: size(count) if "bytes" in name else count for name, count in bounds.items()}
        click.echo(text("cli.status_bounds", **told))
    for reason in status.get("keys", {}).get("refused", {}).values():
        click.echo(styled(text("cli.status_key_refused", reason=reason), fg="red"))
    if reason := status.get("accesses", {}).get("reason"):
        click.echo(styled(text("cli.status_accesses", reason=reason), fg="red"))
    if status.get("clock_doubted"):
        click.echo(styled(text("cli.status_clock_doubted"), fg="yellow"))
    if not store["writable"]:
        click.echo(styled(text("cli.status_store_full"), fg="red"))


def _word(kind: str, value: str) -> str:
    try:
        return text(f"cli.{kind}_{value}")
    except KeyError:
        return value


def _print_holds(rows: list[dict[str, Any]]) -> None:
    for row in rows:
        if row["hold"] is not None:
            held = text("cli.held_row", destination=row["destination"], reason=row["hold"])
            click.echo(styled(held, fg="yellow"))


def _print_queues(rows: list[dict[str, Any]]) -> None:
    now = time.time() * 1000
    keys = ("destination", "pending", "in_flight", "retrying", "dead", "settled", "consumers")
    cells = []
    for row in rows:
        oldest = row.get("oldest_ms")
        age = "-" if oldest is None else span(max(0, now - oldest))
        cells.append([*(row[key] for key in keys), age])
    print_table([text(f"cli.queue_{key}") for key in (*keys, "oldest")], cells)
    _print_holds(rows)
