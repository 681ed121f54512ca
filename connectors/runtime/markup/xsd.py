"""The text of simple values as XML Schema allows it, and as msgspec reads it.

XML Schema knows dates with a zone, numbers with a plus and with zeros before them; msgspec knows a
bare number as a time since 1970, which nobody has ever written in XML.
"""

import math
import re
from typing import Final

from msgspec import inspect

DIGITS_MAX: Final = 40
NONE: Final = "-"
_INTEGER: Final = re.compile(r"([+-]?)0*([0-9]+)")
_NUMBER: Final = re.compile(r"[+-]?(?:[0-9]+(?:\.[0-9]*)?|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_ZONE: Final = r"(?:Z|[+-](?:0[0-9]|1[0-4]):[0-5][0-9])?"
_DATE: Final = re.compile(rf"([0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}){_ZONE}")
_TIME: Final = re.compile(
    rf"([0-9]{{4}}-[0-9]{{2}}-[0-9]{{2}}[Tt ][0-9]{{2}}:[0-9]{{2}}:[0-9]{{2}})(\.[0-9]+)?({_ZONE})"
)
_CLOCK: Final = re.compile(rf"([0-9]{{2}}:[0-9]{{2}}:[0-9]{{2}})(\.[0-9]+)?({_ZONE})")


def lexical(told: str, kind: inspect.Type) -> str:
    """Return the text of a value as msgspec reads it; for one that is no value of its kind, what
    msgspec does not read either."""
    match kind:
        case inspect.IntType():
            found = _INTEGER.fullmatch(told)
            if found is None or len(found[2]) > DIGITS_MAX:
                return NONE
            return found[2] if found[1] != "-" else f"-{found[2]}"
        case inspect.FloatType():
            found = _NUMBER.fullmatch(told)
            number = math.inf if found is None else float(told)
            return repr(number) if math.isfinite(number) else NONE
        case inspect.DateType():
            found = _DATE.fullmatch(told)
            if found is None:
                return NONE
            return found[1]
        case inspect.DateTimeType() | inspect.TimeType():
            form = _TIME if isinstance(kind, inspect.DateTimeType) else _CLOCK
            found = form.fullmatch(told)
            if found is None:
                return NONE
            return f"{found[1]}{(found[2] or '')[:7]}{found[3]}"
        case inspect.BoolType():
            if told not in ("true", "false", "1", "0"):
                return NONE
    return told
