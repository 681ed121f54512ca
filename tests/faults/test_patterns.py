"""What a contract calls eleven digits is eleven digits, and nothing after them."""

from collections.abc import Callable
from importlib import import_module
from pkgutil import walk_packages
from typing import Annotated, Any

import msgspec
import pytest
from msgspec import inspect

import connectors
import proto
from connectors.partners.ats.ami import encode
from connectors.partners.sys112 import contract as sys112
from connectors.runtime import checks
from proto import catalogue
from proto.message import UNREADABLE
from proto.pattern import exactly

DIGITS = Annotated[str, msgspec.Meta(pattern=exactly(r"[0-9]{3}|[0-9]{5}"))]
OTHERS = "١٢٣"  # digits of another script


@pytest.mark.fault("C8")
@pytest.mark.parametrize("given", ["123\n", "12345\n", "\n123", "1234", "123 ", OTHERS, "x123", ""])
def test_all_of_a_text_is_meant(given: str) -> None:
    """`^...$` let a last line feed through, and the digits of other scripts."""
    assert msgspec.convert("123", DIGITS) == "123"
    with pytest.raises(msgspec.ValidationError):
        msgspec.convert(given, DIGITS)


@pytest.mark.fault("C8")
def test_no_field_of_any_struct_takes_a_last_line_feed() -> None:
    """Every pattern of every struct in proto and connectors, looked at as msgspec has it."""
    seen: set[str] = set()
    for package in (proto, connectors):
        for module in walk_packages(package.__path__, f"{package.__name__}."):
            for value in vars(import_module(module.name)).values():
                if isinstance(value, type) and issubclass(value, msgspec.Struct):
                    seen |= set(_patterns(inspect.type_info(value)))
    closed = {pattern for pattern in seen if "$" in pattern}
    assert len(closed) > 15
    assert [one for one in closed if not one.endswith(r"$(?!\n)")] == []
    assert [one for one in seen if r"\d" in one or r"\w" in one] == []


def _patterns(kind: Any) -> list[str]:
    found: list[str] = []
    for field in getattr(kind, "fields", ()):
        waiting = [field.type]
        while waiting:
            one = waiting.pop()
            if (pattern := getattr(one, "pattern", None)) is not None:
                found.append(pattern)
            waiting += getattr(one, "types", ())
            waiting += [part for name in ("type", "item_type", "value_type", "key_type")
                        if (part := getattr(one, name, None)) is not None]  # fmt: skip
    return found


@pytest.mark.fault("C8")
@pytest.mark.parametrize(
    ("type", "field", "value"),
    [
        ("telephony.dial.v1", "number", "+79995550199\n"),
        ("telephony.dial.v1", "operator", "101\n"),
        ("telephony.dial.v1", "number", OTHERS),
        ("worker.lookup.v1", "snils", "00000000000\n"),
    ],
)
def test_a_number_with_a_line_end_is_refused_by_its_schema(
    type: str, field: str, value: str
) -> None:
    """A dial number with a line feed reached the encoder of the exchange's protocol."""
    entry = catalogue.entry(type)
    with pytest.raises(UNREADABLE):
        entry.read(msgspec.json.encode(entry.example | {field: value}))


@pytest.mark.fault("C8")
@pytest.mark.parametrize("bad", ["1\n2", "1\r2", "1\x00", "1\x7f", "1\u2028"])
def test_no_word_ends_a_line_of_the_exchanges_protocol(bad: str) -> None:
    """Whatever schema is before it: neither value, nor name, nor number of an action."""
    assert encode("Ping", "1", {"A": "b"}) == b"Action: Ping\r\nActionID: 1\r\nA: b\r\n\r\n"
    makes: tuple[Callable[[], bytes], ...] = (
        lambda: encode("Originate", "1", {"Channel": bad}),
        lambda: encode("Originate", "1", {bad: "x"}),
        lambda: encode("Originate", bad),
        lambda: encode(bad, "1"),
    )
    for made in makes:
        with pytest.raises(ValueError, match="control character") as told:
            made()
        assert bad not in str(told.value)


@pytest.mark.fault("C8")
def test_checked_numbers_end_where_they_end() -> None:
    """Sibling: check digits were computed of a text that ended in a line feed."""
    assert checks.icd_problem("I20.0") is None
    assert checks.icd_problem("I20.0\n")
    assert checks.okato_problem("45000") is None
    assert checks.okato_problem("45000\n")
    assert checks.ogrn_problem("1027700132195") is None
    assert checks.ogrn_problem("102770013219\n")
    assert checks.snils_problem("1234567890\n")


@pytest.mark.fault("C8")
def test_coordinates_are_plain_digits() -> None:
    """Of the place of a call."""
    assert msgspec.convert("55.75", sys112.Latitude) == "55.75"
    for bad in ("55.75\n", "٥٥.75", "55."):
        with pytest.raises(msgspec.ValidationError):
            msgspec.convert(bad, sys112.Latitude)
