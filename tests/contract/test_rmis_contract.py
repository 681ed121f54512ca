"""The hospitals' system: what is handed over, what comes back, questions, and every fault."""

import asyncio
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from connectors.partners.rmis import RmisConnector
from connectors.partners.rmis.contract import Changes
from connectors.partners.rmis.questions import SHOWN_MAX
from connectors.simulators.kit.people import people
from connectors.simulators.kit.simulation import SimulatorSettings
from connectors.simulators.rmis.simulator import BEDS, LONG_RECORD, create_app
from proto import catalogue
from proto.client import Reject, Retry
from proto.errors import Code, RequestFailed
from proto.message import Message
from tests.contract.stage import Bus, Scene, scene

QUICK = {"timeout_s": 0.3, "connect_timeout_s": 0.2, "breaker": {"failures_max": 99}}
KNOWN = people(0)
SUBJECT = "112-112-99-000001"


def play(
    bus: Bus,
    folder: Path,
    act: Callable[[Scene], Awaitable[None]],
    pace_s: float = 0.0,
    question_timeout_s: float = 0.5,
) -> None:
    async def whole() -> None:
        simulator = SimulatorSettings(pace_s=pace_s, repeat_s=0.05)
        settings: dict[str, Any] = {"state_file": folder / "numbers.db", "partner": QUICK}
        settings |= {"question_timeout_s": question_timeout_s}
        async with scene(bus, RmisConnector, create_app, simulator, **settings) as stage:
            await act(stage)

    asyncio.run(whole())


def message(type: str, **changes: Any) -> Message:
    return Message.new(type, "smp", catalogue.entry(type).example | changes, subject=SUBJECT)


async def ask(stage: Scene, type: str, **body: Any) -> Any:
    connector = stage.connector
    assert isinstance(connector, RmisConnector)
    return await connector.answer(Message.new(type, "smp", body))


HANDED = [
    ("call.ticket.v1", "CallTicket", "transfer.state.v1", "accepted"),
    ("call.status.v1", "StatusEvent", None, None),
    ("call.card.v1", "CallCard", "transfer.state.v1", "accepted"),
    ("hospital.book.v1", "BedRequest", "hospital.booked.v1", None),
    ("hospital.cancel.v1", "BedCancel", "hospital.booked.v1", "cancelled"),
    ("hospital.arrival.v1", "ArrivalNotice", None, None),
    ("visit.request.v1", "VisitRequest", "visit.state.v1", "accepted"),
]


@pytest.mark.parametrize(("type", "operation", "event", "state"), HANDED)
def test_what_is_handed_over_is_applied_once_and_answered_by_one_event(
    bus: Bus, tmp_path: Path, type: str, operation: str, event: str | None, state: str | None
) -> None:
    given = message(type)

    async def act(stage: Scene) -> None:
        first = await stage.handle(given)
        assert await stage.handle(given, attempt=2) == first
        ledger = await stage.ledger()
        assert [entry["operation"] for entry in ledger["entries"]] == [operation]
        assert ledger["repeats"] == 1

    play(bus, tmp_path, act, pace_s=60)
    published = {one.id: one for one in bus.accepted}.values()
    assert [one.type for one in published] == ([] if event is None else [event])
    for one in published:
        assert one.subject == SUBJECT
        assert state in (None, one.json()["state"])  # type: ignore[index]
        catalogue.entry(one.type).read(one.body)


def test_a_ticket_and_a_card_are_accepted_and_later_confirmed_once(
    bus: Bus, tmp_path: Path
) -> None:
    async def act(stage: Scene) -> None:
        await stage.handle(message("call.ticket.v1"), 1)
        await stage.handle(message("call.card.v1"), 2)
        await stage.wait(lambda ledger: not ledger["living"])  # both were posted to us ...
        assert stage.connector.figures()["unconfirmed"]["count"] == 0
        await stage.connector.poll()  # ... and lie ready, too
        await stage.connector.poll()

    play(bus, tmp_path, act)
    told = {one.id: one for one in bus.accepted}.values()
    bodies = [msgspec.json.decode(one.body) for one in told]
    assert sorted((body["kind"], body["state"]) for body in bodies) == [
        (kind, state) for kind in ("card", "ticket") for state in ("accepted", "confirmed")
    ]
    assert {one.subject for one in told} == {SUBJECT}
    assert all(one.correlation_id for one in told)


