"""`smpbus send FILE`: publish messages written as JSON, as one of the configured peers."""

import asyncio
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Annotated, Any, TextIO

import click
import msgspec

from proto.client import BusClient
from proto.errors import BusError, NotConnected, Refused
from proto.exits import EX_DATAERR, EX_NOPERM, EX_REFUSED, EX_TEMPFAIL, EX_UNAVAILABLE
from proto.keys import KeyFileError
from proto.message import (
    TYPE_GRAMMAR,
    TYPE_LENGTH_MAX,
    UNREADABLE,
    Id,
    Message,
    Milliseconds,
    PriorityNumber,
    Subject,
)
from proto.nesting import decode_json
from proto.ops import connectable
from proto.pattern import exactly
from proto.wording import text
from router.commands.option import Failure, common, echo_json, machine
from router.config import LoadedSettings, load

NAME_BY_DEFAULT = "admin"


class Draft(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A message as a person writes it; what is left out, the bus client fills in."""

    type: Annotated[
        str, msgspec.Meta(max_length=TYPE_LENGTH_MAX, pattern=exactly(TYPE_GRAMMAR.pattern))
    ]
    body: msgspec.Raw = msgspec.Raw(b"{}")
    subject: Subject = ""
    priority: PriorityNumber = 2
    id: Id | None = None
    not_before: Milliseconds | None = None
    expires: Milliseconds | None = None
    correlation_id: str | None = None
    traceparent: str | None = None

    def message(self, source: str) -> Message:
        """Return the message, from `source`."""
        envelope: dict[str, Any] = {
            field: getattr(self, field)
            for field in self.__struct_fields__
            if field not in ("type", "body")
        }
        return Message.new(self.type, source, bytes(self.body), **envelope)


@click.command(help=text("help.send"))
@click.argument("file", type=click.File(encoding="utf-8"))
@common
@machine
@click.option("--name", default=NAME_BY_DEFAULT, help=text("help.opt_name"))
@click.option("--key", type=click.Path(path_type=Path), metavar="FILE", help=text("help.opt_key"))
@click.option("--timeout", default=10.0, metavar="S", help=text("help.opt_timeout"))
def send(
    file: TextIO, path: Path | None, as_json: bool, name: str, key: Path | None, timeout: float
) -> int:
    """Publish and print the accepted ids; exit status 1 when any was refused."""
    loaded = load(path, whole=False)
    drafts = read_drafts(file.read(), file.name)
    messages = [draft.message(name) for draft in drafts]
    results = _publish(loaded, name, key, timeout, messages)
    if as_json:
        echo_json(
            [_row(message, refused) for message, refused in zip(messages, results, strict=True)]
        )
    for message, refused in zip(messages, results, strict=True):
        if refused is not None:
            sentence = text(
                "cli.refused", id=message.id, code=refused.code, reason=refused.sentence
            )
            click.echo(text("log.error", sentence=sentence), err=True)
        elif not as_json:
            click.echo(message.id)
    return EX_REFUSED if any(results) else 0


def read_drafts(content: str, file: str) -> list[Draft]:
    """Read one JSON object, a list of them, or one per line. Raises Failure naming the line."""
    whole = content.strip()
    if not whole:
        raise Failure(text("cli.send_empty", file=file), EX_DATAERR)
    try:
        if whole.startswith("["):
            return decode_json(whole, list[Draft])
        lines = [(1, whole)] if _is_one(whole) else _lines(content)
    except UNREADABLE as error:
        raise _bad(file, 1, error) from None
    drafts = []
    for number, line in lines:
        try:
            drafts.append(decode_json(line, Draft))
        except UNREADABLE as error:
            raise _bad(file, number, error) from None
    return drafts


def _is_one(whole: str) -> bool:
    try:
        decode_json(whole)
    except UNREADABLE:
        return "\n" not in whole
    return True


def _lines(content: str) -> list[tuple[int, str]]:
    return [(n, line) for n, line in enumerate(content.splitlines(), 1) if line.strip()]


def _bad(file: str, line: int, error: Exception) -> Failure:
    reason = "nested too deeply" if isinstance(error, RecursionError) else error
    return Failure(text("cli.send_bad", file=file, line=line, reason=reason), EX_DATAERR)


def _publish(
    loaded: LoadedSettings, name: str, key: Path | None, timeout: float, messages: list[Message]
) -> list[Refused | None]:
    bus = loaded.settings.bus
    address = connectable(bus.listen[0])
    own = (key or bus.keys_dir / f"{name}.key") if bus.curve else None
    router = bus.keys_dir / "router.pub" if bus.curve else None
    if address.startswith("ipc:///") and not Path(address.removeprefix("ipc://")).exists():
        raise _unreachable(loaded, address, text("cli.no_socket"))
    try:
        client = BusClient(
            address, name=name, key=own, server_key=router, connect_timeout_s=timeout
        )
        return asyncio.run(_publish_all(loaded, client, timeout, messages))
    except KeyFileError as error:
        raise Failure(text("cli.send_key", name=name, reason=error), EX_NOPERM) from None
    except TimeoutError:  # greeted, then silent: some may be accepted
        raise Failure(text("cli.send_lost", timeout=f"{timeout:g}"), EX_TEMPFAIL) from None
    except BusError as error:
        sentence = text("cli.send_denied", name=name, code=error.code, reason=error.sentence)
        raise Failure(sentence, EX_NOPERM) from None


async def _publish_all(
    loaded: LoadedSettings, client: BusClient, limit_s: float, messages: list[Message]
) -> list[Refused | None]:
    async with AsyncExitStack() as stack:
        try:
            await stack.enter_async_context(client)
        except NotConnected as error:
            raise _unreachable(loaded, client.address, error.sentence) from None
        async with asyncio.timeout(limit_s):
            return await client.publish_many(messages)


def _unreachable(loaded: LoadedSettings, address: str, reason: str) -> Failure:
    where = loaded.where("bus.listen")
    sentence = text("cli.unreachable", address=address, where=where, reason=reason)
    return Failure(sentence, EX_UNAVAILABLE)


def _row(message: Message, refused: Refused | None) -> dict[str, object]:
    row: dict[str, object] = {"id": message.id, "accepted": refused is None}
    if refused is not None:
        row |= {"code": refused.code, "sentence": refused.sentence}
    return row
