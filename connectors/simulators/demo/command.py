"""The command `smpbus demo`: build it up, feed a day, show one call, keep running, clean up."""

import asyncio
import os
import shlex
import signal
import subprocess
import sys
import time
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Final

import click

from connectors.simulators.demo.billing import bill
from connectors.simulators.demo.callers import token_of
from connectors.simulators.demo.day import Day, Progress
from connectors.simulators.demo.folder import LISTENERS, PARTNERS, DemoFolder, open_folder
from connectors.simulators.demo.proof import Proof, choose, prove
from connectors.simulators.demo.readiness import wait_ready
from connectors.simulators.demo.screen import Screen
from connectors.simulators.demo.supervision import (
    SMPBUS,
    Supervisor,
    environment,
    render,
    stop_leftover,
)
from connectors.simulators.sys112.samples import day_of_cards
from proto.exits import EX_REFUSED, StartError
from proto.wording import LANGUAGES, text

FILE: Final = click.Path(path_type=Path)
PACE_S: Final = 0.3
TRICKLE_S: Final = 5.0


@dataclass(frozen=True)
class Plan:
    """What was asked for: end after one day?, how many incidents, how long programs may start."""

    once: bool
    cards: int
    wait_s: float


@click.command(help=text("demo.help"))
@click.option("--data", type=FILE, default=Path("demo-data"), help=text("demo.help_data"))
@click.option("--once", is_flag=True, help=text("demo.help_once"))
@click.option("--clean/--resume", default=True, help=text("demo.help_clean"))
@click.option("--cards", type=click.IntRange(1, 20_000), default=60, help=text("demo.help_cards"))
@click.option("--wait", "wait_s", default=30.0, help=text("demo.help_wait"))
@click.option("--lang", type=click.Choice(LANGUAGES), expose_value=False)
def demo(data: Path, once: bool, clean: bool, cards: int, wait_s: float) -> int:
    """Return 0, or 1 when the shown call's trace is incomplete."""
    screen = Screen()
    try:
        folder = open_folder(data)
        if stop_leftover(folder):
            screen.line(text("demo.leftover"))
        if clean:
            folder.empty()
        folder.prepare()
    except StartError as error:
        raise _failure(error) from None
    screen.line(text("demo.title", folder=folder.path), bold=True)
    try:
        return asyncio.run(_run(folder, screen, Plan(once, cards, wait_s)))
    finally:
        folder.close()


async def _run(folder: DemoFolder, screen: Screen, plan: Plan) -> int:
    stop = _stop_on_signals()
    conf = render(folder, _simulators(folder))
    supervisor = Supervisor(folder, conf)
    work = asyncio.create_task(_show(folder, screen, supervisor, plan))
    stopped = asyncio.create_task(stop.wait())
    try:
        await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
        if not work.done():
            work.cancel()
        stopped.cancel()
        outcome = (await asyncio.gather(work, return_exceptions=True))[0]
    finally:
        screen.line(text("demo.stopping"))
        killed = await asyncio.to_thread(supervisor.stop)
    if killed:
        screen.line(text("demo.killed", pids=", ".join(map(str, killed))))
    if isinstance(outcome, StartError):
        raise _failure(outcome)
    if isinstance(outcome, asyncio.CancelledError):
        outcome = 0
    if isinstance(outcome, BaseException):
        raise outcome
    screen.line(text("demo.stopped", folder=folder.path))
    return outcome