def test_a_confirmation_that_comes_before_the_answer_is_kept(bus: Bus, tmp_path: Path) -> None:
    confirmed = {"kind": "card", "call_id": "2026-4711", "state": "confirmed", "number": "R-9",
                 "at": "2026-11-23T09:20:00+03:00"}  # fmt: skip
    change = {"id": "c-1", "type": "transfer.state.v1", "body": confirmed}

    async def act(stage: Scene) -> None:
        body = {"changes": [change]}
        await stage.faults(down=True)  # it has the card, and its answer is lost
        with pytest.raises(Retry):
            await stage.handle(message("call.card.v1"))
        assert (await stage.send("POST", "/rmis/changes", body)).status == 200
        await stage.faults(down=False)
        await stage.handle(message("call.card.v1"), attempt=2)
        assert stage.connector.figures()["unconfirmed"]["count"] == 0

    play(bus, tmp_path, act, pace_s=60)
    assert [body["state"] for body in bus.bodies("transfer.state.v1")] == ["confirmed", "accepted"]
    assert bus.accepted[0].subject == SUBJECT


def test_a_rejected_card_tells_its_reason(bus: Bus, tmp_path: Path) -> None:
    async def act(stage: Scene) -> None:
        await stage.handle(message("call.card.v1", notes="REJECT"))
        await stage.wait(lambda ledger: not ledger["living"])

    play(bus, tmp_path, act)
    last = bus.bodies("transfer.state.v1")[-1]
    assert (last["state"], bool(last["reason"])) == ("rejected", True)


def test_a_bed_is_booked_until_there_is_none_and_given_back(bus: Bus, tmp_path: Path) -> None:
    async def act(stage: Scene) -> None:
        for number in range(BEDS + 1):
            booking = message("hospital.book.v1", booking_id=f"b-{number}")
            await stage.handle(booking, number + 1)
        await stage.handle(message("hospital.cancel.v1", booking_id="b-0"), 100)
        ledger = await stage.ledger()
        assert ledger["free"]["99-0101-29"] == 1
        answer = await ask(stage, "hospital.list.v1", profile="29")
        assert [(one["id"], one["free"]) for one in answer["hospitals"]] == [
            ("99-0102", BEDS), ("99-0101", 1),
        ]  # fmt: skip

    play(bus, tmp_path, act)
    states = [body["state"] for body in bus.bodies("hospital.booked.v1")]
    assert states == ["booked"] * BEDS + ["refused", "cancelled"]


def test_a_visit_and_a_stay_in_hospital_come_back(bus: Bus, tmp_path: Path) -> None:
    async def act(stage: Scene) -> None:
        await stage.handle(message("visit.request.v1"), 1)
        await stage.handle(message("hospital.arrival.v1"), 2)
        await stage.wait(lambda ledger: not ledger["living"])

    play(bus, tmp_path, act)
    states = [body["state"] for body in bus.bodies("visit.state.v1")]
    assert states == ["accepted", "assigned", "done"]
    (slip,) = bus.bodies("hospital.outcome.v1")
    assert slip["admitted"] is True


def test_who_it_is_found_ambiguous_or_nobody_and_asked_once(bus: Bus, tmp_path: Path) -> None:
    first = KNOWN[0]
    names = {key: first[key] for key in ("family", "given", "birth_date")}
    home = {"family": first["family"], "given": first["given"], "age_years": 60,
            "street": first["street"], "house": first["house"]}  # fmt: skip

    async def act(stage: Scene) -> None:
        found = await ask(stage, "patient.lookup.v1", enp=first["enp"])
        assert found["patients"][0]["id"] == first["id"]
        both = await ask(stage, "patient.lookup.v1", **names)
        assert (both["outcome"], len(both["patients"])) == ("ambiguous", 2)
        assert (await ask(stage, "patient.lookup.v1", **home))["outcome"] == "found"
        nobody = {"family": "НИКТО", "given": "ИВАН", "birth_date": "1990-01-01"}
        for _ in range(3):
            answer = await ask(stage, "patient.lookup.v1", **nobody)
            assert answer["outcome"] == "not_found"
        assert (await stage.ledger())["asked"]["identify"] == 4

    play(bus, tmp_path, act)


