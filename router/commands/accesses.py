"""`smpbus access`: who looked at whose data, and whether what is written of that is whole."""

from pathlib import Path
from typing import Any, Final

import click
import msgspec

from proto.accesses import Access, Line, head_of, names_in, read
from proto.exits import EX_DATAERR, EX_REFUSED
from proto.visible import visible
from proto.wording import text
from router.commands.group import CommandGroup
from router.commands.option import Failure, common, echo_json, machine
from router.commands.table import local_time, print_table
from router.config import load
from router.shell.accesses import folders

LIMIT: Final = 100

access: Final = CommandGroup(
    "access",
    help=text("help.access"),
    commands_at={
        "list": "router.commands.accesses:list_accesses",
        "verify": "router.commands.accesses:verify",
    },
)
_folder = click.option(
    "--folder",
    "given",
    multiple=True,
    type=click.Path(path_type=Path, exists=True, file_okay=False),
    metavar="DIR",
    help=text("help.opt_access_folder"),
)


def _journals(path: Path | None, given: tuple[Path, ...]) -> list[tuple[Path, str]]:
    """Return folder and name of each journal there is. Raises Failure when there is none."""
    where = list(given) or folders(load(path, whole=False).settings.store.folder)
    found = [(folder, name) for folder in where for name in names_in(folder)]
    if not found:
        raise Failure(text("access.none"), EX_REFUSED)
    return found


@click.command("list", help=text("help.access_list"))
@click.option("--who", metavar="WHO", help=text("help.opt_access_who"))
@click.option("--what", metavar="WHAT", help=text("help.opt_access_what"))
@click.option("--id", "id_", metavar="ID", help=text("help.opt_access_id"))
@click.option(
    "--since", type=click.DateTime(["%Y-%m-%d", "%Y-%m-%dT%H:%M"]), metavar="DAY",
    help=text("help.opt_access_since"),
)  # fmt: skip
@click.option("--limit", type=click.IntRange(min=1), default=LIMIT, help=text("help.opt_limit"))
@_folder
@common
@machine
def list_accesses(
    path: Path | None,
    as_json: bool,
    given: tuple[Path, ...],
    since: Any,
    limit: int,
    **wanted: str | None,
) -> None:
    """Print the newest accesses, in order of time."""
    from_ms = 0 if since is None else int(since.timestamp() * 1000)
    found = [
        line.access
        for folder, name in _journals(path, given)
        for line in read(folder, name)
        if line.access.at >= from_ms and _is_wanted(line, **wanted)
    ]
    found.sort(key=lambda one: (one.at, one.by, one.n))
    shown = found[-limit:]
    if as_json:
        echo_json([msgspec.to_builtins(one) for one in shown])
    elif shown:
        _print(shown)
    if len(found) > len(shown):
        click.echo(text("access.more", count=len(found) - len(shown)), err=True)
    if not found:
        raise Failure(text("access.nothing"), EX_REFUSED)


def _is_wanted(line: Line, who: str | None, what: str | None, id_: str | None) -> bool:
    one = line.access
    if what is None and id_ is None and who is None:
        return not one.what.startswith("access.")  # the journal's own lines
    return (
        (who is None or who in one.who.split("/") or who == one.who)
        and (what is None or what == one.what)
        and (id_ is None or id_ in one.ids)
    )


def _print(shown: list[Access]) -> None:
    rows = [
        [local_time(one.at)[:19].replace("T", " "), one.by, visible(one.who), visible(one.what)]
        for one in shown
    ]
    below = [visible(" ".join([*one.ids, f"({one.why})" if one.why else ""])) for one in shown]
    print_table([text(f"access.{column}") for column in ("at", "by", "who", "what")], rows, below)


@click.command(help=text("help.access_verify"))
@click.option("--seal", metavar="NAME:N:SEAL", help=text("help.opt_access_seal"))
@_folder
@common
@machine
def verify(path: Path | None, as_json: bool, given: tuple[Path, ...], seal: str | None) -> None:
    """Follow the seals; exit status 65 when something is missing or changed."""
    told = _told(seal)
    rows: list[dict[str, Any]] = []
    for folder, name in _journals(path, given):
        rows.append(_judge(folder, name, told.get(name)))
    missing = told.keys() - {row["name"] for row in rows}
    rows += [{"name": name, "folder": "-", "lines": 0, "faults": ["cut"]} for name in missing]
    if as_json:
        echo_json(rows)
    else:
        for row in rows:
            what = "access.row_bad" if row["faults"] else "access.row_good"
            faults = "; ".join(text(f"access.fault_{one.split()[0]}", n=one.split()[-1])
                               for one in row["faults"])  # fmt: skip
            click.echo(text(what, **row | {"faults": faults}))
    if any(row["faults"] for row in rows):
        raise Failure(text("access.wrong"), EX_DATAERR)


def _told(seal: str | None) -> dict[str, tuple[int, str]]:
    if seal is None:
        return {}
    name, _, rest = seal.partition(":")
    number, _, digits = rest.partition(":")
    if not number.isdecimal() or not digits:
        raise click.BadParameter("NAME:N:SEAL", param_hint="--seal")
    return {name: (int(number), digits)}


def _judge(folder: Path, name: str, told: tuple[int, str] | None) -> dict[str, Any]:
    """Return what is found of one journal: each fault is a word and the number of a line."""
    lines, faults, head, met = 0, list[str](), head_of(folder, name), False
    first = last = 0
    for line in read(folder, name):
        n = line.access.n
        first, last, lines = first or n, n, lines + 1
        if line.fault:
            faults.append(f"{line.fault} {n}")
        if n == head.n and line.seal != head.seal:
            faults.append(f"changed {n}")
        if told is not None and n == told[0]:
            met = True
            if not line.seal.startswith(told[1]):
                faults.append(f"changed {n}")
    if last < head.n:
        faults.append(f"cut {head.n}")
    if told is not None and not met and not (first and told[0] < first):
        faults.append(f"cut {told[0]}")
    row = {"name": name, "folder": str(folder), "lines": lines, "first": first, "last": last}
    return row | {"faults": list(dict.fromkeys(faults))}
