"""`smpbus person`: what is kept of one person: find it, tell him, erase it."""

import json
import math
import os
import sys
from collections.abc import Callable
from datetime import date, datetime
from pathlib import Path
from typing import Any, Final, NoReturn, TypeVar

import click
import msgspec

from connectors.person.round import IN_WORK, Findings, Round, Sought
from connectors.runtime import persons
from connectors.runtime.accesses import whoever
from connectors.services.lookup.kind import kept_s
from proto.configuration.find import find_file
from proto.configuration.kinds import Unusable, kind_of, other_kind, read_as
from proto.configuration.layers import Layers, read_main
from proto.configuration.place import ConfigError
from proto.configuration.sections import CONNECTORS, OpsSettings
from proto.configuration.typed import section
from proto.exits import EX_CANTCREAT, EX_REFUSED, EX_TEMPFAIL, EX_UNAVAILABLE, StartError
from proto.ops import OpsError
from proto.person import by_enp, by_name, by_snils
from proto.wording import text

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
FILE: Final = click.Path(path_type=Path)
STDIN: Final = "-"  # a value that is to be read: a command line is seen by every user
ROWS_SHOWN: Final = 40
HOUR_S: Final = 3600


@click.group(help=text("person.help"))
def person() -> None:
    """What is kept of one person."""


def _who(function: Decorated) -> Decorated:
    """Add what names a person, and where to look."""
    for option in (
        click.option("--config", type=FILE, metavar="FILE", help=text("person.help_config")),
        click.option("--only-named", is_flag=True, help=text("person.help_only_named")),
        click.option("--born", metavar="YYYY-MM-DD", help=text("person.help_born")),
        click.option("--given", metavar="NAME", help=text("person.help_given")),
        click.option("--family", metavar="NAME", help=text("person.help_family")),
        click.option("--card", multiple=True, metavar="ID", help=text("person.help_card")),
        click.option("--phone", metavar="NUMBER", help=text("person.help_phone")),
        click.option("--snils", metavar="SNILS", help=text("person.help_snils")),
        click.option("--enp", metavar="ENP", help=text("person.help_enp")),
    ):
        function = option(function)
    return function


_json = click.option("--json", "as_json", is_flag=True, help=text("person.help_json"))


@person.command(help=text("person.help_find"))
@_who
@_json
def find(config: Path | None, only_named: bool, as_json: bool, **who: Any) -> None:
    """Show where something of a person is; nothing is changed."""
    sought = _sought(**who)
    round_ = _round(config, sought)
    findings = round_.look(only_named)
    _show(findings, _protocol(findings, sought, round_, "shown"), as_json)


@person.command(help=text("person.help_report"))
@click.option("--out", type=FILE, required=True, help=text("person.help_out"))
@_who
def report(config: Path | None, only_named: bool, out: Path, **who: Any) -> None:
    """Write the same into a file, for the answer to the person."""
    sought = _sought(**who)
    round_ = _round(config, sought)
    findings = round_.look(only_named)
    _write(out, _protocol(findings, sought, round_, "report"))
    click.echo(text("person.reported", file=out, count=len(findings)), err=True)


@person.command(help=text("person.help_erase"))
@click.option("--yes", is_flag=True, help=text("person.help_yes"))
@click.option("--reason", metavar="WHY", help=text("person.help_reason"))
@click.option("--protocol", type=FILE, help=text("person.help_protocol"))
@_who
@_json
def erase(
    config: Path | None,
    only_named: bool,
    as_json: bool,
    protocol: Path | None,
    reason: str | None,
    yes: bool,
    **who: Any,
) -> None:
    """Erase what is kept of a person; without --yes only say what would be."""
    sought = _sought(**who)
    if yes and not (reason and protocol):
        raise click.UsageError(text("person.yes_wants"))
    round_ = _round(config, sought)
    findings = round_.look(only_named)
    if yes and reason and protocol:
        # Before anything is gone.
        _write(protocol, _protocol(findings, sought, round_, "begun", reason))
        findings = round_.erase(findings, reason)
        _write(protocol, _protocol(findings, sought, round_, "erased", reason), over=True)
    _show(findings, _protocol(findings, sought, round_, "shown"), as_json)
    if not yes:
        click.echo(text("person.dry_run"), err=True)
    if yes and (findings.counts().get(IN_WORK) or findings.unreadable):
        click.echo(text("person.come_again", count=findings.counts().get(IN_WORK, 0)), err=True)
        raise SystemExit(EX_TEMPFAIL)


def _sought(
    enp: str | None,
    snils: str | None,
    phone: str | None,
    card: tuple[str, ...],
    family: str | None,
    given: str | None,
    born: str | None,
) -> Sought:
    sought = Sought()
    enp, snils, phone, family = (_read(one) for one in (enp, snils, phone, family))
    if enp:
        _expect(enp.isdecimal() and len(enp) == 16, "--enp")
        sought.words.append(by_enp(enp))
        sought.kinds.append("enp")
    if snils:
        _expect(sum(one.isdecimal() for one in snils) == 11, "--snils")
        sought.words.append(by_snils(snils))
        sought.kinds.append("snils")
    if phone:
        digits = "".join(one for one in phone if one.isdecimal())
        _expect(len(digits) >= 10, "--phone")
        ends = digits[-10:]
        sought.words.append(((f"+7{ends}", f"7{ends}", f"8{ends}", ends),))
        sought.kinds.append("phone")
    if family or given or born:
        _expect(bool(family and given and born), "--family --given --born")
        try:
            date.fromisoformat(born or "")
        except ValueError:
            _expect(False, "--born")
        sought.words.append(by_name(family or "", given or "", born or ""))
        sought.kinds.append("name")
    if card:
        sought.numbers += card
        sought.kinds.append("card")
    if not sought.kinds:
        raise click.UsageError(text("person.whom"))
    return sought


