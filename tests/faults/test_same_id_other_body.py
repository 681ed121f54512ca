"""A partner's number that comes twice and says two things: neither is lost."""

from datetime import datetime
from pathlib import Path
from typing import Any

import msgspec
import pytest

from connectors.partners.external.contract import Event
from connectors.partners.external.memory import Memory
from connectors.partners.rmis.changes import Reader
from connectors.partners.rmis.contract import Change, Changes
from connectors.partners.rmis.memory import Memory as Numbers
from connectors.partners.smp.making import Maker
from connectors.runtime.door.claims import Doubts, Namespace
from connectors.runtime.door.token import digest_of as digest_of_token
from connectors.runtime.door.token import new_token
from proto import catalogue
from tests.contract.stage import Bus, Scene
from tests.faults.doorstep import CARD, CARD_PATH, play

pytestmark = pytest.mark.fault("D7")
STATUS = catalogue.entry("call.status.v1").example
UPDATE = catalogue.entry("incident.card_update.v1").example


def encode(value: Any) -> bytes:
    return msgspec.json.encode(value)


def other_body() -> Any:
    body = msgspec.json.decode(encode(CARD.body))
    body["Card"]["CommonData"]["Description"] = "не дышит, квартира 7"
    return body


def test_a_card_with_the_same_changed_and_another_body_is_another_message() -> None:
    """Same Id112, contact and Changed, "not breathing, apartment 7": it was answered 200 and the
    bus kept the first alone. What differs is no repeat; what does not, is one."""

    async def act(stage: Scene, _: Bus) -> None:
        for body in (CARD.body, other_body(), CARD.body, other_body()):
            assert (await stage.send("PUT", CARD_PATH, body)).status == 200

    ids = [one.id for one in play("sys112", act).accepted]
    assert ids[0] == ids[2]
    assert ids[1] == ids[3]
    assert ids[0] != ids[1]


def test_the_same_card_written_down_in_another_way_is_a_repeat() -> None:
    """The order of keys and the offset of a time say nothing."""
    turned = msgspec.json.decode(encode(CARD.body))
    turned["Card"] = dict(reversed(turned["Card"].items()))
    changed = datetime.fromisoformat(turned["Card"]["Changed"])
    turned["Card"]["Changed"] = changed.astimezone(tz=None).isoformat()

    async def act(stage: Scene, _: Bus) -> None:
        for body in (CARD.body, turned):
            assert (await stage.send("PUT", CARD_PATH, body)).status == 200

    assert len({one.id for one in play("sys112", act).accepted}) == 1


def test_a_status_with_a_known_event_id_and_another_code_is_another_message() -> None:
    """A vendor that numbers the events of each call anew had all but the first dropped. A repeat
    has the id of the first, written down a minute later or after a restart."""

    def id_of(**changes: Any) -> str:
        maker = Maker("smp", clinical=True)  # which remembers nothing
        return maker.make("call.status.v1", encode(STATUS | changes))[0].id

    first = id_of()
    assert id_of(recorded_at="2026-12-01T10:00:00+03:00") == first
    assert id_of(code="refused") not in (first, id_of(code="cancelled"))
    assert id_of(code="refused") == id_of(code="refused")
    assert id_of() == first


@pytest.mark.parametrize(
    ("type", "field"),
    [
        ("call.ticket.v1", "status"),
        ("hospital.book.v1", "call_id"),
        ("visit.request.v1", "call_id"),
        ("incident.card_update.v1", "region"),
        ("telephony.dial.v1", "operator"),
    ],
)
def test_whatever_the_ambulance_posts_twice_with_other_contents_is_two(
    type: str, field: str
) -> None:
    """The siblings: each type that the ambulance posts has a number that makes its id."""
    maker = Maker("smp", clinical=True)
    extra = {"request_id": "click-1"} if type == "telephony.dial.v1" else {}
    body = catalogue.entry(type).example | extra
    other = body | {field: "refused" if field == "status" else "other"}
    ids = [maker.make(type, encode(one))[0].id for one in (body, other, body)]
    assert ids[0] == ids[2] != ids[1]


def test_a_change_of_the_hospitals_with_a_known_id_is_two(tmp_path: Path) -> None:
    """The same at the hospitals' door, and in what a poll brings."""
    numbers = Numbers(tmp_path / "numbers.db")
    body = dict(catalogue.entry("visit.state.v1").example)
    numbers.note_asked("visit", body["visit_id"], body["call_id"], "112-1")
    reader = Reader("rmis", numbers, Namespace(b"secret"), Doubts("rmis"))
    changes = [
        Change(id="7", type="visit.state.v1", body=body | {"state": state})
        for state in ("accepted", "done", "accepted")
    ]
    ids = [one.id for one in reader.messages(Changes(changes=changes))]
    assert ids[0] == ids[2]
    assert ids[1] != ids[0]
    numbers.close()


def test_an_outside_service_hears_of_both_events_under_one_id(tmp_path: Path) -> None:
    """The events of a call are kept by event_id: the second of two was told as kept and was not."""
    memory = Memory(tmp_path / "calls.db")
    shown = {key: STATUS[key] for key in ("event_id", "occurred_at", "recorded_at", "call_id")}
    first, second, repeat = (
        msgspec.convert({"number": 0, "code": code, **shown}, Event)
        for code in ("departed", "arrived", "arrived")
    )
    numbers = [
        memory.note_event("a-1", memory.distinct("a-1", one)).number
        for one in (first, second, repeat, first)
    ]
    assert numbers == [1, 2, 2, 1]
    assert [one.code for one in memory.events("a-1", 0, 9)] == ["departed", "arrived"]
    memory.close()


def test_other_contents_are_known_after_a_restart(tmp_path: Path) -> None:
    """The first contents of a number were known since the start only: after one, other contents had
    the id of the first, and were lost."""
    ids = []
    for code in ("departed", "arrived", "departed"):
        maker = Maker("smp", clinical=True, names=Namespace.load(tmp_path / "claims.key"))
        ids.append(maker.make("call.status.v1", encode(STATUS | {"code": code}))[0].id)
    assert ids[0] == ids[2] != ids[1]


def test_a_call_under_a_key_whose_first_call_is_forgotten_is_not_lost(tmp_path: Path) -> None:
    """The file that knows the keys was lost: another call under the key of an old one was answered
    201, and the router took it for that one."""
    token = new_token()
    (tmp_path / "a.token").write_text(digest_of_token(token) + "\n", encoding="ascii")
    headers = {"authorization": f"Bearer {token}", "idempotency-key": "k1",
               "content-type": "application/json"}  # fmt: skip
    call = {
        "received_at": "2026-11-20T12:00:00+03:00",
        "reason": {"code": "11", "system": "own"},
        "address": {"text": "Лесная, 3"},
    }
    ids = []
    for number, text in enumerate(("Лесная, 3", "Лесная, 3", "Лесная, 7")):

        async def act(stage: Scene, _: Bus, text: str = text) -> None:
            body = encode(call | {"address": {"text": text}})
            answer = await stage.http.request("POST", "/external/calls", body, headers)
            assert answer.status == 201

        clients = {"a": {"token_file": tmp_path / "a.token"}}
        bus = play("external", act, state_file=tmp_path / f"{number}.db", clients=clients)
        ids.append(bus.accepted[0].id)
    assert ids[0] == ids[1] != ids[2]
