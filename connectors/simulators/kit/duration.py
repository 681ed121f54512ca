"""Lengths of time as people type them: 30, 30s, 10m, 2h, 500ms."""

import re
from typing import Final

import click

from proto.wording import text

UNITS_S: Final = {"ms": 0.001, "s": 1.0, "": 1.0, "m": 60.0, "h": 3600.0}
_SHAPE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)(ms|s|m|h|)")


def seconds(typed: str) -> float:
    """Return a length of time in seconds; a number alone is seconds. Raises ValueError."""
    found = _SHAPE.fullmatch(typed.strip().lower())
    if found is None:
        raise ValueError(typed)
    return float(found[1]) * UNITS_S[found[2]]


class Duration(click.ParamType["float"]):
    """An option that is a length of time, in seconds."""

    name = "time"

    def convert(
        self, value: object, param: click.Parameter | None, ctx: click.Context | None
    ) -> float:
        """Return seconds; what cannot be read ends the command with a sentence."""
        if isinstance(value, int | float):
            return float(value)
        try:
            return seconds(str(value))
        except ValueError:
            self.fail(text("connector.no_duration", value=value), param, ctx)


DURATION: Final = Duration()
