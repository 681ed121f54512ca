"""The body of an HTTP request, read up to a limit, and what is wrong with it, told safely.

A refusal names the field's path and the rule. It never repeats the value: that may be a name, a
phone, an address.
"""

import json
import re
from collections.abc import Iterable
from typing import Any, Final, TypeVar

import msgspec
from starlette.requests import Request

from connectors.runtime.oddities import (
    Odd,
    fit_path,
    may_be_odd,
    mended,
    odd_times,
    oddities,
)
from proto.nesting import check_depth, decode_json

_AT: Final = re.compile(r" - at `(?:key in )?\$\.?(.*)`\Z")
_MISSING: Final = re.compile(r"^Object missing required field `([^`]*)`\Z")
_VALUE: Final = re.compile(r"^Invalid (enum )?value.*\Z")
_BOM: Final = b"\xef\xbb\xbf"
TOO_DEEP: Final = "is nested too deeply"
NOT_JSON: Final = "is not JSON"
# Unlike msgspec it takes controls within texts, and halves of characters.
_lenient: Final = json.JSONDecoder(strict=False, parse_constant=int)  # int("NaN") is refused

Shape = TypeVar("Shape")


class BadInput(Exception):
    """The partner's input breaks a rule of the contract; `path` is "" for the body as a whole."""

    def __init__(self, path: str, rule: str, status: int = 400) -> None:
        path = fit_path(path)  # a name in it may be the partner's own
        super().__init__(f"{path}: {rule}")
        self.path = path
        self.rule = rule
        self.status = status

    @property
    def sentence(self) -> str:
        """What the partner reads."""
        return f"{self.path or 'body'}: {self.rule}"


async def read_body(request: Request, bytes_max: int) -> bytes:
    """Return the body. Raises BadInput: 413 when it is longer than `bytes_max`, 415 when it is
    packed: what a few bytes of that become nobody knows before."""
    if request.headers.get("content-encoding", "identity").lower() != "identity":
        raise BadInput("Content-Encoding", "is not taken: send the body as it is", 415)
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        size += len(part)
        if size > bytes_max:
            raise BadInput("", f"is longer than {bytes_max} bytes", 413)
        parts.append(part)
    return b"".join(parts)


def without_mark(body: bytes) -> bytes:
    """Return JSON without the byte order mark that some write before it; it says nothing."""
    return body.removeprefix(_BOM)


def decode(body: bytes, shape: type[Shape], *, whole: bool = True) -> Shape:
    """Return `body` as `shape`. Raises BadInput; also for a character or a time that cannot be, but
    not when the texts of `body` are looked at elsewhere (`whole` false)."""
    body = without_mark(body)
    try:
        value = decode_json(body, shape)
    except msgspec.ValidationError as error:
        raise bad_input(str(error)) from None
    except msgspec.DecodeError:
        raise BadInput("", NOT_JSON) from None
    except UnicodeDecodeError:
        raise BadInput("", "is not UTF-8") from None
    except RecursionError:
        raise BadInput("", TOO_DEEP) from None
    if whole:
        refuse_odd(body)
        if isinstance(value, msgspec.Struct):
            refuse(odd_times(value))
    return value


def refuse_odd(body: bytes, path: str = "") -> None:
    """Raise BadInput for a text of `body`, JSON, that cannot be; also in what the shape it was read
    as does not know: that is skipped, so what is no text may stand there, and is met only here."""
    try:
        body.decode()
        if may_be_odd(body):
            refuse(oddities(decode_json(body), path))
    except UnicodeDecodeError:
        raise BadInput(path, "is not UTF-8") from None
    except msgspec.DecodeError:
        raise BadInput(path, NOT_JSON) from None


def decode_each(body: bytes, shape: type[Shape], field: str) -> list[bytes]:
    """Return the items of the list `field` of `shape`, each as JSON of its own: what cannot be in
    one of them harms no other. `shape` has them as msgspec.Raw. Raises BadInput."""
    body = without_mark(body)
    try:
        return [bytes(item) for item in getattr(decode(body, shape, whole=False), field)]
    except BadInput as bad:
        if bad.rule != NOT_JSON:
            raise
        raw = _lenient_of(body.decode(errors="surrogateescape"), bad)
    items = raw.get(field)
    if not isinstance(items, list):
        raise BadInput(field, "is required")
    decode(json.dumps(raw | {field: [0] * len(items)}).encode(), shape, whole=False)
    return [json.dumps(item).encode() for item in items]


def decode_urgent(body: bytes) -> tuple[dict[str, Any], list[Odd]]:
    """Return the JSON object of an emergency, and the fields that something was taken out of.
    Raises BadInput."""
    body = without_mark(body)
    try:
        raw: Any = decode(body, dict[str, Any], whole=False)
        if not may_be_odd(body):
            return raw, []
    except BadInput as bad:
        raw = _mend(body, bad)
    try:
        return mended(raw), list(oddities(raw))
    except RecursionError:
        raise BadInput("", TOO_DEEP) from None


def _mend(body: bytes, bad: BadInput) -> dict[str, Any]:
    """Return what JSON says but for one of its own rules: no controls, no halves of characters
    within a text. Raises `bad` for anything else."""
    try:
        said = body.decode()
    except UnicodeDecodeError:
        raise bad from None
    return _lenient_of(said, bad)


def _lenient_of(said: str, bad: BadInput) -> dict[str, Any]:
    try:
        check_depth(said)
        raw = _lenient.decode(said)
    except (ValueError, RecursionError):
        raise bad from None
    if not isinstance(raw, dict):
        raise bad
    return raw


def convert(value: Any, shape: type[Shape]) -> Shape:
    """Return decoded JSON as `shape`. Raises BadInput."""
    try:
        typed = msgspec.convert(value, shape)
    except msgspec.ValidationError as error:
        raise bad_input(str(error)) from None
    refuse(odd_times(typed))
    return typed


def refuse(odd: Iterable[Odd]) -> None:
    """Raise BadInput for the first of what is odd."""
    try:
        for path, rule in odd:
            raise BadInput(path, rule)
    except RecursionError:
        raise BadInput("", TOO_DEEP) from None


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
