"""Mutations that know what they mutate: JSON, MessagePack, XML, lines, or plain bytes.

`mutated(kind, samples, random)` returns one input. All chance comes from `random`.
"""

import re
from collections.abc import Callable, Sequence
from random import Random
from typing import Any, Final, Literal

import msgspec

Kind = Literal["json", "msgpack", "xml", "lines", "bytes"]
STEPS: Final = (1, 1, 1, 1, 2, 3, 6)
DEPTHS: Final = (3, 30, 70, 300)
BYTES_MAX: Final = 200_000
ODD_TEXT: Final = (
    "", " ", "\x00", "\x01", "\x1b[31m", "a\nb", "a\r\nb: c", "\u2028", "\ufeff", "\u202e",
    "\ud7ff\ue000", "\U0001f691", "и\u0306", "Ә", "İ", "ﬀ", "٣", "²", "é" * 129, "x" * 300,
    "я" * 5000, "..", "../..", "/", "%00", "%2e%2e", "-", "0", "-0", "+1", "1e400", "NaN", "null",
    "true", "2026-02-30", "0000-00-00", "9999-12-31T23:59:59.999999-23:59", "0001-01-01T00:00:00Z",
    "2026-11-24T10:00:00", "24:00", "2026-11-24T10:00:00+99:99", "20261124", "1", "999999999999",
    "' or 1=1", "<a>", "&amp;", "]]>", "{}", "[]", "\"", "\\", "112-1", "01234567890",
)  # fmt: skip
ODD_TIMES: Final = (
    "9999-12-31T23:59:59.999999-23:59", "0001-01-01T00:00:00+23:59", "0001-01-01T00:00:00Z",
    "9999-12-31", "0001-01-01", "2026-02-29", "2026-11-24T24:00:00Z", "2026-11-24T23:59:60Z",
    "2026-11-24", "2026-11-24T10:00", "2026-11-24 10:00:00+03:00", "2026-11-24T10:00:00",
    "2026-11-24T10:00:00.123456789Z", "2026-W48-2", "2026-328", "20261124T100000Z", "1796069053",
    "1850-01-01", "2099-01-01", "1969-12-31T23:59:59Z", "2026-11-24T10:00:00+14:00",
    "2026-11-24T10:00:00-12:00", "2026-11-24T10:00:00+00:00:30", "2026-11-24Z",
    "2026-11-24+03:00", " 2026-11-24", "2026-11-24\n", "٢٠٢٦-11-24", "-2026-11-24",
)  # fmt: skip
ODD_DIGITS: Final = (
    "0", "00000000000", "99999999999", "1" * 40, "-1", "+79990000000", "٣٣٣", "²", "1 2", "1-2",
    "123-456-789 00", "0x10", "1e5", "1_000", " 12 ", "12\n", "12a",
)  # fmt: skip
ODD_NUMBERS: Final = (
    0, -1, 1, 2**31, 2**53 + 1, 2**63 - 1, 2**63, 2**64 - 1, -(2**63), 0.1, -0.0, 1e308, 5e-324,
    1e15, 253402300800, 253402300800000, 10**18,
)  # fmt: skip
NOISE: Final = (
    *(one.encode("utf-8", "surrogatepass") for one in ODD_TEXT if len(one) < 300),
    b"\xff\xfe", b"\xc0\x80", b"\xed\xa0\x80", b"\x80", b"\xef\xbb\xbf", b"\x1f\x8b\x08", b"\r\n",
)  # fmt: skip
_TIME: Final = re.compile(r"\d{4}-\d\d-\d\d")
_TIME_BYTES: Final = re.compile(rb"\d{4}-\d\d-\d\d")
_NUMBER: Final = re.compile(rb"\d+")
_LEAF: Final = re.compile(rb"<([\w:.-]+)((?:\s[^<>]*)?)>([^<>]*)</\1>")
_ELEMENT: Final = re.compile(rb"<([\w:.-]+)(?:\s[^<>]*)?>")
_ATTRIBUTE: Final = re.compile(rb'([\w:.-]+)="([^"<>]*)"')
_SIGN: Final = re.compile(rb": ?| ?= ?")
_BIG: Final = tuple(str(one).encode() for one in ODD_NUMBERS)


def mutated(kind: Kind, samples: Sequence[bytes], random: Random) -> bytes:
    """Return one of the samples, changed."""
    data = random.choice(samples)
    for _ in range(random.choice(STEPS)):
        # A share of each kind is mutated without any knowledge of it.
        change = _bytes if random.random() < 0.15 else CHANGES[kind]
        data = change(data, random)
    if random.random() < 0.02:
        other = random.choice(samples)
        data = data[: random.randrange(len(data) + 1)] + other[random.randrange(len(other) + 1) :]
    return data[:BYTES_MAX]


