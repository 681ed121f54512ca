"""Connectors and simulators by name: those of entry points, and "module:attribute"."""

from importlib import import_module
from importlib.metadata import entry_points
from typing import Any

import click

from proto.exits import EX_USAGE, StartError
from proto.wording import text


def plugin(group: str, name: str, missing: str) -> Any:
    """Return what `name` stands for in a group of entry points.

    Raises StartError, with the text `missing` when there is no such name.
    """
    if ":" in name:
        return _named(name)
    found = {point.name: point for point in entry_points(group=group)}
    if name not in found:
        known = ", ".join(sorted(found))
        raise StartError(text(missing, name=name, known=known), EX_USAGE)
    return found[name].load()


def _named(name: str) -> Any:
    """Return what "module:attribute" names: one that is not installed yet."""
    module, _, attribute = name.partition(":")
    try:
        return getattr(import_module(module), attribute)
    except (ImportError, AttributeError, ValueError) as error:
        raise StartError(
            text("connector.not_importable", name=name, reason=error), EX_USAGE
        ) from None


def end(error: StartError) -> None:
    """End a command that cannot start, with its sentence and exit status."""
    click.echo(text("log.error", sentence=error.sentence), err=True)
    raise SystemExit(error.exit_code)