def _read(value: str | None) -> str | None:
    return sys.stdin.readline().strip() if value == STDIN else value


def _expect(good: bool, option: str) -> None:
    if not good:
        raise click.UsageError(text("person.bad_value", option=option))


def _round(config: Path | None, sought: Sought) -> "_Told":
    try:
        main = read_main(find_file(config))
        ops = section(main, OpsSettings).listen
        connectors = {name: _settings(main, name) for name in main.table(CONNECTORS)}
        cached_s = max((_cached_s(table) for table in connectors.values()), default=0.0)
    except StartError as error:
        _fail(error.sentence, error.exit_code)
    for name in persons.unknown(connectors):
        click.echo(text("log.warning", sentence=text("person.unknown", name=name)), err=True)
    return _Told(Round(ops, connectors, main.path.parent, sought), cached_s)


def _cached_s(table: dict[str, Any]) -> float:
    """Return for how long a connector's answers may be in its cache and in memcached."""
    lookup = table.get("lookup")
    return kept_s(lookup.get("ttl_s", {})) if isinstance(lookup, dict) else 0.0


def _settings(main: Layers, name: str) -> dict[str, Any]:
    """Return the settings of a connector with those that are built in: it keeps files that no table
    names. Of a kind that is not installed, what its table says has to do."""
    try:
        settings = read_as(main, name, kind_of(main, name))
    except Unusable:
        settings = None
    except ConfigError:
        kind = other_kind(main, name)
        if kind is None:
            raise
        settings = read_as(main, name, kind)
    if settings is None:
        return main.table(CONNECTORS, name)
    found: dict[str, Any] = msgspec.to_builtins(settings, enc_hook=str)
    return found


class _Told:
    """A round whose failures end with a sentence."""

    def __init__(self, round_: Round, cached_s: float) -> None:
        self._round = round_
        self.cached_s = cached_s

    def look(self, only_named: bool) -> Findings:
        """See Round."""
        try:
            return self._round.look(only_named=only_named, told=_progress)
        except OpsError as error:
            _no_router(error)

    def erase(self, findings: Findings, reason: str) -> Findings:
        """See Round."""
        try:
            return self._round.erase(findings, reason)
        except OpsError as error:
            _no_router(error)


def _no_router(error: OpsError) -> NoReturn:
    _fail(text("person.no_router", reason=error.sentence), EX_UNAVAILABLE)


def _progress(after: int) -> None:
    if sys.stderr.isatty():
        click.echo(text("person.progress", after=after), err=True)


def _protocol(
    findings: Findings, sought: Sought, round_: "_Told", what: str, reason: str = ""
) -> dict[str, Any]:
    """Return what is written down: who, when, which rows; no value that names the person."""
    return {
        "what": what,
        "at": datetime.now().astimezone().isoformat(timespec="seconds"),
        "by": whoever(),
        "reason": reason,
        "sought_by": sought.kinds,
        "counts": findings.counts(),
        "journal": findings.journal,
        "files": findings.files,
        "not_readable": findings.unreadable,
        "passed_on_to": findings.partners(),
        "not_touched": [
            text(f"person.rest_{one}", hours=math.ceil(round_.cached_s / HOUR_S))
            for one in ("partners", "cache", "accesses", "database", "registers", "backups")
        ],
    }  # fmt: skip


def _write(file: Path, protocol: dict[str, Any], *, over: bool = False) -> None:
    flags = os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | (os.O_TRUNC if over else os.O_EXCL)
    try:
        with os.fdopen(os.open(file, flags, 0o600), "w", encoding="utf-8") as out:
            json.dump(protocol, out, ensure_ascii=False, indent=2)
            out.flush()
            os.fsync(out.fileno())
    except OSError as error:
        _fail(f"{file}: {error.strerror}", EX_CANTCREAT)


def _show(findings: Findings, protocol: dict[str, Any], as_json: bool) -> None:
    if as_json:
        click.echo(json.dumps(protocol, ensure_ascii=False, indent=2))
    else:
        for row in findings.journal[:ROWS_SHOWN]:
            states = ", ".join(
                f"{one['destination']} {_state(one['state'])}" for one in row["deliveries"]
            )
            click.echo(text("person.row_message", became=_word(row), states=states, **_bare(row)))
        for row in findings.files[:ROWS_SHOWN]:
            click.echo(text("person.row_file", became=_word(row), **_bare(row)))
        for bad in findings.unreadable:
            click.echo(text("log.warning", sentence=text("person.unreadable", **bad)), err=True)
        counts = ", ".join(
            f"{text(f'person.{word}')}: {n}" for word, n in findings.counts().items()
        )
        click.echo(text("person.sum", messages=len(findings.journal), rows=len(findings.files),
                        counts=counts or "-"))  # fmt: skip
        if partners := findings.partners():
            click.echo(text("person.partners", partners=", ".join(partners)))
    if not findings and not findings.unreadable:
        _fail(text("person.nothing"), EX_REFUSED)


def _state(state: str) -> str:
    return text("cli.delivery_pending" if state == "open" else f"cli.delivery_{state}")


def _word(row: dict[str, Any]) -> str:
    return text(f"person.{row['became']}")


def _bare(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if key != "became"}


def _fail(sentence: str, status: int) -> NoReturn:
    click.echo(text("log.error", sentence=sentence), err=True)
    raise SystemExit(status)
