"""`smpbus register`: build a register for the insurance fund, and take its answer."""

import asyncio
import os
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Final, cast

import click

from connectors.billing import profile as profiles
from connectors.billing.answer import Answer, BadAnswer, Verdict, open_answer, read_answer
from connectors.billing.billed import ACCEPTED, PAID, REJECTED, UNPAID, Billed
from connectors.billing.reading import Cases, month_of, read_lines, read_store
from connectors.billing.register import Order, Register, Survey, tally
from connectors.billing.store import Store
from connectors.billing.telling import NotTold, tell
from connectors.partners.tfoms.connector import NAME, TfomsSettings
from connectors.runtime.accesses import note_now
from connectors.runtime.bus.settings import Loaded, load
from proto.client import BusClient
from proto.configuration.find import find_file
from proto.configuration.layers import read_main
from proto.configuration.typed import section
from proto.exits import (
    EX_CANTCREAT,
    EX_DATAERR,
    EX_NOPERM,
    EX_REFUSED,
    EX_TEMPFAIL,
    EX_USAGE,
    StartError,
)
from proto.keys import KeyFileError
from proto.retention import Retention
from proto.wording import text

FILE: Final = click.Path(path_type=Path)
SHOWN_MAX: Final = 10
SHOW_EVERY_S: Final = {True: 0.5, False: 5.0}  # on a terminal, elsewhere


@click.group(help=text("tfoms.help"))
def register() -> None:
    """Registers of cases for the insurance fund."""


@register.command(help=text("tfoms.help_build"))
@click.argument("cases", type=FILE, required=False)
@click.option("--from-store", is_flag=True, help=text("tfoms.help_from_store"))
@click.option("--period", required=True, metavar="YYYY-MM", help=text("tfoms.help_period"))
@click.option("--facility", required=True, help=text("tfoms.help_facility"))
@click.option("--payer", required=True, help=text("tfoms.help_payer"))
@click.option("--to-fund", is_flag=True, help=text("tfoms.help_to_fund"))
@click.option("--number", default=1, show_default=True, help=text("tfoms.help_number"))
@click.option(
    "--profile", envvar="TFOMS_TF_CODE", default="federal", help=text("tfoms.help_profile")
)
@click.option("--tables", type=FILE, help=text("tfoms.help_tables"))
@click.option("--ledger", type=FILE, default=Path("billed.db"), help=text("tfoms.help_ledger"))
@click.option("--out", type=FILE, default=Path(), help=text("tfoms.help_out"))
@click.option("--skip-wrong", is_flag=True, help=text("tfoms.help_skip_wrong"))
@click.option("--config", type=FILE, help=text("tfoms.help_config"))
def build(
    cases: Path | None, from_store: bool, period: str, facility: str, payer: str, to_fund: bool,
    number: int, profile: str, tables: Path | None, ledger: Path, out: Path, skip_wrong: bool,
    config: Path | None,
) -> None:  # fmt: skip
    """Check all cases, then write the register; nothing is written while a case is wrong."""
    began = time.monotonic()
    progress = _Progress()
    with _told_errors():
        if (cases is None) != from_store:
            raise StartError(text("tfoms.one_source"), EX_USAGE)
        order = _order(period, facility, payer, to_fund, number)
        known = profiles.load(profile, tables)
        billed = _open(ledger)
        with _source(cases, config, order, known) as read:
            made = Register(order, known, billed, read, progress)
            survey = made.survey()
            progress.end()
            _say_wrong(survey)
            if survey.refused and not skip_wrong:
                raise StartError(text("tfoms.not_built"), EX_DATAERR)
            if not survey.count:
                where = cases or text("tfoms.store")
                raise StartError(text("tfoms.no_cases", file=where), EX_REFUSED)
            target = made.write(out, survey)
            billed.forget(_oldest_month(config))
        progress.end()
        seconds = f"{time.monotonic() - began:.1f}"
        total = f"{survey.total:.2f}"
        click.echo(text("tfoms.built", file=target, count=survey.count, total=total,
                        billed=survey.billed, doubled=survey.doubled,
                        again=len(survey.again), seconds=seconds))  # fmt: skip


@contextmanager
def _source(
    cases: Path | None, config: Path | None, order: Order, tables: profiles.Tables
) -> Iterator[Callable[[], Cases]]:
    """Give what reads the cases, the same ones each time. Raises StartError."""
    if cases is not None:
        yield lambda: read_lines(cases)
        return
    loaded = _settings(config)
    settings = cast("TfomsSettings", loaded.settings)
    folder = settings.access_folder or settings.store_file.parent / "access"
    ids = [f"{order.year}-{order.month:02}", order.facility, order.payer]
    note_now(folder, loaded.store, "register.build", ids)
    store = Store(settings.store_file, make=False)
    month = month_of(order.year, order.month)
    try:
        with store.snapshot():
            for why, count in store.unpaid(*month).items():
                line = text("tfoms.unpaid", count=count, why=text(f"note.tfoms.why_{why}"))
                click.echo(text("log.warning", sentence=line), err=True)
            yield lambda: read_store(store, tables, month, order.payer, to_fund=order.to_fund)
    finally:
        store.close()