# -- bytes --------------------------------------------------------------------------------------


def _bytes(data: bytes, random: Random) -> bytes:
    if not data:
        return random.choice(NOISE)
    at = random.randrange(len(data))
    size = min(len(data) - at, 1 + int(random.expovariate(0.1)))
    match random.randrange(8):
        case 0:
            return data[:at] + bytes([data[at] ^ 1 << random.randrange(8)]) + data[at + 1 :]
        case 1:
            return data[:at] + bytes([random.randrange(256)]) + data[at + 1 :]
        case 2:
            return data[:at] + data[at + size :]
        case 3:
            return data[:at] + data[at : at + size] * random.choice((2, 3, 50)) + data[at + size :]
        case 4:
            return data[:at] + random.choice(NOISE) + data[at:]
        case 5:
            return data[:at]
        case 6:
            return _number(data, random)
        case _:
            there = random.randrange(len(data))
            return data[:at] + data[there : there + size] + data[at + size :]


def _number(data: bytes, random: Random) -> bytes:
    found = [one.span() for one in _NUMBER.finditer(data[:20_000])]
    if not found:
        return data
    begin, end = random.choice(found)
    return data[:begin] + random.choice(_BIG) + data[end:]


# -- trees --------------------------------------------------------------------------------------


def _read(kind: str, data: bytes) -> Any:
    if len(data) < 20_000:
        try:
            return msgspec.json.decode(data) if kind == "json" else msgspec.msgpack.decode(data)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError, ValueError):
            pass
    return None


def _value(random: Random) -> Any:
    match random.randrange(8):
        case 0 | 1 | 2:
            return random.choice(ODD_TEXT)
        case 3 | 4:
            return random.choice(ODD_NUMBERS)
        case 5:
            return random.choice((None, True, False, [], {}, [None], [[]], {"": None}))
        case 6:
            deep: Any = random.choice(ODD_TEXT)
            for _ in range(random.choice(DEPTHS)):
                deep = [deep] if random.random() < 0.5 else {"a": deep}
            return deep
        case _:
            return [random.choice(ODD_TEXT)] * random.choice((1, 2, 100, 3000))


def _places(tree: Any) -> list[tuple[Any, Any]]:
    """Return every (container, key) of a tree."""
    found: list[tuple[Any, Any]] = []
    level = [tree]
    while level:
        following = []
        for one in level:
            pairs = one.items() if isinstance(one, dict) else enumerate(one)
            for key, value in pairs:
                found.append((one, key))
                if isinstance(value, dict | list) and len(found) < 5000:
                    following.append(value)
        level = following
    return found


def _changed(tree: Any, random: Random) -> Any:
    places = _places(tree) if isinstance(tree, dict | list) else []
    if not places or random.random() < 0.03:
        return _value(random)
    holder, key = random.choice(places)
    if isinstance(holder[key], dict | list):  # more often a leaf than what holds leaves
        holder, key = random.choice(places)
    match random.randrange(10):
        case 0 | 1 | 2:
            holder[key] = _value(random)
        case 3:
            del holder[key]
        case 4:
            other, there = random.choice(places)
            holder[key] = _copied(other[there]) if _has(other, there) else None
        case 5:
            if isinstance(holder, list):
                holder.insert(key, _copied(holder[key]))
            else:
                holder[random.choice(ODD_TEXT)] = holder[key]
        case _:
            holder[key] = _twisted(holder[key], random)
    return tree


def _has(holder: Any, key: Any) -> bool:
    return key in holder if isinstance(holder, dict) else key < len(holder)


def _copied(value: Any) -> Any:
    return msgspec.msgpack.decode(msgspec.msgpack.encode(value), strict=False)


def _twisted(value: Any, random: Random) -> Any:
    """Return something close to a value: that is what finds edges."""
    if isinstance(value, bool) or value is None:
        return random.choice((0, 1, "true", None, not value))
    if isinstance(value, int | float):
        return random.choice((-value, value + 1, str(value), value * 1000, [value], float(value)))
    if isinstance(value, str):
        if _TIME.match(value) and random.random() < 0.8:
            return random.choice(ODD_TIMES)
        if value.isdigit() and random.random() < 0.5:
            return random.choice(ODD_DIGITS)
        at = random.randrange(len(value) + 1)
        return random.choice((
            value[:at] + random.choice(ODD_TEXT) + value[at:], value[:at], value.swapcase(),
            value + " ", value * 3, [value], value[at:],
        ))  # fmt: skip
    return [value]


