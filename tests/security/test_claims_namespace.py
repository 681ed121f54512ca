"""What a partner claims: it cannot stand for what we saw, nor for anything that was never asked."""

import os
import stat
from pathlib import Path
from typing import Any

import msgspec
import pytest

from connectors.partners.smp.making import Maker
from connectors.runtime.door.claims import Namespace, uuid_of
from connectors.runtime.door.door import message_id
from proto import catalogue
from proto.exits import StartError
from proto.message import Message
from tests.contract.stage import Bus, Scene
from tests.faults.doorstep import play

BED = catalogue.entry("hospital.booked.v1").example
ASKED = catalogue.entry("hospital.book.v1").example
TYPES = {
    "hospital.booked.v1": ("hospital.book.v1", "booking_id"),
    "visit.state.v1": ("visit.request.v1", "visit_id"),
    "transfer.state.v1": ("call.card.v1", "call_id"),
    "hospital.outcome.v1": ("hospital.arrival.v1", "call_id"),
}


def asked(type: str, **changes: Any) -> Message:
    return Message.new(type, "smp", catalogue.entry(type).example | changes, subject="112-1")


async def claim(stage: Scene, id: str, type: str = "hospital.booked.v1", **changes: Any) -> int:
    body = {key: value for key, value in catalogue.entry(type).example.items() if key != "event_id"}
    change = {"id": id, "type": type, "body": body | changes}
    return (await stage.send("POST", "/rmis/changes", {"changes": [change]})).status


def settings(folder: Path) -> dict[str, Any]:
    return {"state_file": folder / "numbers.db", "poll_s": 60}


@pytest.mark.fault("S3")
def test_a_forged_answer_does_not_swallow_the_true_one(tmp_path: Path) -> None:
    """Whoever foresaw a booking told "refused" under the id of the true answer, before it was
    asked for: the true "booked" was taken for a repeat. A claim about nothing that was asked for is
    set aside, one afterwards has an id of its own, and none has an event id of ours."""
    booking = ASKED["booking_id"]
    foreseen = f"rmis-bed-{booking}-booked"
    forged = {"booking_id": booking, "call_id": ASKED["call_id"], "state": "refused"}

    async def act(stage: Scene, bus: Bus) -> None:
        for id in (foreseen, "c-1"):
            assert await claim(stage, id, **forged) == 400
        assert {one.type for one in bus.accepted} == {"input.rejected.v1"}
        await stage.handle(asked("hospital.book.v1"))
        assert await claim(stage, foreseen, **forged) == 400
        assert await claim(stage, "c-1", **forged) == 200
        assert stage.connector.figures()["words_set_aside"] == {"event id": 2, "unknown object": 1}

    bus = play("rmis", act, **settings(tmp_path))
    told = [one for one in bus.accepted if one.type == "hospital.booked.v1"]
    assert [one.json()["state"] for one in told] == ["booked", "refused"]  # type: ignore[index]
    # What we saw keeps the id that it always had.
    assert told[0].id == message_id("hospital.booked.v1", "rmis", foreseen) != told[1].id
    assert len({one.id for one in told}) == 2


@pytest.mark.fault("S3")
@pytest.mark.parametrize("type", TYPES)
def test_what_was_never_asked_for_has_no_answer(tmp_path: Path, type: str) -> None:
    """Each kind of change was passed on about calls that did not exist, and about another call's
    bed: it is told to the administrator, and nothing is passed on."""
    asks, field = TYPES[type]
    example = catalogue.entry(asks).example
    call = example["id"] if asks == "call.card.v1" else example["call_id"]
    number = call if field == "call_id" else example[field]

    async def act(stage: Scene, bus: Bus) -> None:
        right = {field: number, "call_id": call}
        if type == "transfer.state.v1":
            right["kind"] = "card"
        assert await claim(stage, "1", type, **right) == 400
        await stage.handle(asked(asks))
        own = [one for one in bus.accepted if one.type == type]
        assert await claim(stage, "2", type, **(right | {field: "another"})) == 400
        assert await claim(stage, "3", type, **(right | {"call_id": "another"})) == 400
        if type == "transfer.state.v1":
            assert await claim(stage, "4", type, **(right | {"kind": "ticket"})) == 400
        assert [one for one in bus.accepted if one.type == type] == own
        assert await claim(stage, "5", type, **right) == 200
        assert len([one for one in bus.accepted if one.type == type]) == len(own) + 1

    play("rmis", act, **settings(tmp_path))


