"""Characters that no text may have: refused by the name of the field, or taken out of an emergency;
never accepted and then a dead letter."""

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.partners.smpsql.publishing import _check
from connectors.runtime.door.body import BadInput, decode, decode_urgent
from connectors.runtime.door.token import digest_of, new_token
from connectors.runtime.oddities import ODD, may_be_odd, mended, oddities
from proto import catalogue
from tests.contract.stage import Bus, Scene
from tests.faults.doorstep import CARD, CARD_PATH, play

pytestmark = pytest.mark.fault("D10")
ODD_ONES = {
    "NUL": "\x00",
    "a control": "\x01",
    "an escape of terminals": "\x1b[2J",
    "a backspace": "\b",
    "delete": "\x7f",
    "a control of the second row": "\x9b",
    "right to left": "\u202e",
    "an isolate": "\u2066",
    "no character": "\uffff",
}
HALF = b"\\ud83d"  # as JSON may have it, and no text can


def encode(value: Any) -> bytes:
    return msgspec.json.encode(value)


def card(description: str) -> Any:
    body = msgspec.json.decode(encode(CARD.body))
    body["Card"]["CommonData"]["Description"] = description
    return body


@pytest.mark.parametrize("odd", ODD_ONES.values(), ids=ODD_ONES)
def test_an_emergency_is_taken_without_them_and_the_field_is_told(odd: str) -> None:
    """NUL got 200 at the door of 112 and became a dead letter behind it. The emergency is taken,
    the field is told to System-112 and to the administrator, and nothing odd goes on."""

    async def act(stage: Scene, _: Bus) -> None:
        answer = await stage.send("PUT", CARD_PATH, card(f"не{odd}дышит"))
        assert answer.status == 200, answer.body
        told = msgspec.json.decode(answer.body)["CodeDescr"]
        assert told.startswith("accepted")
        assert "Card.CommonData.Description" in told

    (message,) = play("sys112", act).accepted
    body: Any = message.json()
    description = body["description"]
    assert not ODD.search(description)
    assert description.startswith("не")
    assert description.endswith("дышит")


@pytest.mark.parametrize("raw", [HALF, b"\x01", b"\\u0000", b"\\u202E"], ids=repr)
def test_an_emergency_is_taken_whatever_the_bytes_are(raw: bytes, caplog: Any) -> None:
    """The siblings in the bytes of JSON: half a character, a control that is not escaped. They made
    the whole card "is not JSON"."""
    body = encode(card("не PLACE дышит")).replace(b"PLACE", raw)

    async def act(stage: Scene, _: Bus) -> None:
        for _try in range(3):
            assert (await stage.send("PUT", CARD_PATH, body)).status == 200
        ended = encode({"SysCode": "112", "Id112": CARD.id112, "Reason": "PLACE",
                        "CancelOperator": {"OperatorLogin": "a"}})  # fmt: skip
        cancelled = await stage.send("POST", f"{CARD_PATH}/cancel", ended.replace(b"PLACE", raw))
        assert cancelled.status == 200, cancelled.body

    accepted = play("sys112", act).accepted
    assert len({one.id for one in accepted if one.type == "incident.card.v1"}) == 1
    assert not ODD.search(accepted[0].body.decode())
    told = [one for one in caplog.records if "Description" in one.getMessage()]
    assert len(told) == 1


def test_a_number_of_a_card_is_never_changed_silently() -> None:
    """What is told of a card goes by its number."""

    async def act(stage: Scene, _: Bus) -> None:
        for id112 in ("a%00b", "a%1Bb", "a%E2%80%AEb"):
            answer = await stage.send("PUT", f"/112/cards/{id112}", card("x"))
            assert answer.status == 400
            assert "Id112" in msgspec.json.decode(answer.body)["CodeDescr"]

    bus = play("sys112", act)
    assert {one.type for one in bus.accepted} == {"input.rejected.v1"}


POSTS = {
    "/bus/status": ("call.status.v1", ("remark",), "remark"),
    "/bus/tickets": ("call.ticket.v1", ("reason", "text"), "reason.text"),
    "/bus/call-cards": ("call.card.v1", ("patients", 0, "enp"), "patients[0].enp"),
    "/bus/cards": ("incident.card_update.v1", ("region",), "region"),
    "/bus/dial": ("telephony.dial.v1", ("phone",), "phone"),
    "/bus/visits": ("visit.request.v1", ("not_in_the_schema",), "not_in_the_schema"),
}


