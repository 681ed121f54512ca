"""What somebody else's JSON may be: a refusal or a failure of the partner, never a surprise."""

import msgspec
import pytest

from connectors.runtime.door.body import BadInput, decode
from connectors.runtime.partner.partner import Answer, BadReply
from connectors.runtime.partner.reply import read_reply

DEEP = b'{"more":' + b"[" * 100_000 + b"]" * 100_000 + b"}"


class Shape(msgspec.Struct):
    number: int
    word: str = ""


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        (b"<html>", "body: is not JSON"),
        (b'{"number": 1', "body: is not JSON"),
        (b'{"number": 1, "word": "\xff"}', "body: is not UTF-8"),
        (b"[]", "body: Expected `object`, got `array`"),
        (b"{}", "number: is required"),
        (DEEP, "body: is nested too deeply"),
        # Behind what the shape does not know.
        (b'{"number": 1, "more": "\x80"}', "body: is not UTF-8"),
        (b'{"number": 1, "mo\x80re": "\\u0001"}', "body: is not UTF-8"),
        (b'{"number": 1, "more": "\\u0001\x80"}', "body: is not UTF-8"),
        (b'{"number": 1, "more": ["\\u0001", "\\ud800x"]}', "body: is not JSON"),
        (b'{"number": 1, "more": ["\\u0001", 1e999]}', "body: is not JSON"),
    ],
)
def test_a_body_that_breaks_the_contract_is_refused_by_name(body: bytes, sentence: str) -> None:
    with pytest.raises(BadInput) as refused:
        decode(body, Shape)
    assert refused.value.sentence == sentence


@pytest.mark.parametrize("body", [b"<html>", b'{"number": 1, "word": "\xff"}', b"[]", b"{}", DEEP])
def test_an_answer_that_breaks_the_contract_is_a_failure_of_the_partner(body: bytes) -> None:
    answer = Answer(200, {"content-type": "application/json"}, body)
    with pytest.raises(BadReply):
        read_reply(answer, Shape)
