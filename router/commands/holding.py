"""`smpbus hold`, `release`, `retry`: keep deliveries back, let them go, or have them tried now."""

from pathlib import Path

import click

from proto.wording import text
from router.commands.option import ask, common, echo_json, machine


@click.command(help=text("help.hold"))
@click.argument("destination")
@click.option("--reason", required=True, metavar="WHY", help=text("help.opt_reason"))
@common
@machine
def hold(destination: str, reason: str, path: Path | None, as_json: bool) -> None:
    """Deliver nothing to a destination; it still accepts."""
    result = ask(path, "hold", destination=destination, reason=reason)
    if as_json:
        return echo_json(result)
    click.echo(text("cli.held", destination=destination, reason=reason), err=True)


@click.command(help=text("help.release"))
@click.argument("destination")
@common
@machine
def release(destination: str, path: Path | None, as_json: bool) -> None:
    """Let a destination's deliveries go again."""
    result = ask(path, "release", destination=destination)
    if as_json:
        return echo_json(result)
    click.echo(text("cli.released", destination=destination), err=True)


@click.command(help=text("help.retry"))
@click.argument("destination")
@click.argument("subject", required=False)
@common
@machine
def retry(destination: str, subject: str | None, path: Path | None, as_json: bool) -> None:
    """Try again now what waits for its next attempt."""
    result = ask(path, "try_now", destination=destination, subject=subject)
    if as_json:
        return echo_json(result)
    click.echo(text("cli.tried", destination=destination, count=result["tried"]), err=True)