def _json(data: bytes, random: Random) -> bytes:
    tree = _read("json", data)
    if tree is None:
        return _bytes(data, random)
    try:
        return msgspec.json.encode(_changed(tree, random))
    except (OverflowError, ValueError, TypeError, RecursionError):
        return data


def _msgpack(data: bytes, random: Random) -> bytes:
    tree = _read("msgpack", data)
    if tree is None:
        return _bytes(data, random)
    try:
        return msgspec.msgpack.encode(_changed(tree, random))
    except (OverflowError, ValueError, TypeError, RecursionError):
        return data


# -- XML ----------------------------------------------------------------------------------------


def _xml(data: bytes, random: Random) -> bytes:
    pick = random.randrange(9)
    if pick < 5 and len(data) < 50_000:
        leaves = list(_LEAF.finditer(data))
        if leaves:
            return _leaf(data, random.choice(leaves), random)
    if pick == 5:
        attributes = list(_ATTRIBUTE.finditer(data[:50_000]))
        if attributes:
            begin, end = random.choice(attributes).span(2)
            return data[:begin] + random.choice(NOISE) + data[end:]
    opens = list(_ELEMENT.finditer(data[:50_000]))
    if not opens:
        return _bytes(data, random)
    one = random.choice(opens)
    name = random.choice(opens)[1]
    match pick:
        case 6:  # another name, or namespace
            begin, end = one.span(1)
            changed = random.choice((name, b"x", b"soap:" + name, name.rpartition(b":")[2]))
            return data.replace(one[1], changed) if random.random() < 0.5 else (
                data[:begin] + changed + data[end:]
            )  # fmt: skip
        case 7:  # something in between
            at = one.end()
            between = random.choice((
                b"<!-- -->", b"<?x y?>", b"<![CDATA[<]]>", b"&#x1F;", b"&lt;", b"&#65;", b"<x/>",
                b"<%s>1</%s>" % (name, name), b"<a>" * 80 + b"</a>" * 80, b"&undef;",
            ))  # fmt: skip
            return data[:at] + between + data[at:]
        case _:  # before everything
            return random.choice((
                b"\n", b"\xef\xbb\xbf", b"<!DOCTYPE a>", b"<?xml version='1.1'?>",
                b"<?xml version='1.0' encoding='windows-1251'?>",
                b"<?xml version='1.0' encoding='utf-16'?>", b"<?xml version='1.0' encoding='x'?>",
            )) + data  # fmt: skip


def _leaf(data: bytes, leaf: "re.Match[bytes]", random: Random) -> bytes:
    begin, end = leaf.span()
    match random.randrange(6):
        case 0:
            return data[:begin] + data[end:]
        case 1:
            return data[:end] + leaf[0] * random.choice((1, 2, 50)) + data[end:]
        case 2:
            nil = (
                b'<%s xmlns:i="http://www.w3.org/2001/XMLSchema-instance" i:nil="true"/>' % leaf[1]
            )
            return data[:begin] + random.choice((nil, b"<%s/>" % leaf[1])) + data[end:]
        case _:
            at, to = leaf.span(3)
            value = random.choice((*NOISE, *_BIG)).replace(b"<", b"&lt;")
            if _TIME_BYTES.match(leaf[3]) and random.random() < 0.6:
                value = random.choice(ODD_TIMES).encode()
                return data[:at] + value + data[to:]
            return data[:at] + random.choice((value, leaf[3] + value, b" " + leaf[3])) + data[to:]


# -- lines --------------------------------------------------------------------------------------


def _lines(data: bytes, random: Random) -> bytes:
    lines = data.splitlines(keepends=True)
    if not lines:
        return _bytes(data, random)
    at = random.randrange(len(lines))
    match random.randrange(6):
        case 0:
            del lines[at]
        case 1:
            lines.insert(at, lines[random.randrange(len(lines))])
        case 2:
            sign = _SIGN.search(lines[at])
            key = lines[at][: sign.end()] if sign else b""
            value = random.choice((*NOISE, *_BIG, b'"', b'"x"', b"[1, 2]", b"{ a = 1 }", b"true"))
            lines[at] = key + value + (b"\r\n" if lines[at].endswith(b"\r\n") else b"\n")
        case 3:
            lines[at] = lines[at].rstrip(b"\r\n") + random.choice((b"", b"\n", b"\r", b"\r\n\r\n"))
        case 4:
            lines[at] = random.choice(NOISE) + lines[at]
        case _:
            other = random.randrange(len(lines))
            lines[at], lines[other] = lines[other], lines[at]
    return b"".join(lines)


CHANGES: Final[dict[str, Callable[[bytes, Random], bytes]]] = {
    "json": _json,
    "msgpack": _msgpack,
    "xml": _xml,
    "lines": _lines,
    "bytes": _bytes,
}