def test_what_the_brigade_must_know_is_asked_once_and_nobody_is_an_answer(
    bus: Bus, tmp_path: Path
) -> None:
    async def act(stage: Scene) -> None:
        for _ in range(3):
            known = await ask(stage, "patient.summary.v1", patient=KNOWN[0]["id"])
            assert known["allergies"]
        assert (await ask(stage, "patient.summary.v1", patient="p-0"))["known"] is False
        assert (await stage.ledger())["asked"]["summary"] == 2

    play(bus, tmp_path, act)


def test_an_extract_that_came_too_late_for_one_brigade_is_there_for_the_next(
    bus: Bus, tmp_path: Path
) -> None:
    patient = KNOWN[0]["id"]

    async def act(stage: Scene) -> None:
        await stage.faults(delay_s=0.25)
        with pytest.raises(RequestFailed) as refused:
            await ask(stage, "patient.summary.v1", patient=patient)
        assert refused.value.code == Code.TIMEOUT
        connector = stage.connector
        assert isinstance(connector, RmisConnector)
        await connector.lookup.drain()
        await stage.faults(delay_s=0.0, down=True)
        assert (await ask(stage, "patient.summary.v1", patient=patient))["known"] is True
        assert (await stage.ledger())["asked"]["summary"] == 1

    play(bus, tmp_path, act, question_timeout_s=0.1)


def test_an_extract_longer_than_anybody_reads_is_cut_and_says_so(bus: Bus, tmp_path: Path) -> None:
    async def act(stage: Scene) -> None:
        told = await ask(stage, "patient.summary.v1", patient=LONG_RECORD)
        lengths = {len(told[name]) for name in ("allergies", "diagnoses", "discharges")}
        assert lengths == {SHOWN_MAX}
        assert str(SHOWN_MAX) in told["warnings"][-1]

    play(bus, tmp_path, act, question_timeout_s=10)


def test_a_visit_that_is_refused_tells_its_reason(bus: Bus, tmp_path: Path) -> None:
    async def act(stage: Scene) -> None:
        await stage.handle(message("visit.request.v1", reason="REFUSE"))

    play(bus, tmp_path, act)
    (state,) = bus.bodies("visit.state.v1")
    assert (state["state"], bool(state["reason"])) == ("refused", True)


@pytest.mark.parametrize(
    ("type", "body", "code"),
    [
        ("patient.lookup.v1", {"family": "ИВАНОВ"}, Code.BAD_MESSAGE),
        ("patient.lookup.v1", {"enp": "1234567890123456"}, Code.BAD_MESSAGE),
        ("patient.lookup.v1", {"age_years": -1}, Code.BAD_MESSAGE),
        ("patient.summary.v1", {}, Code.BAD_MESSAGE),
        ("odd.lookup.v1", {}, Code.UNKNOWN_TYPE),
    ],
)
def test_a_question_without_sense_is_refused_without_its_values(
    bus: Bus, tmp_path: Path, type: str, body: dict[str, Any], code: Code
) -> None:
    async def act(stage: Scene) -> None:
        with pytest.raises(RequestFailed) as refused:
            await ask(stage, type, **body)
        assert refused.value.code == code
        assert not any(str(value) in str(refused.value) for value in body.values())
        assert not (await stage.ledger())["asked"]

    play(bus, tmp_path, act)


