"""РИАМС, which knows no idempotency keys and tells nothing by itself: once in effect yet."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest

from connectors.partners.rmis import RmisConnector, RmisSettings
from connectors.partners.rmis.riams import Riams
from connectors.partners.rmis.riams.numbers import Watch
from connectors.runtime.bus.settings import Loaded, LogSettings, load
from connectors.simulators.kit.people import people
from connectors.simulators.kit.simulation import SimulatorSettings
from connectors.simulators.rmis.riams import SESSION_USES
from connectors.simulators.rmis.simulator import BEDS, create_app
from proto import catalogue
from proto.client import Reject, Retry
from proto.configuration.find import find_table
from proto.errors import Code, RequestFailed
from proto.exits import StartError
from proto.message import Message
from tests.contract.stage import Bus, Scene, scene

KNOWN = people(0)
SOMEBODY = {"enp": KNOWN[1]["enp"]}
SUBJECT = "112-112-99-000001"
BED = {"hospital": "990101", "ward": "99010129", "patient": SOMEBODY}
STREET = {"text": "ул. Вымышленная, д. 1", "house": "1", "street_fias": "f-1"}
VISIT = {"patient": SOMEBODY, "address": STREET}


def play(
    bus: Bus,
    folder: Path,
    act: Callable[[Scene], Awaitable[None]],
    pace_s: float = 0.0,
    login: str = "bus:secret",
    timeout_s: float = 10.0,
    **riams: Any,
) -> None:
    async def whole() -> None:
        simulator = SimulatorSettings(pace_s=pace_s)
        if login:
            riams["login_file"] = folder / "login"
            riams["login_file"].write_text(login)
            riams["login_file"].chmod(0o600)
        partner = {"timeout_s": timeout_s, "breaker": {"failures_max": 99}}
        settings: dict[str, Any] = {"state_file": folder / "numbers.db", "partner": partner}
        settings |= {"dialect": "riams", "riams": riams, "question_timeout_s": 10.0}
        async with scene(bus, RmisConnector, create_app, simulator, **settings) as stage:
            await act(stage)

    asyncio.run(whole())


def message(type: str, **changes: Any) -> Message:
    return Message.new(type, "smp", catalogue.entry(type).example | changes, subject=SUBJECT)


async def ask(stage: Scene, type: str, **body: Any) -> Any:
    connector = stage.connector
    assert isinstance(connector, RmisConnector)
    return await connector.answer(Message.new(type, "smp", body))


def told(bus: Bus, type: str) -> list[Any]:
    """Return what the bus has of `type`: a repeated id is not taken twice."""
    once = {one.id: one for one in bus.accepted if one.type == type}
    for one in once.values():
        catalogue.entry(type).read(one.body)
    return [msgspec.json.decode(one.body) for one in once.values()]


# -- cards --------------------------------------------------------------------------------------


def test_ticket_statuses_and_card_of_a_call_are_one_card(bus: Bus, tmp_path: Path) -> None:
    async def act(stage: Scene) -> None:
        await stage.handle(message("call.ticket.v1"))
        for code, at in (("assigned", "08:16"), ("departed", "08:17"), ("returned", "09:20")):
            given = {"code": code, "occurred_at": f"2026-11-23T{at}:00+03:00", "event_id": code}
            await stage.handle(message("call.status.v1", **given))
        ledger = await stage.ledger()
        (card,) = ledger["riams"]["cards"]
        times = {"TPER": "23.11.2026 08:16", "VYEZ": "23.11.2026 08:17", "TVZV": "23.11.2026 09:20"}
        assert times.items() <= card.items()
        await stage.handle(message("call.card.v1"))
        (card,) = (await stage.ledger())["riams"]["cards"]
        times |= {"TISP": "23.11.2026 09:10", "REZLC": "11", "CITY": "Примерск"}
        assert times.items() <= card.items()
        await stage.connector.poll()
        assert stage.connector.figures()["unconfirmed"]["count"] == 0
        await stage.connector.poll()
        reads = (await stage.ledger())["riams"]["asked"]["getAmbulanceCard"]
        assert reads == 2  # what is confirmed is not looked at again

    play(bus, tmp_path, act)
    states = [(one["kind"], one["state"], one["number"]) for one in told(bus, "transfer.state.v1")]
    assert sorted(states) == [
        (kind, state, "880001")
        for kind in ("card", "ticket")
        for state in ("accepted", "confirmed")
    ]
    assert {one.subject for one in bus.accepted} == {SUBJECT}


@pytest.mark.parametrize("spoil", ["cut", "half", "encoding"])
def test_a_lost_answer_makes_no_second_card(bus: Bus, tmp_path: Path, spoil: str) -> None:
    async def act(stage: Scene) -> None:
        for type in ("call.ticket.v1", "call.card.v1"):
            given = message(type)
            await stage.faults(spoil=spoil)
            with pytest.raises(Retry):
                await stage.handle(given)
            await stage.faults(spoil="")
            await stage.handle(given, attempt=2)
        ledger = await stage.ledger()
        assert (len(ledger["riams"]["cards"]), ledger["repeats"]) == (1, 2)
        await stage.connector.poll()

    play(bus, tmp_path, act)
    # РИАМС says of a repeat only that it has the card: its number stays unknown.
    states = [(one["kind"], one["state"]) for one in told(bus, "transfer.state.v1")]
    assert sorted(states) == [
        (kind, state) for kind in ("card", "ticket") for state in ("accepted", "confirmed")
    ]


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
        given = message("call.card.v1")
        await stage.faults(**fault)
        for attempt in (1, 2):
            with pytest.raises(Retry):
                await stage.handle(given, attempt=attempt)
        with pytest.raises(RequestFailed):
            await ask(stage, "patient.lookup.v1", **SOMEBODY)
        await stage.connector.poll()
        calm = dict.fromkeys(fault, 0) | {"down": False} if "spoil" not in fault else {"spoil": ""}
        await stage.faults(**calm)
        await stage.handle(given, attempt=3)
        assert len((await stage.ledger())["riams"]["cards"]) == 1

    play(bus, tmp_path, act, timeout_s=0.5 if "delay_s" in fault else 10.0)
    assert [one["state"] for one in told(bus, "transfer.state.v1")] == ["accepted"]


def test_a_corrected_number_or_time_is_no_second_card(bus: Bus, tmp_path: Path) -> None:
    later = {"version": 2, "number_year": 4712, "received_at": "2026-11-24T00:05:00+03:00"}

    async def act(stage: Scene) -> None:
        await stage.handle(message("call.ticket.v1"))
        await stage.handle(message("call.ticket.v1", station="3", **later))
        assert len((await stage.ledger())["riams"]["cards"]) == 1

    play(bus, tmp_path, act)


def test_the_key_outlives_the_process(bus: Bus, tmp_path: Path) -> None:
    async def first(stage: Scene) -> None:
        await stage.handle(message("call.ticket.v1"))

    async def second(stage: Scene) -> None:
        await stage.handle(message("call.status.v1"))
        (card,) = (await stage.ledger())["riams"]["cards"]
        assert (card["NGOD"], card["VYEZ"]) == ("4711", "23.11.2026 08:17")

    play(bus, tmp_path, first)
    play(bus, tmp_path, second)


def test_a_status_of_a_call_that_riams_does_not_have_is_a_dead_letter(
    bus: Bus, tmp_path: Path
) -> None:
    async def act(stage: Scene) -> None:
        status = message("call.status.v1")
        with pytest.raises(Reject, match=r"rmis\.no_ticket"):
            await stage.handle(status)
        await stage.faults(refuse=1.0)
        with pytest.raises(Reject):
            await stage.handle(message("call.ticket.v1"))
        await stage.faults(refuse=0.0)
        with pytest.raises(
            Reject, match=r"rmis\.no_ticket"
        ):  # it would make a card of a time alone
            await stage.handle(status, attempt=2)
        assert not (await stage.ledger())["riams"]["cards"]

    play(bus, tmp_path, act)


def test_what_riams_has_no_place_for_is_settled_and_the_note_says_so(
    bus: Bus, tmp_path: Path
) -> None:
    async def act(stage: Scene) -> None:
        await stage.handle(message("call.ticket.v1"))
        for code in ("received", "accepted", "cancelled"):
            note = await stage.handle(message("call.status.v1", code=code, event_id=code))
            assert "rmis.untold" in (note or "")
        assert "rmis.untold" in (await stage.handle(message("hospital.arrival.v1")) or "")
        with pytest.raises(RequestFailed) as refused:
            await ask(stage, "patient.summary.v1", patient="100001")
        assert refused.value.code == Code.UNKNOWN_TYPE
        assert (await stage.ledger())["riams"]["asked"] == {"saveAmbulanceCard": 1}

    play(bus, tmp_path, act)


def test_a_card_that_is_thrown_away_there_is_rejected_with_a_reason(
    bus: Bus, tmp_path: Path
) -> None:
    async def act(stage: Scene) -> None:
        await stage.handle(message("call.card.v1", notes="REJECT"))
        await stage.wait(lambda ledger: not ledger["living"])
        await stage.connector.poll()

    play(bus, tmp_path, act)
    last = told(bus, "transfer.state.v1")[-1]
    assert (last["state"], bool(last["reason"])) == ("rejected", True)


def test_a_refusal_is_told_by_its_code_and_never_by_its_words(bus: Bus, tmp_path: Path) -> None:
    tables = find_table("riams.toml").read_text(encoding="utf-8")
    file = tmp_path / "riams.toml"
    file.write_text(tables.replace('2 = "1"\n3 = ""', '2 = "phone"\n3 = ""', 1), encoding="utf-8")
    got_by = {"code": "2", "system": "1.2.643.5.1.13.13.11.1526"}

    async def act(stage: Scene) -> None:
        with pytest.raises(Reject) as refused:
            await stage.handle(message("call.card.v1", got_by=got_by))
        assert str(refused.value) == "rmis.refused code=1"

    play(bus, tmp_path, act, tables_file=file)


# -- what became of it --------------------------------------------------------------------------


def test_a_confirmation_that_the_bus_did_not_take_is_told_again(bus: Bus, tmp_path: Path) -> None:
    async def act(stage: Scene) -> None:
        await stage.handle(message("call.card.v1"))
        bus.refuse = Code.STORE_FULL
        await stage.connector.poll()
        bus.refuse = None
        assert len(told(bus, "transfer.state.v1")) == 1
        connector = stage.connector
        assert isinstance(connector, RmisConnector)
        await connector.poll()
        # Killed here, it does not know whether the bus took it: the same once more.
        connector.dialect = Riams(connector.partner, connector.settings.riams, connector.memory)
        for _ in range(3):
            await connector.poll()

    play(bus, tmp_path, act)
    states = [body["state"] for body in bus.bodies("transfer.state.v1")]
    assert states == ["accepted", "confirmed", "confirmed"]
    assert len(told(bus, "transfer.state.v1")) == 2


def test_one_that_cannot_be_read_does_not_stand_in_the_way(bus: Bus, tmp_path: Path) -> None:
    async def act(stage: Scene) -> None:
        connector = stage.connector
        assert isinstance(connector, RmisConnector)
        assert isinstance(connector.dialect, Riams)
        for number in range(5):
            connector.dialect._numbers.watch(Watch("card", f"bad-{number}", "c", "x", 1))
        await stage.handle(message("call.card.v1"))
        for _ in range(3):
            await connector.poll()

    play(bus, tmp_path, act, look_max=2)
    assert [one["state"] for one in told(bus, "transfer.state.v1")] == ["accepted", "confirmed"]


# -- questions ----------------------------------------------------------------------------------


def test_who_it_is_by_each_of_the_operations(bus: Bus, tmp_path: Path) -> None:
    one = KNOWN[1]
    names = {key: one[key] for key in ("family", "given")}
    born = {"birth_date": one["birth_date"]}
    home = {"age_years": 60, "street": one["street"], "house": one["house"]}
    asked = {
        "getPersonByPolis": SOMEBODY,
        "getPersonByFIOPolis": SOMEBODY | names | born,
        "getPersonByFIODR": names | born,
        "getPersonByAddress": names | home,
    }

    async def act(stage: Scene) -> None:
        for question in asked.values():
            answer = await ask(stage, "patient.lookup.v1", **question)
            (found,) = answer["patients"]
            assert (answer["outcome"], found["id"]) == ("found", "100001")
            assert (found["birth_date"], found["enp"]) == (one["birth_date"], one["enp"])
        nobody = {"family": "НИКТО", "given": "ИВАН", "birth_date": "1990-01-01"}
        for _ in range(2):
            answer = await ask(stage, "patient.lookup.v1", **nobody)
            assert answer["outcome"] == "not_found"
        seen = (await stage.ledger())["riams"]["asked"]
        assert seen == dict.fromkeys(asked, 1) | {"getPersonByFIODR": 2}
        with pytest.raises(RequestFailed) as refused:  # by СНИЛС alone it knows no way
            await ask(stage, "patient.lookup.v1", snils="00000000017")
        assert refused.value.code == Code.UNKNOWN_TYPE
        # A refusal is not "nobody": a card must not be filed under an unknown patient for it.
        with pytest.raises(RequestFailed, match="код 1") as refused:
            await ask(stage, "patient.lookup.v1", policy_number=" ")
        assert refused.value.code == Code.FAILED

    play(bus, tmp_path, act)


def test_free_beds_of_a_profile(bus: Bus, tmp_path: Path) -> None:
    async def act(stage: Scene) -> None:
        await stage.handle(message("hospital.book.v1", **BED))
        answer = await ask(stage, "hospital.list.v1", profile="29")
        beds = [(one["id"], one["ward"], one["free"]) for one in answer["hospitals"]]
        assert beds == [("990102", "99010229", BEDS), ("990101", "99010129", BEDS - 1)]
        with pytest.raises(RequestFailed):
            await ask(stage, "hospital.list.v1", profile="Кардиология")

    play(bus, tmp_path, act)


# -- beds ---------------------------------------------------------------------------------------


def test_a_bed_is_booked_once_and_names_brigade_and_call(bus: Bus, tmp_path: Path) -> None:
    given = message("hospital.book.v1", **BED)

    async def act(stage: Scene) -> None:
        await stage.handle(message("call.ticket.v1"), 1)
        assert await stage.handle(given, 2) == "booked"
        assert await stage.handle(given, 2, attempt=2) == "booked"
        (bed,) = (await stage.ledger())["riams"]["beds"]
        expected = {"Person_id": "100001", "LpuSection_id": "99010129", "CmpCallCard_id": "880001",
                    "EmergencyData_BrigadeNum": "12", "EmergencyData_CallNum": "4711"}  # fmt: skip
        assert expected.items() <= bed.items()

    play(bus, tmp_path, act)
    assert [one["state"] for one in told(bus, "hospital.booked.v1")] == ["booked"]


@pytest.mark.parametrize("spoil", ["cut", "half", "redirect"])
def test_a_bed_whose_answer_was_lost_is_not_asked_for_again(
    bus: Bus, tmp_path: Path, spoil: str
) -> None:
    given = message(
        "hospital.book.v1", **BED | {"patient": {"id": "100001", "identified_by": "rmis"}}
    )

    async def act(stage: Scene) -> None:
        await stage.faults(spoil=spoil)
        await stage.handle(given)
        await stage.faults(spoil="")
        await stage.handle(given, attempt=2)
        assert len((await stage.ledger())["riams"]["beds"]) == (spoil != "redirect")
        await stage.handle(message("hospital.cancel.v1"), 2)

    play(bus, tmp_path, act)
    lost, kept = told(bus, "hospital.booked.v1")
    assert (lost["state"], "потерян" in lost["reason"]) == ("refused", True)
    assert (kept["state"], "телефону" in kept["reason"]) == ("booked", True)


@pytest.mark.parametrize("fault", [{"down": True}, {"spoil": "html"}], ids=str)
def test_a_bed_that_was_not_asked_for_yet_is_asked_for_later(
    bus: Bus, tmp_path: Path, fault: dict[str, Any]
) -> None:
    given = message("hospital.book.v1", **BED)  # who it is, is asked first

    async def act(stage: Scene) -> None:
        await stage.faults(**fault)
        with pytest.raises(Retry):
            await stage.handle(given)
        await stage.faults(down=False, spoil="")
        assert await stage.handle(given, attempt=2) == "booked"
        assert len((await stage.ledger())["riams"]["beds"]) == 1

    play(bus, tmp_path, act)


def test_a_bed_is_refused_when_there_is_none_and_for_somebody_unknown(
    bus: Bus, tmp_path: Path
) -> None:
    async def act(stage: Scene) -> None:
        for number in range(BEDS + 1):
            booking = message("hospital.book.v1", **BED, booking_id=f"b-{number}")
            await stage.handle(booking, number + 1)
        await stage.handle(message("hospital.book.v1", **BED | {"patient": {}}), 90)
        with pytest.raises(Reject, match="ward"):
            await stage.handle(message("hospital.book.v1", **BED | {"ward": "w"}), 91)
        await stage.handle(message("hospital.cancel.v1", booking_id=f"b-{BEDS}"), 92)
        await stage.handle(message("hospital.cancel.v1", booking_id="b-0"), 93)

    play(bus, tmp_path, act)
    states = [one["state"] for one in told(bus, "hospital.booked.v1")]
    assert states == ["booked"] * BEDS + ["refused", "refused", "cancelled", "booked"]


# -- visits -------------------------------------------------------------------------------------


def test_a_visit_is_asked_for_once_and_its_states_are_told_once_each(
    bus: Bus, tmp_path: Path
) -> None:
    given = message("visit.request.v1", **VISIT)

    def reached(least: str) -> Callable[[Any], bool]:
        return lambda ledger: ledger["riams"]["visits"][0]["HomeVisitStatus_id"] >= least

    async def act(stage: Scene) -> None:
        first = await stage.handle(given)
        assert await stage.handle(given, attempt=2) == first
        for least in ("1", "4", "4"):
            await stage.wait(reached(least))
            await stage.connector.poll()
        await stage.wait(lambda ledger: not ledger["living"])
        for _ in range(3):
            await stage.connector.poll()
        ledger = await stage.ledger()
        (visit,) = ledger["riams"]["visits"]
        assert (visit["Person_id"], visit["HomeVisitCallType_id"]) == ("100001", "2")

    play(bus, tmp_path, act, pace_s=0.2)
    states = [one["state"] for one in told(bus, "visit.state.v1")]
    assert [state for state in states if state != "assigned"] == ["accepted", "done"]
    assert states.count("assigned") <= 1


def test_a_session_that_is_gone_is_opened_anew(bus: Bus, tmp_path: Path) -> None:
    async def act(stage: Scene) -> None:
        await stage.handle(message("visit.request.v1", **VISIT))
        for _ in range(SESSION_USES + 1):
            await stage.connector.poll()
        assert (await stage.ledger())["riams"]["asked"]["mlogin"] == 2

    play(bus, tmp_path, act, pace_s=60)


def test_a_visit_is_refused_with_the_reason_and_untold_without_a_login(
    bus: Bus, tmp_path: Path
) -> None:
    nowhere = VISIT | {"address": {"text": "ул. Вымышленная, д. 1"}}

    async def act(stage: Scene) -> None:
        assert await stage.handle(message("visit.request.v1", **nowhere)) == "refused"

    async def without(stage: Scene) -> None:
        note = await stage.handle(message("visit.request.v1", **VISIT))
        assert "rmis.untold" in (note or "")

    play(bus, tmp_path, act)
    (state,) = told(bus, "visit.state.v1")
    assert (state["state"], "улицу" in state["reason"]) == ("refused", True)
    play(bus, tmp_path, without, login="")


def test_a_wrong_login_keeps_the_visit_waiting(bus: Bus, tmp_path: Path) -> None:
    async def act(stage: Scene) -> None:
        for attempt in (1, 2):
            with pytest.raises(Retry, match=r"rmis\.no_session"):
                await stage.handle(message("visit.request.v1", **VISIT), attempt=attempt)

    play(bus, tmp_path, act, login="bus:")
    assert not told(bus, "visit.state.v1")


# -- under random faults ------------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(2))
def test_whatever_fails_nothing_is_doubled_and_no_answer_is_a_lie(
    bus: Bus, tmp_path: Path, seed: int
) -> None:
    calls = range(4)

    async def settle(stage: Scene, given: Message, id: int) -> None:
        for attempt in range(1, 200):
            try:
                await stage.handle(given, id, attempt)
                return
            except Retry:
                continue
        raise AssertionError("it never came to an end")

    async def act(stage: Scene) -> None:
        await stage.faults(fail=0.4, seed=seed)
        for number in calls:
            one = {"id": f"c-{number}", "number_year": 100 + number}
            steps = [
                message("call.ticket.v1", **one),
                message("call.status.v1", call_id=one["id"], event_id=f"e-{number}"),
                message("hospital.book.v1", **BED, call_id=one["id"], booking_id=f"b-{number}"),
                message("call.card.v1", **one),
                message("visit.request.v1", **VISIT, call_id=one["id"], visit_id=f"v-{number}"),
            ]
            for at, given in enumerate(steps):
                await settle(stage, given, number * 10 + at)
        await stage.faults(fail=0.0)
        for _ in range(2):
            await stage.connector.poll()
        ledger = (await stage.ledger())["riams"]
        assert sorted(card["NGOD"] for card in ledger["cards"]) == [str(100 + n) for n in calls]
        assert all("VYEZ" in card and "REZLC" in card for card in ledger["cards"])
        beds = [bed["EmergencyData_CallNum"] for bed in ledger["beds"]]
        assert len(set(beds)) == len(beds)
        told_beds = {one["booking_id"]: one["state"] for one in told(bus, "hospital.booked.v1")}
        booked = {f"{100 + int(id[2:])}" for id, state in told_beds.items() if state == "booked"}
        assert len(told_beds) == len(calls)
        assert booked <= set(beds)
        accepted = [one for one in told(bus, "visit.state.v1") if one["state"] == "accepted"]
        assert len(accepted) <= len(ledger["visits"]) <= len(calls)

    play(bus, tmp_path, act, pace_s=60)
    confirmed = [one for one in told(bus, "transfer.state.v1") if one["state"] == "confirmed"]
    assert len(confirmed) == 2 * len(calls)


# -- settings -----------------------------------------------------------------------------------


def test_a_clock_that_does_not_exist_is_named_at_the_start(bus: Bus, tmp_path: Path) -> None:
    async def act(stage: Scene) -> None:
        raise AssertionError("it has started")

    with pytest.raises(StartError, match="Урюпинск"):
        play(bus, tmp_path, act, zone="Europe/Урюпинск")


@pytest.mark.parametrize(
    ("fault", "login", "good"),
    [
        ({}, "bus:secret", [True, True, True]),
        ({}, "bus:", [True, True, False]),
        ({"down": True}, "", [True, False]),
    ],
)
def test_the_check_says_whether_tables_and_services_fit(
    bus: Bus, tmp_path: Path, fault: dict[str, Any], login: str, good: list[bool]
) -> None:
    async def act(stage: Scene) -> None:
        await stage.faults(**fault)
        loaded = Loaded(tmp_path, stage.connector.settings, "", None, None, LogSettings())
        found = await RmisConnector.probe("rmis", loaded)
        assert found is not None
        assert [one for one, _ in found] == good

    play(bus, tmp_path, act, login=login)


def test_the_tables_in_the_example_are_valid(tmp_path: Path) -> None:
    example = find_table("connectors.example.toml").read_text(encoding="utf-8")
    start = example.index("# [connectors.rmis.riams]")
    lines = example[start : example.index("# Cached questions", start)].splitlines()
    tables = [line[2:] for line in lines if re.match(r"# (\[|[a-z_]+ = )", line)]
    file = tmp_path / "smpbus.toml"
    head = '[connectors.rmis]\ndialect = "riams"\n[connectors.rmis.partner]\nurl = "http://r"\n'
    file.write_text(head + "\n".join(tables), encoding="utf-8")
    settings = load("rmis", RmisSettings, file).settings
    assert isinstance(settings, RmisSettings)
    assert settings.search is not None
    assert settings.riams.login_file == tmp_path / "riams.password"
