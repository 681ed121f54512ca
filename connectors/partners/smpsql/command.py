"""`smpbus sql`: the schema that the ambulance system's database needs, printed or installed."""

import asyncio
from pathlib import Path
from typing import Final

import click

from connectors.partners.smpsql.database import (
    Address,
    BadData,
    Database,
    DatabaseAway,
    has_password,
    place,
)
from connectors.partners.smpsql.tables import SCHEMA
from proto.exits import EX_UNAVAILABLE, EX_USAGE, StartError
from proto.note import coded
from proto.wording import in_words, text

FILE: Final = click.Path(path_type=Path)
TIMEOUT_S: Final = 60.0
OWNER: Final = """
WITH here AS (SELECT oid, nspowner FROM pg_catalog.pg_namespace WHERE nspname = 'smpbus')
SELECT pg_catalog.pg_get_userbyid(owner)::text, current_user::text FROM (
    SELECT nspowner AS owner FROM here
    UNION SELECT relowner FROM pg_catalog.pg_class JOIN here ON here.oid = relnamespace
    UNION SELECT proowner FROM pg_catalog.pg_proc JOIN here ON here.oid = pronamespace
) AS owners
"""


@click.group(help=text("smpsql.help"))
def sql() -> None:
    """The bus's schema in the ambulance system's database."""


@sql.command(help=text("smpsql.help_schema"))
def schema() -> None:
    """Print the schema."""
    click.echo(SCHEMA.read_text(encoding="utf-8"), nl=False)


@sql.command(help=text("smpsql.help_install"))
@click.option("--url", required=True, help=text("smpsql.help_url"))
@click.option("--credentials-file", type=FILE, help=text("smpsql.help_credentials"))
@click.option("--ca-file", type=FILE, help=text("smpsql.help_ca_file"))
@click.option("--vendor", multiple=True, help=text("smpsql.help_vendor"))
@click.option("--bus", multiple=True, help=text("smpsql.help_bus"))
def install(
    url: str, credentials_file: Path | None, ca_file: Path | None, vendor: tuple[str, ...],
    bus: tuple[str, ...],
) -> None:  # fmt: skip
    """Install the schema, or a newer version of it, and give roles their rights."""
    try:
        if has_password(url):
            raise StartError(text("smpsql.password_in_url"), EX_USAGE)
        address = Address(url, credentials_file, connect_s=5, ca_file=ca_file)
        asyncio.run(_install(url, address, vendor, bus))
    except StartError as error:
        click.echo(text("log.error", sentence=error.sentence), err=True)
        raise SystemExit(error.exit_code) from None
    click.echo(text("smpsql.installed", place=place(url)))


async def _install(
    url: str, address: Address, vendor: tuple[str, ...], bus: tuple[str, ...]
) -> None:
    database = Database(address, TIMEOUT_S)
    try:
        for owner, we in await database.fetch(OWNER):
            if owner != we:
                sentence = text("smpsql.squatted", place=place(url), owner=owner, we=we)
                raise StartError(sentence)
        await database.fetch(SCHEMA.read_text(encoding="utf-8"))
        for role in vendor:
            await database.fetch("SELECT smpbus.allow_vendor(%s)", (role,))
        for role in bus:
            await database.fetch("SELECT smpbus.allow_bus(%s)", (role,))
    except (DatabaseAway, BadData) as error:
        reason = in_words(str(error) or coded("smpsql.silent"))
        sentence = text("smpsql.not_installed", place=place(url), reason=reason)
        raise StartError(sentence, EX_UNAVAILABLE) from None
    finally:
        await database.close()
