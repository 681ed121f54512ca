"""The body of an HTTP request, read up to a limit, and what is wrong with it, told safely.

A refusal names the field's path and the rule. It never repeats the value: that may be a name, a
phone, an address.
"""

import re
from typing import Any, Final, TypeVar

import msgspec
from starlette.requests import Request

_AT: Final = re.compile(r" - at `(?:key in )?\$\.?(.*)`$")
_MISSING: Final = re.compile(r"^Object missing required field `([^`]*)`$")
_VALUE: Final = re.compile(r"^Invalid (enum )?value.*$")

Shape = TypeVar("Shape")


class BadInput(Exception):
    """The partner's input breaks a rule of the contract; `path` is "" for the body as a whole."""

    def __init__(self, path: str, rule: str, status: int = 400) -> None:
        super().__init__(f"{path}: {rule}")
        self.path = path
        self.rule = rule
        self.status = status

    @property
    def sentence(self) -> str:
        """What the partner reads."""
        return f"{self.path or 'body'}: {self.rule}"


async def read_body(request: Request, bytes_max: int) -> bytes:
    """Return the body. Raises BadInput (413) when it is longer than `bytes_max`."""
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > bytes_max:
            raise BadInput("", f"is longer than {bytes_max} bytes", 413)
        parts.append(part)
    return b"".join(parts)


def decode(body: bytes, shape: type[Shape]) -> Shape:
    """Return `body` as `shape`. Raises BadInput."""
    try:
        return msgspec.json.decode(body, type=shape)
    except msgspec.ValidationError as error:
        raise bad_input(str(error)) from None
    except msgspec.DecodeError:
        raise BadInput("", "is not JSON") from None
    except UnicodeDecodeError:
        raise BadInput("", "is not UTF-8") from None
    except RecursionError:
        raise BadInput("", "is nested too deeply") from None


def convert(value: Any, shape: type[Shape]) -> Shape:
    """Return decoded JSON as `shape`. Raises BadInput."""
    try:
        return msgspec.convert(value, shape)
    except msgspec.ValidationError as error:
        raise bad_input(str(error)) from None


def bad_input(problem: str) -> BadInput:
    """Return what msgspec said as a path and a rule, without the value it speaks of."""
    at = _AT.search(problem)
    path = at[1] if at else ""
    rule = _AT.sub("", problem)
    if missing := _MISSING.match(rule):
        return BadInput(f"{path}.{missing[1]}".lstrip("."), "is required")
    if _VALUE.match(rule):
        rule = "is not one of the values allowed"
    return BadInput(path, rule[:200])
