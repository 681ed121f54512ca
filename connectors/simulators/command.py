"""The command `smpbus sim`: run a partner's stand-in."""

import math
from pathlib import Path
from typing import Any

import click

from connectors.plugins import end, plugin
from connectors.runtime.bus.process import serve_until_stopped
from connectors.runtime.door.serving import bind
from connectors.runtime.log import LOG
from connectors.simulators.kit.duration import DURATION
from connectors.simulators.kit.faults import Faults
from connectors.simulators.kit.simulation import SimulatorSettings
from proto.exits import StartError
from proto.logs import configure_logs
from proto.wording import text

FILE = click.Path(path_type=Path)


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
        create_app = plugin("smpbus.simulators", name, "connector.no_such_simulator")
        settings = _simulator_settings(**options)
        channel = bind(listen, "--listen")
    except StartError as error:
        end(error)
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
