"""What mutated inputs found, each in its smallest form."""

import io
from datetime import datetime

import msgspec
import pytest

from connectors.billing.answer import BadAnswer, read_answer
from connectors.runtime.door.body import BadInput, decode
from connectors.runtime.markup import xml
from proto import frames
from proto.frames import FrameError
from proto.peer import Peer


@pytest.mark.fault("fuzz")
@pytest.mark.parametrize("place", ["FLK_P", "FNAME_I", "PR", "OSHIB"])
def test_a_prefix_that_is_not_declared_is_no_answer_of_the_fund(place: str) -> None:
    """An element <x:PR> without xmlns:x ended `smpbus register answer` in a ValueError of lxml,
    whose incremental parser lets it pass; it is an answer that is no XML."""
    answer = "<FLK_P><FNAME_I>HM1</FNAME_I><PR><OSHIB>901</OSHIB><N_ZAP>1</N_ZAP></PR></FLK_P>"
    odd = answer.replace(f"<{place}>", f"<x:{place}>").replace(f"</{place}>", f"</x:{place}>")
    with pytest.raises(BadAnswer):
        list(read_answer(io.BytesIO(odd.encode())).verdicts)
    assert len(list(read_answer(io.BytesIO(answer.encode())).verdicts)) == 1


class _Sent(msgspec.Struct):
    payload: msgspec.Raw
    at: datetime


@pytest.mark.fault("fuzz")
def test_what_is_kept_raw_does_not_stop_its_request() -> None:
    """Every POST /queue/send was answered 500: the times of a request were looked for in what
    msgspec keeps raw."""
    body = b'{"payload": {"a": 1}, "at": "2026-11-24T10:00:00Z"}'
    assert bytes(decode(body, _Sent).payload) == b'{"a": 1}'
    with pytest.raises(BadInput):
        decode(body.replace(b"2026", b"0001").replace(b"11-24", b"01-01"), _Sent)


@pytest.mark.fault("fuzz")
def test_a_deliver_that_is_no_text_is_a_bad_frame_to_a_client() -> None:
    """A DELIVER with a text that is not UTF-8 ended a client's reading in a UnicodeDecodeError, on
    the way on which it reads message by message what it cannot read whole."""
    peer = Peer("consumer", "test")
    bad = frames.encode(["sink", [[7, 1, ["no message"], "GENERATION"]]])
    with pytest.raises(FrameError):
        peer.receive([frames.DELIVER, bad.replace(b"GENERATION", b"\xac" * 10)])


@pytest.mark.fault("fuzz")
@pytest.mark.parametrize("odd", ["x:a", "x:x:a", "x:b"])
def test_a_prefix_that_is_not_declared_is_bad_xml_wherever_it_stands(odd: str) -> None:
    """The parser lets an undeclared prefix pass when another namespace is declared further in, and
    a SOAP answer with one ended in a ValueError, which nobody took for a bad reply."""
    body = f'<soap:E xmlnw:soap="s"><{odd}><c xmlns="d"><e>1</e></c></{odd}></soap:E>'
    with pytest.raises(BadInput):
        xml.parse(body.encode())
    assert xml.local(xml.parse(body.replace("xmlnw", "xmlns").replace("x:", "").encode())) == "E"
    with pytest.raises(BadInput):
        xml.parse(b'<s:E xmlns:s="{}"/>')
