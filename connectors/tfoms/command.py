"""`smpbus register`: build a register for the insurance fund, and take its answer."""

import os
import time
from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Final

import click
import msgspec

from connectors.tfoms.answer import BadAnswer, open_protocol, read_protocol
from connectors.tfoms.billed import Billed
from connectors.tfoms.case import Case, Problem
from connectors.tfoms.profile import load
from connectors.tfoms.register import Order, Register, Survey, tally
from proto.exits import EX_CANTCREAT, EX_DATAERR, EX_REFUSED, StartError
from proto.wording import text

FILE: Final = click.Path(path_type=Path)
SHOWN_MAX: Final = 10
SHOW_EVERY_S: Final = {True: 0.5, False: 5.0}  # on a terminal, elsewhere


@click.group(help=text("tfoms.help"))
def register() -> None:
    """Registers of cases for the insurance fund."""


@register.command(help=text("tfoms.help_build"))
@click.argument("cases", type=FILE)
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
def build(
    cases: Path, period: str, facility: str, payer: str, to_fund: bool, number: int,
    profile: str, tables: Path | None, ledger: Path, out: Path, skip_wrong: bool,
) -> None:  # fmt: skip
    """Check all cases, then write the register; nothing is written while a case is wrong."""
    began = time.monotonic()
    progress = _Progress()
    try:
        order = _order(period, facility, payer, to_fund, number)
        made = Register(order, load(profile, tables), _open(ledger), lambda: _read(cases), progress)
        survey = made.survey()
        progress.end()
        _say_wrong(survey)
        if survey.refused and not skip_wrong:
            raise StartError(text("tfoms.not_built"), EX_DATAERR)
        if not survey.count:
            raise StartError(text("tfoms.no_cases", file=cases), EX_REFUSED)
        target = made.write(out, survey)
    except OSError as error:
        _fail(StartError(f"{error.filename}: {error.strerror}", EX_CANTCREAT))
    except StartError as error:
        _fail(error)
    else:
        progress.end()
        seconds = f"{time.monotonic() - began:.1f}"
        total = f"{survey.total:.2f}"
        click.echo(text("tfoms.built", file=target, count=survey.count, total=total,
                        billed=survey.billed, doubled=survey.doubled,
                        again=len(survey.again), seconds=seconds))  # fmt: skip


@register.command(help=text("tfoms.help_answer"))
@click.argument("protocol", type=FILE)
@click.option("--ledger", type=FILE, default=Path("billed.db"), help=text("tfoms.help_ledger"))
def answer(protocol: Path, ledger: Path) -> None:
    """Take the fund's protocol: which cards were refused, and why."""
    try:
        with open_protocol(protocol) as file:
            name, refusals = read_protocol(file)
            codes: Counter[tuple[str, str]] = Counter()
            numbers = set()
            for refusal in refusals:
                codes[refusal.code, refusal.field] += 1
                if refusal.number is not None:
                    numbers.add(refusal.number)
        accepted, rejected = _open(ledger).answer(name, numbers)
    except (BadAnswer, OSError) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        _fail(StartError(text("tfoms.bad_answer", file=protocol, reason=reason), EX_DATAERR))
    except StartError as error:
        _fail(error)
    else:
        for (code, field), count in codes.most_common(SHOWN_MAX):
            click.echo(text("tfoms.refusal", code=code, field=field, count=count))
        click.echo(text("tfoms.answered", register=name, accepted=accepted, rejected=rejected))


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


def _read(cases: Path) -> Iterator[tuple[int, Case | Problem]]:
    """Yield the lines of a file of JSON lines. What is wrong is said without its value."""
    decoder = msgspec.json.Decoder(Case)
    with cases.open("rb") as file:
        for number, line in enumerate(file, 1):
            if not line.strip():
                continue
            try:
                yield number, decoder.decode(line)
            except msgspec.ValidationError as error:
                rule, _, path = str(error).partition(" - at `$.")
                yield number, Problem(path.rstrip("`"), rule.split(",")[0])
            except (msgspec.DecodeError, UnicodeDecodeError):
                yield number, Problem("", "is not JSON")


def _say_wrong(survey: Survey) -> None:
    for path, rule, count in tally(survey.refused)[:SHOWN_MAX]:
        line = next(line for line, _, one in survey.refused if (one.path, one.rule) == (path, rule))
        click.echo(
            text("tfoms.wrong", path=path or "-", rule=rule, count=count, line=line), err=True
        )


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
