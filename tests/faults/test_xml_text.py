"""The text of XML values: what XML Schema allows is read, and what it does not is not."""

from datetime import UTC, date, datetime
from typing import Any

import msgspec
import pytest
from lxml import etree

from connectors.runtime.door.body import BadInput
from connectors.runtime.markup import xml


class Inner(msgspec.Struct, omit_defaults=True):
    """A part of a list."""

    name: str | None = None


class Whole(msgspec.Struct, omit_defaults=True):
    """One field of each kind."""

    day: date | None = None
    at: datetime | None = None
    count: int | None = None
    share: float | None = None
    well: bool | None = None
    parts: list[Inner] = []
    words: list[str] = []


def read(inner: str) -> dict[str, Any]:
    told = xml.read(etree.fromstring(f"<a>{inner}</a>"), Whole)
    return {name: value for name, value in msgspec.structs.asdict(told).items() if value}


@pytest.mark.fault("C8")
@pytest.mark.parametrize(
    ("told", "meant"),
    [
        ("<day>2020-01-01+03:00</day>", {"day": date(2020, 1, 1)}),
        ("<day>2020-01-01Z</day>", {"day": date(2020, 1, 1)}),
        ("<day>\n 2020-01-01-14:00\t</day>", {"day": date(2020, 1, 1)}),
        ("<count>+2</count>", {"count": 2}),
        ("<count>02</count>", {"count": 2}),
        ("<count>-007</count>", {"count": -7}),
        ("<share>+1.50</share>", {"share": 1.5}),
        ("<share>.5</share>", {"share": 0.5}),
        ("<share>1.</share>", {"share": 1.0}),
        ("<share>1e-1</share>", {"share": 0.1}),
        ("<well>1</well>", {"well": True}),
        ("<at>2020-01-01T10:00:00Z</at>", {"at": datetime(2020, 1, 1, 10, tzinfo=UTC)}),
        ("<at>2020-01-01T10:00:00.123456789</at>", {"at": datetime(2020, 1, 1, 10, 0, 0, 123456)}),
    ],
)
def test_what_xml_schema_allows_is_read(told: str, meant: dict[str, Any]) -> None:
    """Dates with a zone and numbers with a plus or zeros before them were refused."""
    assert read(told) == meant


@pytest.mark.fault("C8")
@pytest.mark.parametrize(
    "told",
    [
        "<at>20240102</at>",
        "<at>1700000000.5</at>",
        "<at>2020-01-01</at>",
        "<day>20240102</day>",
        "<day>2020-02-30</day>",
        "<day>٢٠٢٠-01-01</day>",
        "<count>٢</count>",
        "<count>1_000</count>",
        "<count>0x10</count>",
        "<count>2.0</count>",
        f"<count>{'9' * 5000}</count>",
        "<share>NaN</share>",
        "<share>1e999</share>",
        "<share>INF</share>",
        "<share>infinity</share>",
        "<well>TRUE?</well>",
    ],
)
def test_what_it_does_not_allow_is_refused(told: str) -> None:
    """20240102 was taken for a time in 1970."""
    with pytest.raises(BadInput):
        read(told)


@pytest.mark.fault("C6")
def test_an_empty_list_is_written_as_an_empty_element() -> None:
    """PHP's SoapServer writes `<personsData/>` for an empty list; it is nobody, not somebody of
    whom nothing is known. An empty word stays a word."""
    assert read("<parts/>") == {}
    assert read("<parts/><parts><name>a</name></parts>") == {"parts": [Inner("a")]}
    assert read("<words/><words>b</words>") == {"words": ["", "b"]}
