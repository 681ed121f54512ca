"""`smpbus trace SUBJECT`: every hop of a call's data, with times, answers and the end."""

import textwrap
from pathlib import Path
from typing import Any

import click

from proto.exits import EX_REFUSED
from proto.wording import in_words, text
from router.commands.option import Failure, ask, common, echo_json, machine
from router.commands.table import local_time, size, span, styled, width

Hop = tuple[int, str]

_TIME_WIDTH = 29
_COLOURS = {"settled": "green", "dead": "red", "expired": "red", "retrying": "yellow"}


@click.command(help=text("help.trace"))
@click.argument("subject")
@common
@machine
def trace(subject: str, path: Path | None, as_json: bool) -> None:
    """Show the timeline of a subject; exit status 1 when nothing is known of it."""
    result = ask(path, "trace", subject=subject)
    if as_json:
        echo_json(result)
    if not result["messages"]:
        raise Failure(text("cli.trace_nothing", subject=subject), EX_REFUSED)
    if not as_json:
        messages = result["messages"]
        deliveries = sum(len(message["deliveries"]) for message in messages)
        click.echo(
            text(
                "cli.trace_head",
                subject=result["subject"],
                messages=len(messages),
                deliveries=deliveries,
            )
        )
        if result["others"]:
            others = ", ".join(result["others"])
            click.echo(styled(text("cli.trace_others", number=subject, others=others), fg="yellow"))
        if result.get("earlier"):
            click.echo(styled(text("cli.trace_earlier", count=result["earlier"]), fg="yellow"))
        start = min(message["time"] for message in messages)
        for message in messages:
            _print_message(message, start)


def _print_message(message: dict[str, Any], start: int) -> None:
    click.echo()
    title = text(
        "cli.trace_message",
        n=message["n"],
        type=message["type"],
        priority=text(f"cli.priority_{message['priority']}"),
        size=size(message["size"]),
    )
    click.echo(styled(title, bold=True))
    click.echo(f"  id {message['id']}")
    if message.get("correlation_id"):
        click.echo(f"  {text('cli.trace_correlation', id=message['correlation_id'])}")
    for at, what in hops(message):
        _print_hop(at, at - start, what)
    for delivery in message["deliveries"]:
        state = delivery["state"]
        final = text(
            "cli.trace_final",
            destination=delivery["destination"],
            state=text(f"cli.delivery_{state}"),
            attempts=delivery["attempts"],
            took=_took(message, delivery),
        )
        click.echo(f"  {styled(final, fg=_COLOURS.get(state))}")


def hops(message: dict[str, Any]) -> list[Hop]:
    """Return what happened to a message, as (ms UTC, words), in order of time."""
    found: list[Hop] = [
        (message["time"], text("cli.hop_sent", source=message["source"])),
        (message["accepted_at"], text("cli.hop_accepted")),
    ]
    for delivery in message["deliveries"]:
        to = delivery["destination"]
        for attempt in delivery["history"]:
            what = text(f"cli.hop_{attempt['outcome']}", destination=to)
            found.append((attempt["at"], _with_note(what, attempt["note"])))
        if delivery["delivered_at"] is not None:
            what = text("cli.hop_delivered", destination=to, attempt=delivery["attempts"])
            found.append((delivery["delivered_at"], what))
        if delivery["settled_at"] is not None:
            what = text(f"cli.hop_{delivery['state']}", destination=to)
            found.append((delivery["settled_at"], _with_note(what, delivery["note"])))
        if delivery.get("due") is not None and delivery["settled_at"] is None:
            found.append((delivery["due"], text("cli.hop_due", destination=to)))
    return sorted(found, key=lambda hop: hop[0])


def _with_note(what: str, note: str | None) -> str:
    return f"{what}: {in_words(note)}" if note else what


def _took(message: dict[str, Any], delivery: dict[str, Any]) -> str:
    ended = delivery["settled_at"]
    return "" if ended is None else text("cli.took", span=span(ended - message["accepted_at"]))


def _print_hop(at: int, offset: int, what: str) -> None:
    head = f"  {local_time(at):<{_TIME_WIDTH}} {_offset(offset):>10}  "
    lines = textwrap.wrap(what, max(20, width() - len(head))) or [""]
    click.echo(head + lines[0])
    for line in lines[1:]:
        click.echo(" " * len(head) + line)


def _offset(ms: int) -> str:
    seconds, sign = abs(ms) / 1000, "-" if ms < 0 else "+"
    if seconds < 3600:
        return f"{sign}{seconds:.3f}"
    return f"{sign}{int(seconds // 3600)}:{int(seconds % 3600 // 60):02}:{int(seconds % 60):02}"