@pytest.mark.fault("S3")
def test_a_file_of_an_earlier_version_knows_its_calls(tmp_path: Path) -> None:
    """Of what was asked for before it was written down only the call is known: its answers are
    taken, and are told under the call's subject."""

    async def before(stage: Scene, _: Bus) -> None:
        connector: Any = stage.connector
        connector.memory.state.write(
            ("drop table asked", ()), ("drop table asking", ()),
            ("insert into call values ('2026-1', '112-1', 1)", ()),
        )  # fmt: skip

    async def after(stage: Scene, bus: Bus) -> None:
        for number, call in enumerate(("2026-1", "2026-2")):
            await claim(stage, str(number), call_id=call, booking_id="b-9")
        told = [one for one in bus.accepted if one.type == "hospital.booked.v1"]
        assert [one.subject for one in told] == ["112-1"]

    play("rmis", before, **settings(tmp_path))
    play("rmis", after, **settings(tmp_path))


@pytest.mark.fault("S3")
def test_the_secret_is_made_once_and_is_its_owners(tmp_path: Path) -> None:
    """Ids of claims were public: anybody could reckon them. They are made with a secret that is
    made at the first start, survives the next, and is refused when others may read it."""
    file = tmp_path / "claims.key"
    first = Namespace.load(file).id_of("a", None, "b")
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert os.listdir(tmp_path) == ["claims.key"]
    assert Namespace.load(file).id_of("a", None, "b") == first
    others = {Namespace.load(file).id_of("a", "b"), Namespace().id_of("a", None, "b")}
    assert first not in others
    assert uuid_of(first) == first
    assert first != Namespace.load(tmp_path / "other.key").id_of("a", None, "b")
    file.chmod(0o644)
    with pytest.raises(StartError, match="chmod 600"):
        Namespace.load(file)
    file.chmod(0o600)
    file.write_bytes(b"short")
    with pytest.raises(StartError, match=str(file)):
        Namespace.load(file)
    file.unlink()
    file.symlink_to(tmp_path / "elsewhere")
    with pytest.raises(StartError, match=str(file)):
        Namespace.load(file)
    assert not (tmp_path / "elsewhere").exists()
    with pytest.raises(StartError):
        Namespace.load(tmp_path / "no folder" / "claims.key")


@pytest.mark.fault("S3")
def test_what_the_ambulance_posts_has_ids_that_only_its_door_makes() -> None:
    """The sibling at the ambulance's door: the id of a card of a known call was known, and whoever
    got one in first had the true card taken for a repeat."""
    posted = msgspec.json.encode(catalogue.entry("call.card.v1").example)
    one, other, public = (
        Maker("smp", clinical=True, names=names).make("call.card.v1", posted)[0].id
        for names in (Namespace(b"1" * 32), Namespace(b"2" * 32), Namespace())
    )
    assert len({one, other, public}) == 3
    assert message_id("call.card.v1", catalogue.entry("call.card.v1").example["card_id"]) not in (
        one, other, public,
    )  # fmt: skip


@pytest.mark.fault("S3")
def test_a_senders_own_id_is_no_repeat_of_other_contents() -> None:
    """The sibling in the queue: a name that its sender gives, and that somebody else gave before to
    something else, was a repeat of that."""

    async def act(stage: Scene, bus: Bus) -> None:
        status = catalogue.entry("call.status.v1").example
        for code in ("refused", "arrived", "arrived"):
            sent = {"type": "call.status.v1", "id": "a-1", "payload": status | {"code": code}}
            answer = await stage.send("POST", "/queue/send", {"messages": [sent]})
            assert answer.status == 200
        ids = [one.id for one in bus.accepted]
        assert ids[0] != ids[1] == ids[2]

    play("smp", act, mode="queue")
