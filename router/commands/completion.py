"""`smpbus completion SHELL`: the script that completes smpbus in bash, zsh or fish."""

from typing import Final

import click
from click.shell_completion import get_completion_class

from proto.wording import text
from router.commands.option import lang

SHELLS: Final = ("bash", "zsh", "fish")


@click.command(help=text("help.completion"))
@click.argument("shell", type=click.Choice(SHELLS))
@lang
@click.pass_context
def completion(context: click.Context, shell: str) -> None:
    """Print the script."""
    complete = get_completion_class(shell)
    if complete is None:
        raise click.BadParameter(shell)
    click.echo(complete(context.find_root().command, {}, "smpbus", "_SMPBUS_COMPLETE").source())
