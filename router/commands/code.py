"""`smpbus explain CODE`: what a code of the wire means, and what to do about it."""

import click

from proto.errors import Code
from proto.exits import EX_REFUSED
from proto.wording import text
from router.commands.option import Failure, lang


@click.command(help=text("help.explain"))
@click.argument("code")
@lang
def explain(code: str) -> None:
    """Print the explanation of one code."""
    if code not in list(Code):
        known = ", ".join(Code)
        raise Failure(text("cli.code_unknown", code=code, known=known), EX_REFUSED)
    click.echo(text(f"codes.{code}"))
