"""`smpbus dead`: letters that could not be delivered; look at them, replay them, drop them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any, Final, TypeVar

import click

from proto.exits import EX_REFUSED
from proto.wording import in_words, text
from router.commands.group import CommandGroup
from router.commands.option import ask, common, echo_json, machine
from router.commands.table import local_time, print_table

Decorated = TypeVar("Decorated", bound=Callable[..., Any])
LIMIT: Final = 1000

dead: Final = CommandGroup(
    "dead",
    help=text("help.dead"),
    commands_at={
        "list": "router.commands.letters:list_letters",
        "replay": "router.commands.letters:replay",
        "drop": "router.commands.letters:drop",
    },
)


def _chosen(function: Decorated) -> Decorated:
    """Add what names dead letters: numbers, or a destination, type and subject."""
    for option in (
        click.option("--limit", default=LIMIT, metavar="N", help=text("help.opt_limit")),
        click.option("--subject", metavar="S", help=text("help.opt_about")),
        click.option("--type", metavar="TYPE", help=text("help.opt_of_type")),
        click.option("--destination", metavar="NAME", help=text("help.opt_of_destination")),
        click.argument("deliveries", nargs=-1, type=int),
    ):
        function = option(function)
    return function


_reason = click.option("--reason", required=True, metavar="WHY", help=text("help.opt_reason"))
_dry_run = click.option("--dry-run", is_flag=True, help=text("help.opt_dry_run"))


def _filter(chosen: dict[str, Any]) -> dict[str, Any]:
    chosen["deliveries"] = list(chosen["deliveries"]) or None
    return {name: value for name, value in chosen.items() if value is not None}


@click.command("list", help=text("help.dead_list"))
@_chosen
@common
@machine
def list_letters(path: Path | None, as_json: bool, **chosen: Any) -> None:
    """Print a row per dead letter: the newest ones, in order, and how many more there are."""
    found = ask(path, "dead", **_filter(chosen))
    if as_json:
        echo_json(found["letters"])
    else:
        _print(found)
    _tell_rest(found)


@click.command(help=text("help.dead_replay"))
@_chosen
@_reason
@_dry_run
@common
@machine
def replay(
    path: Path | None, as_json: bool, reason: str, dry_run: bool, **chosen: Any
) -> int | None:
    """Open dead letters again, in order."""
    return _change("replay", path, as_json, reason, dry_run, chosen)


@click.command(help=text("help.dead_drop"))
@_chosen
@_reason
@_dry_run
@common
@machine
def drop(path: Path | None, as_json: bool, reason: str, dry_run: bool, **chosen: Any) -> int | None:
    """Give dead letters up for good."""
    return _change("drop", path, as_json, reason, dry_run, chosen)


def _change(
    what: str, path: Path | None, as_json: bool, reason: str, dry_run: bool, chosen: dict[str, Any]
) -> int | None:
    wanted = _filter(chosen)
    if not wanted.keys() & {"deliveries", "destination"}:
        raise click.UsageError(text("cli.dead_which"))
    if dry_run:
        found = ask(path, "dead", oldest=True, **wanted)  # those that would be taken
        if as_json:
            echo_json(found["letters"])
            return None
        _print(found)
        _tell_rest(found)
        click.echo(text("cli.dead_dry_run", count=len(found["letters"])), err=True)
        return None
    result = ask(path, what, reason=reason, **wanted)
    count = result["replayed" if what == "replay" else "dropped"]
    if as_json:
        echo_json(result)
    else:
        click.echo(text(f"cli.dead_{what}", count=count), err=True)
        _tell_rest(result)
    return None if count else EX_REFUSED


def _tell_rest(result: dict[str, Any]) -> None:
    """Say what an answer leaves out: a list that is cut must not look whole."""
    if not result.get("all_looked_at", True):
        click.echo(text("cli.dead_not_all", count=result.get("more", 0)), err=True)
    elif result.get("more"):
        click.echo(text("cli.dead_more", count=result["more"]), err=True)


def _print(found: dict[str, Any]) -> None:
    letters = found["letters"]
    if not letters:
        if found.get("all_looked_at", True):
            click.echo(text("cli.dead_none"), err=True)
        return None
    columns = ("delivery", "destination", "died", "attempts", "subject")
    rows = [
        [
            letter["delivery"],
            letter["destination"],
            local_time(letter["died_at"])[:16].replace("T", " "),
            letter["attempts"],
            letter["subject"],
        ]
        for letter in letters
    ]
    why = [f"{letter['type']}: {in_words(letter['reason'] or '-')}" for letter in letters]
    print_table([text(f"cli.dead_{column}") for column in columns], rows, why)
    return None