@pytest.mark.parametrize("odd", ["\x00", "\x01", "\u202e"], ids=repr)
def test_the_ambulance_is_told_the_field(odd: str) -> None:
    """`\\x01` in a policy or in a worker's number made the registers' connectors fail for ever."""

    async def act(stage: Scene, _: Bus) -> None:
        for path, (type, steps, told) in POSTS.items():
            body = catalogue.entry(type).example
            body = msgspec.json.decode(encode(body | {"request_id": "1"}))
            place = body
            for step in steps[:-1]:
                place = place[step]
            place[steps[-1]] = f"a{odd}b"
            answer = await stage.send("POST", path, body)
            assert answer.status == 400, path
            sentence = msgspec.json.decode(answer.body)["sentence"]
            assert sentence.startswith(f"{told}: has a control character"), sentence
            sent = {"messages": [{"type": type, "payload": body}]}
            answer = await stage.send("POST", "/queue/send", sent)
            (result,) = msgspec.json.decode(answer.body)["results"]
            assert result["code"] == 400
            assert result["path"] == f"messages[0].payload.{told}"

    bus = play("smp", act, clinical=True)
    assert {one.type for one in bus.accepted} == {"input.rejected.v1"}


def test_the_doors_of_hospitals_and_outside_services_tell_the_field(tmp_path: Path) -> None:
    """The siblings. A call of an outside service is an emergency, and is taken."""
    body = {"call_id": "1", "state": "do\x1bne", "visit_id": "1"}
    change = {"id": "1", "type": "visit.state.v1", "body": body}

    async def rmis(stage: Scene, _: Bus) -> None:
        answer = await stage.send("POST", "/rmis/changes", {"changes": [change]})
        assert answer.status == 400
        assert b"changes[0].body.state" in answer.body

    play("rmis", rmis, state_file=tmp_path / "numbers.db", poll_s=60)
    token = new_token()
    (tmp_path / "a.token").write_text(digest_of(token) + "\n", encoding="ascii")
    headers = {"authorization": f"Bearer {token}", "content-type": "application/json"}
    call = {
        "received_at": "2026-11-20T12:00:00+03:00",
        "reason": {"code": "11", "system": "own"},
        "address": {"text": "Лесная,\x00 3\x1b"},
    }

    async def external(stage: Scene, _: Bus) -> None:
        for key in ("k1", "k1"):
            told = headers | {"idempotency-key": key}
            answer = await stage.http.request("POST", "/external/calls", encode(call), told)
            assert answer.status == 201, answer.body

    clients = {"a": {"token_file": tmp_path / "a.token"}}
    bus = play("external", external, state_file=tmp_path / "calls.db", clients=clients)
    taken: Any = bus.accepted[0].json()
    assert taken["address"]["text"] == "Лесная, 3 "


def test_a_row_of_the_outbox_is_refused_by_its_field() -> None:
    """What the ambulance writes into its outbox goes to the same partners."""
    body = encode(catalogue.entry("call.status.v1").example | {"remark": "\x02"})
    with pytest.raises(BadInput) as refused:
        _check(body, "call.status.v1")
    assert refused.value.path == "payload.remark"


def test_the_path_of_a_refusal_is_clean_too() -> None:
    """An unknown field's name is the partner's own: it stood in the log as it came."""
    with pytest.raises(BadInput) as refused:
        decode(encode({"a\x1b[2J": 1, "b": "\x00"}), dict[str, Any])
    assert refused.value.path.isprintable()
    assert str(BadInput("x\x1b", "y")).isprintable()


LETTERS = 'аb \t\n\\"\x00\x07\x1f\x7f\x85\u2028\u202a\u2069\ufffe\U0001f600'
TEXTS = st.text(st.sampled_from(LETTERS))
JSON = st.recursive(
    TEXTS | st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(TEXTS, JSON, max_size=3))
def test_mended_is_never_odd_and_the_quick_look_misses_nothing(value: dict[str, Any]) -> None:
    """Of any JSON: what is worth mending is found in its bytes, and mended it is not odd."""
    body = encode(value)
    odd = list(oddities(value))
    assert not odd or may_be_odd(body)
    assert list(oddities(mended(value))) == []
    told, found = decode_urgent(body)
    assert found == odd
    if not odd:
        assert told == value
    escaped = json.dumps(value).encode()  # every letter that is not ASCII as an escape
    assert decode_urgent(escaped)[1] == odd


def test_nested_without_end_is_refused_by_name() -> None:
    """Looking at all that is in it must not be the way to break in."""
    deep = b'{"a":' * 100 + b'"\\u0000\x01"' + b"}" * 100
    for read in (lambda: decode(deep, dict[str, Any]), lambda: decode_urgent(deep)):
        with pytest.raises(BadInput, match="nested too deeply"):
            read()
