"""`smpbus router`: run the router in the foreground, as systemd and supervisor want it."""

from pathlib import Path

import click

from proto.wording import text
from router.commands.option import common
from router.config import load


@click.command(help=text("help.router"))
@common
@click.option("--store", type=click.Path(path_type=Path), help=text("help.opt_store"))
@click.option(
    "--log-level",
    type=click.Choice(["debug", "info", "warning", "error"]),
    help=text("help.opt_log_level"),
)
def router(path: Path | None, store: Path | None, log_level: str | None) -> int:
    """Run until told to stop; return the exit status."""
    loaded = load(path, {"store.folder": store and str(store), "log.level": log_level})
    for warning in loaded.warnings:
        click.echo(text("log.warning", sentence=warning), err=True)
    from router.shell.daemon import run

    return run(loaded)
