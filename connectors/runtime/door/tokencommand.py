"""`smpbus token NAME WHO`: a new token for one who calls at a connector's door."""

import re
from datetime import datetime
from pathlib import Path
from typing import Final, Literal, cast

import click

from connectors.runtime.bus.settings import DoorSettings, SessionSettings, load
from connectors.runtime.door.token import make_token
from proto.configuration.find import find_file
from proto.configuration.kinds import Unusable, installed, kind_of, settings_of
from proto.configuration.layers import read_main
from proto.exits import EX_USAGE, StartError
from proto.wording import text

FILE: Final = click.Path(path_type=Path)
_LABEL: Final = re.compile(r"[A-Za-z0-9_.@-]{1,64}")


def _label(value: str) -> str:
    if not _LABEL.fullmatch(value):
        raise ValueError(value)
    return value


LABEL: Final = click.types.FuncParamType(_label)


@click.command(help=text("callers.help_token"))
@click.argument("name")
@click.argument("who")
@click.option("--config", type=FILE, help=text("connector.help_config"))
@click.option("--kind", help=text("connector.help_kind"))
@click.option("--file", type=FILE, help=text("external.help_file"))
@click.option("--add", "way", flag_value="add", help=text("external.help_add"))
@click.option("--replace", "way", flag_value="replace", help=text("external.help_replace"))
@click.option("--until", type=click.DateTime(["%Y-%m-%d"]), help=text("callers.help_until"))
@click.option("--label", type=LABEL, help=text("callers.help_label"))
def token(
    name: str,
    who: str,
    config: Path | None,
    kind: str | None,
    file: Path | None,
    way: Literal["add", "replace"] | None,
    until: datetime | None,
    label: str | None,
) -> None:
    """Make a token, keep its digest, and print it this once."""
    try:
        path = file or _file_of(name, kind, who, config)
        said = [f"until={until:%Y-%m-%d}"] if until else []
        said += [f"label={label}"] if label else []
        made = make_token(path, way, " ".join(said))
    except StartError as error:
        click.echo(text("log.error", sentence=error.sentence), err=True)
        raise SystemExit(error.exit_code) from None
    click.echo(text("external.token_made", path=path), err=True)
    click.echo(made)


def _file_of(name: str, kind: str | None, who: str, config: Path | None) -> Path:
    """Return the token_file of a caller of a connector."""
    file = find_file(config)
    kind = kind or kind_of(read_main(file), name)
    settings = load(name, _settings_of(kind), file).settings
    callers = settings.callers if isinstance(settings, DoorSettings) else {}
    found = callers.get(who)
    if found is None or found.token_file is None:
        known = ", ".join(sorted(callers)) or "-"
        told = text("callers.no_such", file=file, name=name, who=who, known=known)
        raise StartError(told, EX_USAGE)
    return found.token_file


def _settings_of(kind: str) -> type[SessionSettings]:
    try:
        shape = settings_of(kind)
    except Unusable as error:
        raise StartError(
            text("connector.not_importable", name=kind, reason=error), EX_USAGE
        ) from None
    if shape is None:
        known = ", ".join(sorted(installed()))
        raise StartError(text("connector.no_such", name=kind, known=known), EX_USAGE)
    return cast("type[SessionSettings]", shape)
