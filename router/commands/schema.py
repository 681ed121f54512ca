"""`smpbus schema [TYPE]`: the message types of this bus and the JSON Schema of each body."""

import click

from proto.exits import EX_REFUSED
from proto.wording import text
from router.commands.option import Failure, echo_json, lang, machine
from router.commands.table import print_table


@click.command(help=text("help.schema"))
@click.argument("type", required=False)
@lang
@machine
@click.option("--example", is_flag=True, help=text("help.opt_example"))
def schema(type: str | None, as_json: bool, example: bool) -> None:
    """List the types, or print one type's schema (or example message) as JSON."""
    from proto import catalogue

    if type is None:
        rows = [[entry.name, entry.description] for entry in catalogue.entries()]
        if as_json:
            return echo_json([{"type": name, "description": what} for name, what in rows])
        return print_table([text("cli.schema_type"), text("cli.schema_what")], rows)
    try:
        entry = catalogue.entry(type)
    except KeyError:
        known = ", ".join(entry.name for entry in catalogue.entries())
        raise Failure(text("cli.schema_unknown", type=type, known=known), EX_REFUSED) from None
    if example:
        return echo_json({"type": type, "subject": "112-example", "body": entry.example})
    echo_json(catalogue.json_schema(type))
