"""`smpbus tail`: what happens on the bus, as it happens, until Ctrl-C."""

from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import click
import msgspec
import zmq

from proto.message import UNREADABLE, now_ms
from proto.nesting import decode_json
from proto.ops import connectable
from proto.visible import visible, visible_in, visible_json
from proto.wording import in_words, text
from router.commands.option import common, machine, reach
from router.commands.table import local_time, styled
from router.config import load

_COLOURS = {"dead": "red", "expired": "red", "refused": "red", "retry": "yellow"}
_WAIT_MS = 200


@click.command(help=text("help.tail"))
@common
@machine
@click.option("--event", multiple=True, metavar="WORD", help=text("help.opt_event"))
@click.option("--type", "type_", metavar="TYPE", help=text("help.opt_type"))
@click.option("--subject", metavar="SUBJECT", help=text("help.opt_subject"))
@click.option("--destination", metavar="NAME", help=text("help.opt_destination"))
@click.option("--count", type=click.IntRange(min=1), metavar="N", help=text("help.opt_count"))
def tail(
    path: Path | None,
    as_json: bool,
    event: tuple[str, ...],
    type_: str | None,
    subject: str | None,
    destination: str | None,
    count: int | None,
) -> None:
    """Print one line per event."""
    loaded = load(path, whole=False)
    address = loaded.settings.ops.events
    reach(loaded, "ops.events", connectable(address))
    wanted = {"type": type_, "subject": subject, "destination": destination}
    click.echo(text("cli.tail_follows", address=address), err=True)
    shown = 0
    for topic, fields in _follow(connectable(address), event):
        if is_wanted(fields, wanted):
            _print_event(topic, fields, as_json)
            shown += 1
            if shown == count:
                return


def is_wanted(event: dict[str, Any], wanted: dict[str, str | None]) -> bool:
    """Whether an event has every field that is asked for; "incident.*" is a beginning."""
    for field, pattern in wanted.items():
        value = str(event.get(field, ""))
        if pattern is None or value == pattern:
            continue
        if not pattern.endswith("*") or not value or not value.startswith(pattern[:-1]):
            return False
    return True


def _follow(address: str, topics: tuple[str, ...]) -> Iterator[tuple[str, dict[str, Any]]]:
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    events = context.socket(zmq.SUB)
    try:
        events.setsockopt(zmq.LINGER, 0)
        for topic in topics or ("",):
            events.setsockopt(zmq.SUBSCRIBE, topic.encode())
        events.connect(address)
        while True:
            if events.poll(_WAIT_MS):
                told = events.recv_multipart()
                with suppress(*UNREADABLE, ValueError):  # stray words are no events
                    head, event = told
                    topic, fields = head.decode(), decode_json(event, dict[str, Any])
                    yield topic, fields
    finally:
        events.close(0)
        context.term()


def _print_event(topic: str, event: dict[str, Any], as_json: bool) -> None:
    at = now_ms()
    if as_json:
        document = msgspec.json.encode({"event": topic, "at": at, **event}).decode()
        click.echo(visible_json(document))
        return
    topic, event = visible(topic), visible_in(event)
    for field in ("note", "reason"):
        if isinstance(said := event.get(field), str):
            event[field] = in_words(said)
    first = ("subject", "destination", "source", "name", "type")
    words = [str(event[field]) for field in first if event.get(field)]
    rest = [f"{k}={v}" for k, v in event.items() if k not in first and v is not None]
    word = styled(f"{topic:<9}", fg=_COLOURS.get(topic))
    click.echo(f"{local_time(at)[11:23]}  {word}  {'  '.join([*words, *rest])}")
