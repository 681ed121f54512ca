"""`smpbus external token NAME`: a new token for an outside service."""

from pathlib import Path
from typing import Final, Literal

import click

from connectors.partners.external.connector import ExternalSettings
from connectors.runtime.bus.settings import load
from connectors.runtime.door.token import make_token
from proto.configuration.find import find_file
from proto.exits import EX_USAGE, StartError
from proto.wording import text

FILE: Final = click.Path(path_type=Path)


@click.group(help=text("external.help"))
def external() -> None:
    """Outside services and their tokens."""


@external.command(help=text("external.help_token"))
@click.argument("name")
@click.option("--config", type=FILE, help=text("connector.help_config"))
@click.option("--file", type=FILE, help=text("external.help_file"))
@click.option("--add", "way", flag_value="add", help=text("external.help_add"))
@click.option("--replace", "way", flag_value="replace", help=text("external.help_replace"))
def token(
    name: str, config: Path | None, file: Path | None, way: Literal["add", "replace"] | None
) -> None:
    """Make a token, keep its digest, and print it this once."""
    try:
        path = file or _file_of(name, config)
        made = make_token(path, way)
    except StartError as error:
        click.echo(text("log.error", sentence=error.sentence), err=True)
        raise SystemExit(error.exit_code) from None
    click.echo(text("external.token_made", path=path), err=True)
    click.echo(made)


def _file_of(name: str, config: Path | None) -> Path:
    """Return the token_file of a client, or of a connector's own table."""
    file = find_file(config)
    settings = load("external", ExternalSettings, file).settings
    clients = settings.clients if isinstance(settings, ExternalSettings) else {}
    if name not in clients:
        known = ", ".join(sorted(clients)) or "-"
        raise StartError(
            text("external.no_such_client", name=name, file=file, known=known), EX_USAGE
        )
    return clients[name].token_file