@register.command(help=text("tfoms.help_answer"))
@click.argument("answer", metavar="ANSWER", type=FILE)
@click.option("--ledger", type=FILE, default=Path("billed.db"), help=text("tfoms.help_ledger"))
@click.option("--config", type=FILE, help=text("tfoms.help_config"))
def answer(answer: Path, ledger: Path, config: Path | None) -> None:
    """Take the fund's answer: which cards are paid, which were refused, and why; tell the bus."""
    progress = _Progress()
    codes: Counter[tuple[str, str]] = Counter()
    with _told_errors():
        billed = _open(ledger)
        try:
            with open_answer(answer) as file:
                said = read_answer(file)
                name = billed.register_of(said)
                if name is None:
                    raise BadAnswer(text("tfoms.no_register", names=", ".join(said.registers)))
                billed.settle(name, said.stage, _counted(said, codes, progress))
        except (BadAnswer, OSError) as error:
            reason = error.strerror if isinstance(error, OSError) else error
            sentence = text("tfoms.bad_answer", file=answer, reason=reason)
            raise StartError(sentence, EX_DATAERR) from None
        progress.end()
        for (code, field), count in codes.most_common(SHOWN_MAX):
            click.echo(text("tfoms.refusal", code=code, field=field or "-", count=count))
        _say_counts(name, billed.counts(name))
        if any(billed.untold(name, 1)):
            told = asyncio.run(_tell(billed, name, config, progress))
            progress.end()
            click.echo(text("tfoms.told", count=told))


def _counted(
    said: Answer, codes: Counter[tuple[str, str]], progress: "_Progress"
) -> Iterator[Verdict]:
    for number, verdict in enumerate(said.verdicts, 1):
        codes.update((code, verdict.field) for code in verdict.codes)
        if number % 1000 == 0:
            progress("answer", number)
        yield verdict


async def _tell(billed: Billed, name: str, config: Path | None, progress: "_Progress") -> int:
    """Raises StartError; what is not told is told by the next try."""
    loaded = _settings(config)
    try:
        bus = BusClient(loaded.address, name=NAME, key=loaded.key, server_key=loaded.server_key)
    except KeyFileError as error:
        raise StartError(text("tfoms.not_told", reason=error), EX_NOPERM) from None
    await bus.start()
    try:
        return await tell(bus, billed, name, lambda count: progress("tell", count))
    except NotTold as error:
        raise StartError(text("tfoms.not_told", reason=error), EX_TEMPFAIL) from None
    finally:
        await bus.close()


def _say_counts(name: str, counts: dict[str, int]) -> None:
    accepted, paid = counts.get(ACCEPTED, 0), counts.get(PAID, 0)
    rejected = counts.get(REJECTED, 0) + counts.get(UNPAID, 0)
    click.echo(
        text("tfoms.answered", register=name, accepted=accepted, paid=paid, rejected=rejected)
    )


def _settings(config: Path | None) -> Loaded:
    return load(NAME, TfomsSettings, find_file(config))


def _oldest_month(config: Path | None) -> str:
    """Return the first month (YYMM) whose registers the ledger keeps."""
    try:
        kept = section(read_main(find_file(config)), Retention)
    except StartError:  # a register of a file needs no settings
        kept = Retention()
    return (datetime.now(UTC) - timedelta(days=kept.fund_ledger_days)).strftime("%y%m")


def _order(period: str, facility: str, payer: str, to_fund: bool, number: int) -> Order:
    try:
        month = datetime.strptime(period, "%Y-%m").replace(tzinfo=UTC)
    except ValueError:
        raise StartError(text("tfoms.bad_period", period=period), EX_DATAERR) from None
    today = datetime.now().astimezone().date()
    return Order(facility, payer, to_fund, month.year, month.month, number, today)


def _open(ledger: Path) -> Billed:
    try:
        return Billed(ledger)
    except Exception as error:
        reason = type(error).__name__
        raise StartError(
            text("tfoms.bad_ledger", file=ledger, reason=reason), EX_CANTCREAT
        ) from None


def _say_wrong(survey: Survey) -> None:
    for path, rule, count in tally(survey.refused)[:SHOWN_MAX]:
        line, card = next(
            (line, card)
            for line, card, one in survey.refused
            if (one.path, one.rule) == (path, rule)
        )
        shown = text("tfoms.wrong", path=path or "-", rule=rule, count=count, line=line, card=card)
        click.echo(shown, err=True)


@contextmanager
def _told_errors() -> Iterator[None]:
    """End with the sentence and the exit status of what went wrong."""
    try:
        yield
    except OSError as error:
        _fail(StartError(f"{error.filename}: {error.strerror}", EX_CANTCREAT))
    except StartError as error:
        _fail(error)


def _fail(error: StartError) -> None:
    click.echo(text("log.error", sentence=error.sentence), err=True)
    raise SystemExit(error.exit_code)


class _Progress:
    """A line that counts, on a terminal; a line now and then elsewhere."""

    def __init__(self) -> None:
        self._shown = time.monotonic()
        self._terminal = os.isatty(2)
        self._open = False

    def __call__(self, stage: str, count: int) -> None:
        now = time.monotonic()
        if now - self._shown < SHOW_EVERY_S[self._terminal]:
            return
        self._shown = now
        self._open = self._terminal
        click.echo(text(f"tfoms.progress_{stage}", count=count), err=True, nl=not self._open)
        if self._open:
            click.echo("\r", err=True, nl=False)

    def end(self) -> None:
        """Leave the counting line."""
        if self._open:
            click.echo("", err=True)
            self._open = False