async def _show(folder: DemoFolder, screen: Screen, supervisor: Supervisor, plan: Plan) -> int:
    await wait_ready(folder, screen, supervisor, plan.wait_s)
    day = Day(folder, folder.memory.runs, plan.cards)
    try:
        screen.line(text("demo.day", cards=len(day.samples), incidents=plan.cards))
        ended = await day.run(lambda now: screen.live(_progress(now, len(day.samples))))
        last = await day.look()
        screen.line(_progress(last, len(day.samples)))
        if not ended:
            unanswered = len(day.samples) - last.accepted - last.refused
            stuck = text(
                "demo.not_ended", unanswered=unanswered, living=last.living, open=last.open
            )
            screen.line(stuck, fg="red")
        screen.line()
        _command(folder, screen, "queues")
        chosen = choose(day)
        await bill(folder, day, chosen, partial(_command, folder, screen))
        proof = prove(day, chosen)
        _command(folder, screen, "trace", proof.subject)
        _verdict(screen, proof)
        if not plan.once:
            await _stay(folder, screen, day)
        return 0 if ended and not proof.missing else EX_REFUSED
    finally:
        await day.close()


def _verdict(screen: Screen, proof: Proof) -> None:
    screen.line()
    for sentence in proof.missing:
        screen.line(text("log.error", sentence=sentence), fg="red")
    key = "demo.incomplete" if proof.missing else "demo.complete"
    words = text(
        key,
        subject=proof.subject,
        call=proof.call_id,
        status=proof.status,
        reactions=proof.reactions,
    )
    screen.line(words, fg="red" if proof.missing else "green", bold=True)
    if proof.numbers:
        screen.line(text("demo.numbers", numbers=", ".join(proof.numbers)))


async def _stay(folder: DemoFolder, screen: Screen, day: Day) -> None:
    """Keep everything running, with a new incident now and then, until told to stop."""
    screen.line()
    screen.line(text("demo.stay", smpbus=_typed(SMPBUS), settings=_typed(folder.settings)))
    night = day_of_cards(10_000 + folder.memory.runs, 5_000, malformed=False)
    next_at = time.monotonic()
    for sample in night:
        while time.monotonic() < next_at:
            now = await day.look()
            screen.live(_progress(now, now.posted))
            await asyncio.sleep(1)
        next_at = time.monotonic() + TRICKLE_S
        await day.post([sample])


def _simulators(folder: DemoFolder) -> dict[str, str]:
    options = {}
    for name in PARTNERS:
        connector = folder.ami if name == "ats" else folder.url(name)
        listen = folder.url(f"sim-{name}").removeprefix("http://")
        ledger = _shell(folder.path / f"sim-{name}.ledger")
        options[name] = (
            f"--listen {listen} --connector {connector} "
            f"--pace {PACE_S} --repeat 0.5 --ledger {ledger}"
        )
        if name in LISTENERS:
            options[name] += f" --token {_shell(token_of(folder.path, name))}"
    return options


def _command(folder: DemoFolder, screen: Screen, *arguments: str) -> None:
    """Run a command of smpbus as the administrator would, and show that it is one."""
    settings = _typed(folder.settings)
    typed = [_typed(Path(one)) if one.startswith("/") else one for one in arguments]
    screen.line(f"$ smpbus {' '.join(typed)} --config {settings}", bold=True)
    command = [str(SMPBUS), *arguments, "--config", str(folder.settings)]
    subprocess.run(command, env=environment(), check=False)
    sys.stdout.flush()
    screen.line()


def _progress(now: Progress, cards: int) -> str:
    return text(
        "demo.progress",
        cards=cards,
        posted=now.posted,
        accepted=now.accepted,
        refused=now.refused,
        calls=now.calls,
        living=now.living,
        statuses=now.statuses,
        reactions=now.reactions,
    )


def _typed(path: Path) -> str:
    """Return the path as one would type it: relative to here when that is shorter."""
    here = os.path.relpath(path)
    return _shell(min(here, str(path), key=len))


def _shell(path: object) -> str:

    return shlex.quote(str(path))


def _stop_on_signals() -> asyncio.Event:
    stop = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        loop.add_signal_handler(number, stop.set)
    return stop


def _failure(error: StartError) -> click.ClickException:
    failure = click.ClickException(error.sentence)
    failure.exit_code = error.exit_code  # type: ignore[misc]
    return failure
