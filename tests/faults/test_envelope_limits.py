"""The envelope: every field has a limit, and what is wrong with a message or frame is named."""

import json
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from proto import frames
from proto.frames import PEER_READS
from proto.message import BYTES_MAX, Message
from router.core.core import Core, Now
from router.settings import BusSettings, Destination, Permission, Route, Settings

VECTORS = Path(__file__).parents[1] / "vectors"
NOW = Now(1_800_000_000_000, 1_000)
GOOD: list[Any] = ["1", "call.status.v1", "smp", "", 1, 2, None, None, None, None, None]
GOOD += ["application/json", b""]


class Peer:
    """One peer of a real core, welcomed if `greets`."""

    def __init__(self, greets: bool = True) -> None:
        settings = Settings(
            bus=BusSettings(body_bytes_max=1024),
            destinations={"smp": Destination()},
            routes=[Route(type="call.status.v1", to=["smp"])],
            permissions={"smp": Permission(publish=["call.*"], consume=["smp"], ask=["smp"])},
        )
        self.core = Core(settings, "bus", 1, Random(1))
        if greets:
            self.say(frames.HELLO, [[1], "smp"])

    def say(self, verb: bytes, payload: object) -> list[Any]:
        self.core.receive(b"peer", b"", [verb, msgspec.msgpack.encode(payload)], NOW)
        sends, self.core.out.sends = self.core.out.sends, []
        return [frames.read(said, PEER_READS) for _, said in sends]

    def publish(self, message: list[Any]) -> Any:
        (answer,) = self.say(frames.PUBLISH, [7, [message]])
        return answer


def put(name: str, value: object) -> list[Any]:
    message = list(GOOD)
    message[Message.__struct_fields__.index(name)] = value
    return message


@pytest.mark.fault("C9")
@pytest.mark.parametrize("name", BYTES_MAX)
def test_what_the_bus_passes_on_unread_has_a_limit_in_bytes(name: str) -> None:
    """correlation_id, reply_to, traceparent and content_type took a megabyte each."""
    peer = Peer()
    longest = "я" * (BYTES_MAX[name] // 2)
    assert peer.say(frames.PUBLISH, [1, [put(name, longest)]]) == []
    refused = peer.publish(put(name, longest + "1")).refusals[0]
    assert refused.code == "bad_message"
    assert refused.sentence.startswith(f"{name}: ")
    peer.say(frames.CREDIT, ["smp", 0])
    answer = peer.say(frames.REQUEST, [1, "smp", 1000, put(name, longest + "1")])[0]
    assert (answer.code, answer.sentence.split(":")[0]) == ("bad_message", name)


@pytest.mark.fault("C9")
def test_an_answer_has_the_limits_of_a_message() -> None:
    """A REPLY might have any length, of body and content type."""
    peer = Peer()
    peer.say(frames.CREDIT, ["smp", 0])
    (asked,) = peer.say(frames.REQUEST, [5, "smp", 1000, GOOD])
    told = peer.say(frames.REPLY, [asked.request, "", "", "text/plain", b"x" * 1025])
    assert [(type(one).__name__, one.code) for one in told] == [
        ("Reply", "body_too_large"),
        ("Error", "body_too_large"),
    ]
    (error,) = peer.say(frames.REPLY, [1, "", "", "x" * 257, b""])
    assert error.code == "bad_frame"
    (error,) = peer.say(frames.HELLO, [[1] * 65, "smp"])
    assert error.code == "bad_frame"


@pytest.mark.fault("B18")
@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("id", ""), ("type", 1), ("source", "s" * 65), ("subject", "s" * 257), ("time", -1),
        ("priority", 4), ("not_before", "x"), ("expires", -1), ("reply_to", 1),
        ("correlation_id", 1), ("traceparent", b""), ("content_type", None), ("body", "text"),
    ],
)  # fmt: skip
def test_a_bad_message_is_refused_by_the_name_of_its_field(name: str, value: object) -> None:
    """The sentence said `at $[3]`, where the specification promises the field."""
    refused = Peer().publish(put(name, value)).refusals[0]
    assert refused.code == "bad_message"
    assert refused.sentence.startswith(f"{name}: ")


@pytest.mark.fault("B18")
def test_an_error_for_a_publish_or_a_request_has_its_number() -> None:
    """Who had several batches unanswered could not tell which one an ERROR was for."""
    peer = Peer(greets=False)
    for verb, payload in (
        (frames.PUBLISH, [7, []]),
        (frames.PUBLISH, [7, [GOOD]]),
        (frames.REQUEST, [7, "smp", 0, GOOD]),
    ):
        (error,) = peer.say(verb, payload)
        assert (error.verb, error.number) == (verb.decode(), 7)
    (error,) = peer.say(frames.SETTLE, [[]])
    assert error.number is None
    (error,) = peer.say(frames.PUBLISH, ["x", [GOOD]])
    assert error.number is None


@pytest.mark.fault("B18")
def test_a_frame_is_read_before_anything_else_is_asked() -> None:
    """Which error a broken frame before HELLO gets was said nowhere."""
    invalid = json.loads((VECTORS / "invalid.json").read_text(encoding="utf-8"))
    early = [vector for vector in invalid if vector["direction"] == "to_router"]
    broken = [vector for vector in early if vector["code"] in ("bad_frame", "unknown_verb")]
    assert len(broken) > 20
    for vector in broken:
        peer = Peer(greets=False)
        peer.core.receive(b"peer", b"", [bytes.fromhex(one) for one in vector["frames"]], NOW)
        ((_, said),) = peer.core.out.sends
        error = frames.read(said, PEER_READS)
        assert isinstance(error, frames.Error)
        assert error.code == vector["code"]
