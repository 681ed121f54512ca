"""`smpbus route explain FILE`: where a message would go and why, without sending it."""

from pathlib import Path
from typing import Any, Final, TextIO

import click

from proto.exits import EX_REFUSED
from proto.wording import text
from router.commands.group import CommandGroup
from router.commands.option import common, echo_json, machine
from router.commands.sender import NAME_BY_DEFAULT, Draft, read_drafts
from router.commands.table import styled
from router.config import load
from router.core.permission import Rights
from router.core.routing import Routes, Verdict
from router.settings import Permission, Settings

route: Final = CommandGroup(
    "route", help=text("help.route"), commands_at={"explain": "router.commands.route:explain"}
)


@click.command(help=text("help.route_explain"))
@click.argument("file", type=click.File(encoding="utf-8"))
@common
@machine
@click.option("--name", default=NAME_BY_DEFAULT, help=text("help.opt_name"))
def explain(file: TextIO, path: Path | None, as_json: bool, name: str) -> int | None:
    """Print each route's verdict and the destinations; exit status 1 when one would go nowhere."""
    settings = load(path).settings
    verdicts = [_judge(settings, name, draft) for draft in read_drafts(file.read(), file.name)]
    if as_json:
        echo_json(verdicts)
    else:
        for verdict in verdicts:
            _print(verdict)
    return None if all(verdict["destinations"] for verdict in verdicts) else EX_REFUSED


def _judge(settings: Settings, name: str, draft: Draft) -> dict[str, Any]:
    routes = Routes(settings.routes)
    permission = settings.permissions.get(name)
    permitted = Rights(permission or Permission()).publish.match(draft.type)
    destinations = routes.find(name, draft.type, draft.priority) if permitted else ()
    return {
        "type": draft.type,
        "source": name,
        "priority": draft.priority,
        "known_name": permission is not None,
        "permitted": permitted,
        "routes": [
            verdict._asdict() for verdict in routes.explain(name, draft.type, draft.priority)
        ],
        "destinations": list(destinations),
    }


def _print(verdict: dict[str, Any]) -> None:
    head = {key: verdict[key] for key in ("type", "source", "priority")}
    click.echo(styled(text("cli.route_head", **head), bold=True))
    if not verdict["known_name"]:
        click.echo(text("cli.route_no_name", source=verdict["source"]))
    elif not verdict["permitted"]:
        click.echo(text("cli.route_not_permitted", source=verdict["source"], type=verdict["type"]))
    for one in verdict["routes"]:
        click.echo(_line(Verdict(**one)))
    if verdict["destinations"]:
        click.echo(text("cli.route_goes", destinations=", ".join(verdict["destinations"])))
    else:
        click.echo(text("cli.route_nowhere"))


def _line(verdict: Verdict) -> str:
    to = ", ".join(verdict.to)
    if not verdict.mismatch:
        return text("cli.route_takes", number=verdict.number, to=to)
    why = text(f"cli.route_other_{verdict.mismatch}")
    return text("cli.route_passes", number=verdict.number, to=to, why=why)
