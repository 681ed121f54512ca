"""The command `smpbus connector`: run a connector, or say whether it would run."""

from pathlib import Path

import click

from connectors.plugins import end, plugin
from connectors.runtime.bus.check import check
from connectors.runtime.bus.connector import Connector
from connectors.runtime.bus.process import run_connector
from proto.configuration.find import find_file
from proto.configuration.kinds import GROUP, kind_of
from proto.configuration.layers import read_main
from proto.exits import StartError
from proto.wording import text

FILE = click.Path(path_type=Path)


@click.command(help=text("connector.help"))
@click.argument("name")
@click.option("--config", type=FILE, help=text("connector.help_config"))
@click.option("--kind", help=text("connector.help_kind"))
@click.option("--check", "only_check", is_flag=True, help=text("connector.help_check"))
def connector(name: str, config: Path | None, kind: str | None, only_check: bool) -> None:
    """Run connector NAME until SIGTERM or Ctrl-C; its table is [connectors.NAME]."""
    try:
        kind = kind or kind_of(read_main(find_file(config)), name)
        shape: type[Connector] = plugin(GROUP, kind, "connector.no_such")
        if only_check:
            raise SystemExit(_check(name, shape, config))
        run_connector(name, shape, config)
    except StartError as error:
        end(error)


def _check(name: str, shape: type[Connector], config: Path | None) -> int:
    """Say what is found; return the status of the first thing that is bad."""
    code = 0
    for good, sentence, is_warning, status in check(name, shape, config):
        if is_warning:
            click.echo(text("log.warning", sentence=sentence), err=True)
        elif good:
            click.echo(text("connector.check_good", sentence=sentence))
        else:
            click.echo(text("log.error", sentence=sentence), err=True)
            code = code or status
    return code
