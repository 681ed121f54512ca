"""`smpbus config`: the settings in force, where each came from, and an old bus's taken over."""

import json
from pathlib import Path
from typing import Any, Final

import click
import msgspec

from proto.configuration.kinds import Unusable, installed, kind_of, other_kind, read_as
from proto.configuration.layers import Layers
from proto.configuration.place import ConfigError, hint
from proto.configuration.shipped import shipped_folder
from proto.exits import EX_DATAERR
from proto.wording import text
from router.commands.group import CommandGroup
from router.commands.option import Failure, common, echo_json, lang, machine
from router.config import LoadedSettings, load
from router.oldenvironment import FILE, Imported, import_environment, load_known
from router.settings import Settings

config: Final = CommandGroup(
    "config",
    help=text("help.config"),
    commands_at={
        "check": "router.commands.configuration:check",
        "show": "router.commands.configuration:show",
        "import-env": "router.commands.configuration:import_env",
    },
)


@click.command(help=text("help.config_check"))
@common
@machine
def check(path: Path | None, as_json: bool) -> None:
    """Check all three files and the tables of connectors; a fault is the one sentence of
    ConfigError."""
    loaded = load(path)
    names = sorted(loaded.connectors)
    doubts = {name: doubt for name in names if (doubt := _doubt(loaded.main, name))}
    warnings = [*loaded.warnings, *_missing_key(loaded.settings), *doubts.values()]
    for warning in warnings:
        click.echo(text("log.warning", sentence=warning), err=True)
    if as_json:
        return echo_json({
            "path": str(loaded.path), "digest": loaded.digest, "warnings": warnings,
            "connectors": [name for name in names if name not in doubts],
        })  # fmt: skip
    click.echo(text("cli.config_good", path=loaded.path, digest=loaded.digest))


def _doubt(main: Layers, name: str) -> str | None:
    """Check the table of a connector; return what has to be said when that was not possible.
    Raises ConfigError."""
    kind = kind_of(main, name)
    try:
        if read_as(main, name, kind) is None:
            known = installed()
            meant = hint(kind, known) or text("config.known_kinds", known=", ".join(known))
            return text("config.not_looked_at", name=name, kind=kind, meant=meant)
    except Unusable as error:
        return text("config.not_loadable", name=name, kind=kind, reason=error)
    except ConfigError as error:
        other = other_kind(main, name) if kind == name else None
        if other is None:
            raise
        return text("config.other_kind", problem=error.sentence, name=name, kind=other)
    return None


def _missing_key(settings: Settings) -> list[str]:
    """The router does not start without its key; who may not look there does not know."""
    key = settings.bus.key
    try:
        is_missing = settings.bus.curve and not key.exists()
    except OSError:
        return []
    return [text("config.warn_no_router_key", key=key)] if is_missing else []


@click.command(help=text("help.config_show"))
@common
@machine
@click.option("--origin", is_flag=True, help=text("help.opt_origin"))
def show(path: Path | None, as_json: bool, origin: bool) -> None:
    """Print every setting."""
    loaded = load(path)
    if as_json:
        return echo_json(_document(loaded))
    click.echo(text("cli.config_head", path=loaded.path, digest=loaded.digest), err=True)
    for key, value in flat(msgspec.to_builtins(loaded.settings, enc_hook=str)):
        click.echo(f"{key} = {msgspec.json.encode(value).decode()}")
        if origin:
            click.echo(f"    # {origin_of(loaded.origins, key)}")


@click.command("import-env", help=text("help.config_import_env"))
@click.argument("file", type=click.Path(path_type=Path))
@lang
def import_env(file: Path) -> None:
    """Print the tables of the connectors that an old environment file means."""
    try:
        lines = file.read_text(encoding="utf-8-sig").splitlines()
    except OSError as error:
        raise Failure(f"{file}: {error.strerror}", EX_DATAERR) from None
    except UnicodeDecodeError:
        raise Failure(text("import_env.no_text", file=file), EX_DATAERR) from None
    found = import_environment(lines, load_known(shipped_folder() / FILE))
    if found.problems:
        for problem in found.problems:
            click.echo(problem, err=True)
        count = len(found.problems)
        raise Failure(text("import_env.failed", file=file, count=count), EX_DATAERR)
    click.echo("\n".join(_tables(found)))
    for name in found.unknown:
        click.echo(text("import_env.unknown", name=name), err=True)


def _tables(found: Imported) -> list[str]:
    lines: list[str] = []
    table = ""
    for dotted, value in found.settings.items():
        place, _, key = dotted.rpartition(".")
        if place != table:
            lines += [""] * bool(lines) + [f"[{place}]"]
            table = place
        lines.append(f"{key} = {json.dumps(value)}")
    for connector, on in found.switches.items():
        state = "on" if on else "off"
        lines.append("# " + text(f"import_env.switch_{state}", connector=connector))
    return lines


def flat(table: dict[str, Any], prefix: str = "") -> list[tuple[str, object]]:
    """Return the leaves of a tree of tables by dotted key; routes count from 1."""
    found: list[tuple[str, object]] = []
    for key, value in table.items():
        if isinstance(value, dict) and value:
            found += flat(value, f"{prefix}{key}.")
        elif prefix == "" and isinstance(value, list):
            for number, item in enumerate(value, 1):
                found += flat(item, f"{key}[{number}].")
        else:
            found.append((f"{prefix}{key}", value))
    return found


def origin_of(origins: dict[str, str], key: str) -> str:
    """Return where a setting came from: its own place, or that of the table it is in."""
    key = key.replace("permissions.", "peers.", 1) if key.startswith("permissions.") else key
    while key and key not in origins:
        key = key.rpartition(".")[0]
    return origins.get(key, "built-in")


def _document(loaded: LoadedSettings) -> dict[str, object]:
    return {
        "path": str(loaded.path),
        "digest": loaded.digest,
        "settings": msgspec.to_builtins(loaded.settings, enc_hook=str),
        "origins": loaded.origins,
        "connectors": sorted(loaded.connectors),
    }
