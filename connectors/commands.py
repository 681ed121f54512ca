"""The commands `smpbus connector` and `smpbus sim`: run a connector, run a partner's stand-in."""

import math
from importlib import import_module
from importlib.metadata import entry_points
from pathlib import Path
from typing import Any

import click

from connectors.runtime.check import check
from connectors.runtime.connector import Connector
from connectors.runtime.duration import DURATION
from connectors.runtime.faults import Faults
from connectors.runtime.log import LOG
from connectors.runtime.process import run_connector, serve_until_stopped
from connectors.runtime.serving import bind
from connectors.runtime.simulation import SimulatorSettings
from proto.exits import EX_UNAVAILABLE, EX_USAGE, StartError
from proto.logs import configure_logs
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
        shape: type[Connector] = _plugin("smpbus.connectors", kind or name, "connector.no_such")
        if only_check:
            raise SystemExit(_check(name, shape, config))
        run_connector(name, shape, config)
    except StartError as error:
        _end(error)


def _check(name: str, shape: type[Connector], config: Path | None) -> int:
    """Say what is found; return EX_UNAVAILABLE when something is missing."""
    code = 0
    for good, sentence, is_warning in check(name, shape, config):
        if is_warning:
            click.echo(text("log.warning", sentence=sentence), err=True)
        elif good:
            click.echo(text("connector.check_good", sentence=sentence))
        else:
            click.echo(text("log.error", sentence=sentence), err=True)
            code = EX_UNAVAILABLE
    return code


@click.command(help=text("connector.help_sim"))
@click.argument("name")
@click.option("--listen", required=True, help=text("connector.help_listen"))
@click.option("--connector", "connector_url", default="", help=text("connector.help_connector_url"))
@click.option("--token", "token_file", type=FILE, help=text("connector.help_sim_token"))
@click.option("--fail", type=click.FloatRange(0, 1), default=0.0, help=text("connector.help_fail"))
@click.option(
    "--refuse", type=click.FloatRange(0, 1), default=0.0, help=text("connector.help_refuse")
)
@click.option("--delay", type=DURATION, default=0.0, help=text("connector.help_delay"))
@click.option(
    "--down", type=DURATION, is_flag=False, flag_value=math.inf, help=text("connector.help_down")
)
@click.option("--down-after", type=DURATION, help=text("connector.help_down_after"))
@click.option("--garbage", is_flag=True, help=text("connector.help_garbage"))
@click.option("--pace", default=1.0, help=text("connector.help_pace"))
@click.option("--repeat", default=3.0, help=text("connector.help_repeat"))
@click.option("--seed", default=0, help=text("connector.help_seed"))
@click.option("--ledger", type=FILE, help=text("connector.help_ledger"))
@click.option("--lenient", is_flag=True, help=text("connector.help_lenient"))
def sim(name: str, listen: str, **options: Any) -> None:
    """Run the simulator of partner NAME until SIGTERM or Ctrl-C."""
    try:
        create_app = _plugin("smpbus.simulators", name, "connector.no_such_simulator")
        settings = _simulator_settings(**options)
        channel = bind(listen, "--listen")
    except StartError as error:
        _end(error)
        return
    configure_logs()
    LOG.info(text("connector.simulator_started", name=name, address=listen))
    serve_until_stopped(create_app(settings), channel)


def _simulator_settings(
    connector_url: str,
    token_file: Path | None,
    fail: float,
    refuse: float,
    delay: float,
    down: float | None,
    down_after: float | None,
    garbage: bool,
    pace: float,
    repeat: float,
    seed: int,
    ledger: Path | None,
    lenient: bool,
) -> SimulatorSettings:
    faults = Faults(
        fail=fail,
        refuse=refuse,
        delay_s=delay,
        down=down is not None and down_after is None,
        down_s=None if down in (None, math.inf) else down,
        down_after_s=down_after,
        spoil="any" if garbage else "",
        seed=seed,
    )
    return SimulatorSettings(
        connector_url=connector_url,
        token_file=token_file,
        pace_s=pace,
        repeat_s=repeat,
        seed=seed,
        ledger=ledger,
        strict=not lenient,
        faults=faults,
    )


def _plugin(group: str, name: str, missing: str) -> Any:
    if ":" in name:
        return _named(name)
    found = {point.name: point for point in entry_points(group=group)}
    if name not in found:
        known = ", ".join(sorted(found))
        raise StartError(text(missing, name=name, known=known), EX_USAGE)
    return found[name].load()


def _named(name: str) -> Any:
    """Return what "module:attribute" names: one that is not installed yet."""
    module, _, attribute = name.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise StartError(
            text("connector.not_importable", name=name, reason=error), EX_USAGE
        ) from None


def _end(error: StartError) -> None:
    click.echo(text("log.error", sentence=error.sentence), err=True)
    raise SystemExit(error.exit_code)
