"""The command `smpbus drill NAME --down 10m`."""

import asyncio
import json
import signal
from pathlib import Path
from typing import Final

import click

from connectors.simulators.demo.screen import Screen
from connectors.simulators.drill.exercise import DRIVER, MODES, Exercise, Plan
from connectors.simulators.drill.report import Report
from connectors.simulators.drill.standin import find
from connectors.simulators.kit.duration import DURATION
from proto.configuration.find import find_file
from proto.configuration.layers import read_main
from proto.configuration.sections import CONNECTORS, OpsSettings
from proto.configuration.typed import section
from proto.exits import EX_INTERRUPTED, EX_REFUSED, EX_USAGE, StartError
from proto.wording import LANGUAGES, text

FILE: Final = click.Path(path_type=Path)


@click.command(help=text("drill.help"))
@click.argument("name")
@click.option("--down", "down_s", type=DURATION, required=True, help=text("drill.help_down"))
@click.option(
    "--mode", type=click.Choice(list(MODES)), default="down", help=text("drill.help_mode")
)
@click.option("--rate", type=click.FloatRange(0.01, 50), default=0.5, help=text("drill.help_rate"))
@click.option("--before", "before_s", type=DURATION, default=20.0, help=text("drill.help_before"))
@click.option("--wait", "wait_s", type=DURATION, default=600.0, help=text("drill.help_wait"))
@click.option("--config", type=FILE, help=text("connector.help_config"))
@click.option("--json", "as_json", is_flag=True, help=text("help.opt_json"))
@click.option(
    "--lang", type=click.Choice(LANGUAGES), expose_value=False, help=text("help.opt_lang")
)
def drill(
    name: str, down_s: float, mode: str, rate: float, before_s: float, wait_s: float,
    config: Path | None, as_json: bool,
) -> int:  # fmt: skip
    """Return 0, 1 when a promise was broken, 130 when it was interrupted. Raises StartError."""
    if down_s <= 0:
        raise StartError(text("drill.no_time"), EX_USAGE)
    main = read_main(find_file(config))
    connectors = main.table(CONNECTORS)
    destination = str(connectors.get(name, {}).get("destination") or name)
    plan = Plan(name, destination, mode, down_s, before_s, wait_s, rate)
    ops = section(main, OpsSettings).listen
    screen = Screen()
    report = asyncio.run(_hold(plan, connectors, ops, None if as_json else screen))
    if report is None:
        click.echo(text("drill.interrupted", name=name), err=True)
        return EX_INTERRUPTED
    if as_json:
        click.echo(json.dumps(report.plain(), ensure_ascii=False, indent=2))
    else:
        _print(report, screen)
    return EX_REFUSED if report.broken else 0


async def _hold(
    plan: Plan, connectors: dict[str, object], ops: str, screen: Screen | None
) -> Report | None:
    """Return None when a signal ended it; the partner is back then, too. Raises StartError."""
    standins = await find(connectors, plan.name, DRIVER)
    exercise = Exercise(plan, standins, ops, screen.live if screen else lambda _: None)
    work = asyncio.create_task(exercise.run())
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, work.cancel)
    try:
        return Report(await work)
    except asyncio.CancelledError:
        return None
    finally:
        for standin in standins.values():
            await standin.close()


def _print(report: Report, screen: Screen) -> None:
    for line in report.lines():
        screen.line(line)
    for sentence in report.broken:
        screen.line(text("log.error", sentence=sentence), fg="red")
    if not report.broken:
        screen.line(text("drill.kept"), fg="green", bold=True)