@pytest.mark.parametrize(
    "fault",
    [{"down": True}, {"delay_s": 1.0}, {"spoil": "half"}, {"spoil": "cut"}, {"spoil": "html"},
     {"spoil": "encoding"}, {"spoil": "redirect"}, {"fail": 1.0}],
    ids=str,
)  # fmt: skip
def test_a_partner_in_trouble_is_asked_again_and_nothing_is_doubled(
    bus: Bus, tmp_path: Path, fault: dict[str, Any]
) -> None:
    async def act(stage: Scene) -> None:
        await stage.faults(**fault)
        given = message("call.card.v1")
        with pytest.raises(Retry):
            await stage.handle(given)
        with pytest.raises(RequestFailed):
            await ask(stage, "patient.summary.v1", patient=KNOWN[0]["id"])
        await stage.connector.poll()
        calm = dict.fromkeys(fault, 0) | {"down": False} if "spoil" not in fault else {"spoil": ""}
        await stage.faults(**calm)
        await stage.handle(given, attempt=2)
        assert len((await stage.ledger())["entries"]) == 1

    play(bus, tmp_path, act, pace_s=60)
    assert [body["state"] for body in bus.bodies("transfer.state.v1")] == ["accepted"]


def test_a_bus_that_is_away_makes_the_delivery_wait(bus: Bus, tmp_path: Path) -> None:
    async def act(stage: Scene) -> None:
        bus.refuse = Code.STORE_FULL
        with pytest.raises(Retry, match="store_full"):
            await stage.handle(message("call.card.v1"))
        await stage.send("POST", "/rmis/changes", {"changes": []})
        bus.refuse = None
        await stage.handle(message("call.card.v1"), attempt=2)

    play(bus, tmp_path, act, pace_s=60)
    assert len(bus.bodies("transfer.state.v1")) == 1


def test_what_breaks_its_schema_is_told_and_does_not_stand_in_the_way(
    bus: Bus, tmp_path: Path
) -> None:
    good = {"kind": "card", "call_id": "2026-1", "state": "confirmed",
            "at": "2026-11-23T09:20:00+03:00"}  # fmt: skip
    changes = [
        {"id": "c-1", "type": "transfer.state.v1", "body": good | {"state": "Секретов"}},
        {"id": "c-2", "type": "transfer.state.v1", "body": good},
    ]

    async def act(stage: Scene) -> None:
        connector = stage.connector
        assert isinstance(connector, RmisConnector)
        told = msgspec.convert({"changes": changes, "cursor": "2"}, Changes)

        class Told:
            async def changes(self, after: str) -> Changes:
                return told

        connector.dialect = Told()  # type: ignore[assignment]
        connector.memory.note_asked("card", "2026-1", "2026-1", "call-2026-1")
        await connector.poll()
        assert connector.memory.cursor == "2"
        pushed = await stage.send("POST", "/rmis/changes", {"changes": changes[:1]})
        assert pushed.status == 400

    play(bus, tmp_path, act)
    assert len(bus.bodies("transfer.state.v1")) == 1
    paths = [body["path"] for body in bus.bodies("input.rejected.v1")]
    assert paths == ["changes[0].body.state", "state"]
    assert "Секретов" not in str(bus.bodies("input.rejected.v1"))


def test_the_cursor_outlives_the_process(bus: Bus, tmp_path: Path) -> None:
    async def first(stage: Scene) -> None:
        await stage.handle(message("call.ticket.v1"))
        await stage.wait(lambda ledger: not ledger["living"])
        await stage.connector.poll()

    async def second(stage: Scene) -> None:
        connector = stage.connector
        assert isinstance(connector, RmisConnector)
        assert connector.memory.cursor.endswith("-1")
        assert connector.memory.subject_of("2026-4711") == SUBJECT

    play(bus, tmp_path, first)
    play(bus, tmp_path, second)


def test_what_cannot_be_read_is_rejected(bus: Bus, tmp_path: Path) -> None:
    async def act(stage: Scene) -> None:
        for wrong in (Message.new("call.card.v1", "smp", {}), Message.new("odd.v1", "smp", {})):
            with pytest.raises(Reject):
                await stage.handle(wrong)

    play(bus, tmp_path, act)
