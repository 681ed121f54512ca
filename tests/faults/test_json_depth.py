"""JSON from outside, nested without end: refused by one limit of ours, the same on every Python."""

import contextlib
import json
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.runtime.door.body import BadInput, decode
from connectors.runtime.partner.http import HttpAnswer
from connectors.runtime.partner.partner import BadReply
from connectors.runtime.partner.reply import read_reply
from proto import catalogue
from proto.message import UNREADABLE, Message
from proto.nesting import DEPTH_MAX, TooDeep, check_depth, decode_json
from proto.ops import OpsError, ops_request
from proto.report import read_report
from router.commands.option import Failure
from router.commands.sender import read_drafts
from tests.integration.bus import RouterProcess

ROOT = Path(__file__).parents[2]


def nested(depth: int) -> bytes:
    """An object whose arrays and objects are nested so deeply."""
    pairs = b'{"a":[' * (depth // 2) + b"{}" * (depth % 2) + b"]}" * (depth // 2)
    assert depth_of(json.loads(pairs)) == depth
    return pairs


def depth_of(value: Any) -> int:
    if isinstance(value, dict):
        return 1 + max(map(depth_of, value.values()), default=0)
    return 1 + max(map(depth_of, value), default=0) if isinstance(value, list) else 0


JSON = st.recursive(
    st.none() | st.text(alphabet='[]{}"\\a\u0000ж', max_size=8),
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=3), inner, max_size=4)
    ),
    max_leaves=60,
)


@pytest.mark.fault("G3")
@given(value=JSON, more=st.integers(0, 90), ascii_only=st.booleans())
def test_what_is_measured_is_the_depth_whatever_stands_in_strings(
    value: Any, more: int, ascii_only: bool
) -> None:
    """Brackets in strings nest nothing, escapes and letters change nothing."""
    whole = [value, "[{" * 100, '\\"[']
    for _ in range(more):
        whole = [whole, {"k": []}]
    text = json.dumps(whole, ensure_ascii=ascii_only)
    for data in (text, text.encode()):
        if depth_of(whole) > DEPTH_MAX:
            with pytest.raises(TooDeep):
                check_depth(data)
        else:
            check_depth(data)
            assert decode_json(data) == whole


@pytest.mark.fault("G3")
def test_every_reader_of_json_from_outside_has_the_one_limit() -> None:
    """Seen: JSON 5,000 deep was refused under Python 3.11 and passed on to partners under 3.13.
    One limit of ours holds for doors, partners' answers, the bus, reports and `smpbus send`."""
    deep, good = nested(DEPTH_MAX + 1), nested(DEPTH_MAX)
    assert decode(good, dict[str, Any])
    with pytest.raises(BadInput, match="is nested too deeply"):
        decode(deep, dict[str, Any])
    headers = {"content-type": "application/json"}
    assert read_reply(HttpAnswer(200, headers, good), dict[str, Any])
    with pytest.raises(BadReply):
        read_reply(HttpAnswer(200, headers, deep), dict[str, Any])
    message = Message("1", "call.status.v1", "smp", "", 1, body=deep)
    with pytest.raises(UNREADABLE):
        message.json()
    with pytest.raises(UNREADABLE):
        catalogue.entry("call.status.v1").read(deep)
    report = msgspec.json.encode({"figures": msgspec.Raw(deep)})
    assert read_report(report) is None
    assert read_report(msgspec.json.encode({"figures": {"a": 1}})) is not None
    letter = b'{"type": "call.status.v1", "body": ' + deep + b"}"
    with pytest.raises(Failure):
        read_drafts(letter.decode(), "letter.json")


@pytest.mark.fault("G3")
def test_the_ops_socket_too() -> None:
    """A sibling: the router itself read an operator's JSON as deep as its interpreter let it."""
    deep: Any = json.loads(nested(DEPTH_MAX + 1))
    with RouterProcess() as router:
        with pytest.raises(OpsError) as caught:
            ops_request(router.ops, "status", more=deep)
        assert caught.value.code == "bad_request"
        assert router.ask("status")["state"] == "running"


@pytest.mark.fault("G3")
def test_to_measure_costs_little() -> None:
    """It is one pass over the bytes: a megabyte of anything is measured in no time."""
    inputs = [b'"' + b"\\\\" * 500_000, b"[{}," * 250_000, b'{"a":"' + b"x" * 10**6, b"[" * 10**6]
    began = time.monotonic()
    for data in inputs:
        with contextlib.suppress(TooDeep):
            check_depth(data)
    assert time.monotonic() - began < 5.0


@pytest.mark.fault("G3")
def test_nobody_reads_json_from_outside_in_another_way() -> None:
    """The kind: what is left reads files of our own; simulators read what they are told."""
    own = {
        "connectors/partners/ats/memory.py",
        "connectors/partners/external/memory.py",
        "connectors/partners/remd/word.py",
        "connectors/partners/smp/doors.py",
        "connectors/partners/sys112/memory.py",
        "connectors/runtime/persons.py",
        "proto/accesses.py",
        "proto/nesting.py",
        "proto/note.py",  # one string of a note that was read already
    }
    found = {
        str(path.relative_to(ROOT))
        for folder in ("proto", "router", "connectors")
        for path in (ROOT / folder).rglob("*.py")
        if not path.is_relative_to(ROOT / "connectors" / "simulators")
        and ("json.decode(" in (text := path.read_text(encoding="utf-8")) or "json.loads(" in text)
    }
    assert found <= own
