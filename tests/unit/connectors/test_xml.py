"""XML from outside: limits, and structs as elements and back."""

import string

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st
from lxml import etree

from connectors.runtime.door.body import BadInput
from connectors.runtime.markup import xml

NS = "urn:example:contract"
# What XML 1.0 can hold; a carriage return is read as a line feed (XML 1.0, 2.11).
TEXT = st.text(st.characters(min_codepoint=32, max_codepoint=0xD7FF), min_size=1, max_size=20)


class Inner(msgspec.Struct, frozen=True, rename={"name": "Name"}):
    name: str
    count: int | None = None
    yes: bool | None = None


class Outer(msgspec.Struct, frozen=True, rename="pascal"):
    title: str
    inner: Inner
    more: list[Inner] = []
    notes: list[str] = []
    level: float | None = None


INNER = st.builds(Inner, TEXT, st.none() | st.integers(-9, 9), st.none() | st.booleans())
OUTER = st.builds(
    Outer,
    TEXT,
    INNER,
    st.lists(INNER, max_size=3),
    st.lists(TEXT, max_size=3),
    st.none() | st.floats(allow_nan=False, allow_infinity=False),
)


@given(OUTER, st.sampled_from([NS, None]))
def test_what_is_written_is_read_back(value: Outer, namespace: str | None) -> None:
    root = etree.Element("Request")
    xml.write(root, value, namespace)
    assert xml.read(xml.parse(xml.render(root)), Outer) == value


@given(st.binary(max_size=200) | st.text(string.printable + "<&>;![]").map(str.encode))
def test_whatever_comes_is_read_or_refused(body: bytes) -> None:
    try:
        outcome = xml.local(xml.parse(body))
    except BadInput as bad:
        outcome = bad.rule
    assert outcome


@pytest.mark.parametrize(
    ("body", "rule"),
    [
        (b"", "is not well-formed XML"),
        (b"<a>", "is not well-formed XML"),
        (b'<!DOCTYPE a SYSTEM "http://127.0.0.1:1/x"><a/>', "has a DOCTYPE, which is not allowed"),
        (
            b'<!DOCTYPE a [<!ENTITY x SYSTEM "file:///etc/passwd">]><a>&x;</a>',
            "has a DOCTYPE, which is not allowed",
        ),
        (b"<a>" * 65 + b"</a>" * 65, "is nested deeper than 64 elements"),
        (b"<a>" + b"<b/>" * 20_000 + b"</a>", "has more than 20000 elements"),
    ],
    ids=["empty", "half", "doctype", "entity", "deep", "many"],
)
def test_what_could_harm_is_refused(body: bytes, rule: str) -> None:
    with pytest.raises(BadInput) as refused:
        xml.parse(body)
    assert refused.value.rule == rule


def test_entities_that_grow_are_refused() -> None:
    laughs = b'<!DOCTYPE a [<!ENTITY a "' + b"x" * 1000 + b'">'
    laughs += b"".join(b'<!ENTITY %c "%s">' % (98 + n, b"&%c;" % (97 + n) * 50) for n in range(8))
    with pytest.raises(BadInput):
        xml.parse(laughs + b"]><a>&i;</a>")


@pytest.mark.parametrize(
    ("body", "path", "rule"),
    [
        (b"<r><Inner><Name>n</Name></Inner></r>", "Title", "is required"),
        (b"<r><Title>t</Title><Inner/></r>", "Inner.Name", "is required"),
        (
            b"<r><Title>t</Title><Title>u</Title><Inner><Name>n</Name></Inner></r>",
            "Title",
            "is given more than once",
        ),
        (
            b"<r><Title>t</Title><Inner><Name>n</Name><count>secret</count></Inner></r>",
            "Inner.count",
            "Expected `int | null`, got `str`",
        ),
    ],
    ids=["missing", "missing inside", "twice", "not a number"],
)
def test_what_is_wrong_is_named_by_its_path(body: bytes, path: str, rule: str) -> None:
    with pytest.raises(BadInput) as refused:
        xml.read(xml.parse(body), Outer)
    assert (refused.value.path, refused.value.rule) == (path, rule)


def test_absent_is_what_is_empty_or_nil_where_no_text_is_expected() -> None:
    body = (
        b'<q:r xmlns:q="urn:x" xmlns:i="http://www.w3.org/2001/XMLSchema-instance">'
        b"<q:Title/><q:Inner><q:Name>n</q:Name><q:count> </q:count><q:other>1</q:other></q:Inner>"
        b'<q:Level i:nil="true"/></q:r>'
    )
    assert xml.read(xml.parse(body), Outer) == Outer("", Inner("n"))


def test_a_character_that_xml_cannot_hold_is_named() -> None:
    with pytest.raises(BadInput) as refused:
        xml.write(etree.Element("r"), Outer("t", Inner("a\x00b")), NS)
    assert refused.value.path == "Inner.Name"
