"""The golden vectors: what any client may check itself by, checked here against our own code."""

import json
import re
from pathlib import Path
from random import Random
from typing import Any

import msgspec
import pytest

from proto import frames
from proto.errors import FATAL, TEMPORARY, Code
from proto.frames import PEER_READS, ROUTER_READS, FrameError
from proto.message import decode_message
from router.core.core import Core, Now
from router.settings import BusSettings, Destination, Permission, Route, Settings

ROOT = Path(__file__).parents[2]
SPEC = (ROOT / "proto" / "SPEC.md").read_text(encoding="utf-8")
NOW = Now(1_800_000_000_000, 1_000)


def vectors(name: str) -> list[dict[str, Any]]:
    text = (ROOT / "tests" / "vectors" / f"{name}.json").read_text(encoding="utf-8")
    found: list[dict[str, Any]] = json.loads(text)
    return found


VALID, INVALID = vectors("valid"), vectors("invalid")


def named(found: list[dict[str, Any]]) -> list[Any]:
    return [pytest.param(vector, id=vector["name"]) for vector in found]


def frames_of(vector: dict[str, Any]) -> list[bytes]:
    return [bytes.fromhex(frame) for frame in vector["frames"]]


def readers_of(vector: dict[str, Any]) -> frames.Readers:
    return {"to_router": ROUTER_READS, "to_peer": PEER_READS}[vector["direction"]]


def meaning_of(payload: Any) -> Any:
    """Return a payload as the vectors write it: arrays, and bytes as {"hex": ...}."""
    if isinstance(payload, frames.PublishRaw):
        messages = [decode_message(raw) for raw in payload.messages]
        return [payload.batch, meaning_of(messages)]
    if isinstance(payload, frames.RequestRaw):
        question = decode_message(payload.message)
        head = [payload.request, payload.destination, payload.timeout_ms]
        return [*head, meaning_of(question)]
    if isinstance(payload, msgspec.Struct):
        return [meaning_of(getattr(payload, name)) for name in payload.__struct_fields__]
    if isinstance(payload, list):
        return [meaning_of(item) for item in payload]
    return {"hex": payload.hex()} if isinstance(payload, bytes) else payload


@pytest.mark.parametrize("vector", named(VALID))
def test_a_valid_frame_means_what_the_vector_says(vector: dict[str, Any]) -> None:
    payload = frames.read(frames_of(vector), readers_of(vector))
    assert meaning_of(payload) == vector["meaning"]


@pytest.mark.parametrize("vector", named(VALID))
def test_what_we_say_is_read_back_the_same(vector: dict[str, Any]) -> None:
    verb, *rest = frames_of(vector)
    payload = frames.read([verb, *rest], readers_of(vector))
    again = frames.read([verb, frames.encode(payload)], readers_of(vector))
    assert meaning_of(again) == vector["meaning"]


class Listener:
    """A real core with one welcomed session; it answers what a frame gets."""

    def __init__(self) -> None:
        settings = Settings(
            bus=BusSettings(body_bytes_max=1024),
            destinations={"smp": Destination(), "admin": Destination()},
            routes=[Route(type="call.status.v1", to=["smp"])],
            permissions={"smp": Permission(publish=["call.*"], consume=["smp"])},
        )
        self.core = Core(settings, "bus", 1, Random(1))
        self.hear([frames.HELLO, frames.encode(frames.Hello([1], "smp"))])

    def hear(self, parts: list[bytes]) -> list[Any]:
        self.core.receive(b"peer", b"", parts, NOW)
        sends, self.core.out.sends = self.core.out.sends, []
        return [frames.read(said, PEER_READS) for _, said in sends]


def code_of(answer: Any) -> str:
    if isinstance(answer, frames.RefusedBatch):
        return answer.refusals[0].code
    assert isinstance(answer, frames.Error)
    return answer.code


@pytest.mark.parametrize("vector", named(INVALID))
def test_an_invalid_frame_gets_its_code_and_harms_nothing(vector: dict[str, Any]) -> None:
    parts = frames_of(vector)
    if vector["direction"] == "to_peer":
        with pytest.raises(FrameError) as caught:
            frames.read(parts, PEER_READS)
        assert caught.value.code == vector["code"]
        return
    listener = Listener()
    answers = listener.hear(parts)
    assert [code_of(answer) for answer in answers] == [vector["code"]]
    assert listener.hear([frames.PING, frames.encode(frames.Ping(9))]) == [frames.Ping(9)]
    assert not listener.core.out.batch


def test_the_sentence_of_a_refusal_holds_nothing_of_the_message() -> None:
    secret = "Иванова Мария, полис 1234567890123456"
    raw = ["1", "call.status.v1", "smp", secret * 30, 1]
    answers = Listener().hear([frames.PUBLISH, msgspec.msgpack.encode([1, [raw]])])
    (refused,) = answers
    assert refused.refusals[0].code == "bad_message"
    assert "Иванова" not in refused.refusals[0].sentence
    assert "1234" not in refused.refusals[0].sentence


def test_there_are_enough_of_them_and_each_has_a_name_of_its_own() -> None:
    assert len(VALID) >= 40
    assert len(INVALID) >= 60
    names = [vector["name"] for vector in (*VALID, *INVALID)]
    assert len(names) == len(set(names))


def test_every_verb_and_every_default_way_is_shown() -> None:
    shown = {(vector["direction"], vector["verb"]) for vector in VALID}
    known = {("to_router", verb.decode()) for verb in ROUTER_READS}
    known |= {("to_peer", verb.decode()) for verb in PEER_READS}
    # ERROR may be said both ways; a peer that says it is heard and not answered.
    assert known - shown == {("to_router", "ERROR")}


def test_the_spec_has_the_clauses_that_the_vectors_name() -> None:
    clauses = set(re.findall(r"^(\d+\.\d+)\. ", SPEC, re.MULTILINE))
    assert {vector["clause"] for vector in (*VALID, *INVALID)} <= clauses


def test_the_spec_tells_of_every_verb_and_every_code() -> None:
    for verb in {*ROUTER_READS, *PEER_READS}:
        assert f'%s"{verb.decode()}"' in SPEC
        assert f"**{verb.decode()}**" in SPEC
    rows = re.findall(r"^\| `(\w+)` \| [^|]+ \| (yes)? ?\| (yes)? ?\|", SPEC, re.MULTILINE)
    told = {code: (bool(fatal), bool(later)) for code, fatal, later in rows}
    assert told == {code.value: (code in FATAL, code in TEMPORARY) for code in Code}
