"""РИАМС: the tables are whole, and a call is one card there whatever is told of it."""

import re
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.partners.rmis.riams import card as cards
from connectors.partners.rmis.riams.contract import CARD
from connectors.partners.rmis.riams.tables import load_tables
from proto import catalogue, clinical, schemas
from proto.configuration.find import find_table
from proto.exits import StartError

TABLES = load_tables()
ZONE = ZoneInfo("Asia/Yekaterinburg")
CARD_BODY = catalogue.entry("call.card.v1").example
STATUS_BODY = catalogue.entry("call.status.v1").example
NSI = "1.2.643.5.1.13.13.11."


def a_card(**changes: Any) -> clinical.CallCard:
    return msgspec.convert(CARD_BODY | changes, clinical.CallCard)


def event(code: str, at: str, **changes: Any) -> dict[str, Any]:
    moment = f"2026-11-23T{at}:00+03:00"
    return STATUS_BODY | {"event_id": f"{code}-{at}", "code": code, "occurred_at": moment} | changes


WRONG = {
    "a code is missing": ('[sex]\nmale = "1"\n', "[sex]\n", ("sex", "male")),
    "a code is invented": ("[urgency]\n", '[urgency]\n4 = "4"\n', ("urgency", "4")),
    "a list misses a code": (
        f'[lists."{NSI}1545".codes]\n1 = "21"\n', f'[lists."{NSI}1545".codes]\n',
        (f"lists.{NSI}1545.codes", "1"),
    ),
    "a list has one too many": (
        f'[lists."{NSI}1524".codes]\n', f'[lists."{NSI}1524".codes]\n8 = "x"\n',
        (f"lists.{NSI}1524.codes", "8"),
    ),
    "a status is missing": ('arrived = "PRZD"\n', "", ("statuses", "arrived")),
    "a field is invented": ('"PRZD"', '"PRZ"', ("statuses", "PRZ")),
    "a list is missing": (f'[lists."{NSI}1525"', f'[lists."{NSI}1625"', ("lists", f"{NSI}1525")),
    "a list is invented": (
        "# Order of the call: CLTPC, CLTPS.", '[lists.order]\ncode = "X"\ncodes = {}',
        ("lists", "order"),
    ),
    "it is no TOML": ("[sex]", "[sex", ()),
}  # fmt: skip


@pytest.mark.parametrize("name", WRONG)
def test_a_broken_table_is_named_with_its_file_and_key(name: str, tmp_path: Path) -> None:
    old, new, named = WRONG[name]
    text = find_table("riams.toml").read_text(encoding="utf-8")
    assert old in text
    file = tmp_path / "riams.toml"
    file.write_text(text.replace(old, new), encoding="utf-8")
    with pytest.raises(StartError) as stopped:
        load_tables(file)
    for part in (str(file), *named):
        assert part in str(stopped.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="nowhere"):
        load_tables(tmp_path / "nowhere.toml")


def test_a_card_has_the_fields_of_adis() -> None:
    given = a_card(
        events=[
            event("assigned", "08:15", operator={"login": "disp-2"}),
            event("departed", "08:17"),
            event("departed", "08:19", supersedes="departed-08:17"),
            event("arrived", "08:30"),
        ],
        caller={"phone": "+70000000001", "relation": "жена"},
        delay={"code": "1", "system": f"{NSI}1527"},
        intoxicated=True,
        visit_wanted=True,
    )
    form = cards.of_card(given, TABLES, ZoneInfo("Europe/Moscow"))
    expected = {
        "TPER": "23.11.2026 08:15", "VYEZ": "23.11.2026 08:19", "PRZD": "23.11.2026 08:30",
        "TISP": "23.11.2026 09:10", "DLIT": "55", "DSP2": "disp-2",
        "TELF": "+70000000001", "KTOV": "жена", "CLTPC": "1", "CLTPS": "первичный",
        "PLC": "1", "REZLC": "11", "MEDS": "8001:::1", "INF1": "нет транспорта",
        "FAM": "Вымышленный", "PBDD": "27.05.1984 00:00", "POL": "1", "PPNS": "9947739271000017",
        "DIAGC": "I21.0", "DGUC": "I21.0", "LPUC": "99-0101", "KILO": "14.5",
        "NUMB": "12", "Tabn": "99-000017", "ALK": "1", "POLI": "1", "PRTY": "1",
    }  # fmt: skip
    assert {name: form.get(name) for name in expected} == expected
    assert "REAC" not in form  # the region has not said its code yet


def test_a_code_of_the_region_goes_as_it_is_and_one_of_another_list_does_not() -> None:
    own = a_card(reason={"code": "09Ж", "system": "riams", "text": "Боль в груди"})
    form = cards.of_card(own, TABLES, ZONE)
    assert (form["REAC"], form["REAS"]) == ("09Ж", "Боль в груди")
    # Field 7011 of 99.2.166 says why a call was in vain: its 1 is not the 1 of 11.1545.
    vain = a_card(result={"code": "1", "system": "1.2.643.5.1.13.13.99.2.166"})
    assert "REZLC" not in cards.of_card(vain, TABLES, ZONE)


def test_only_whom_the_hospitals_system_identified_has_its_number() -> None:
    known = {"id": "100017", "identified_by": "rmis"}
    assert cards.of_card(a_card(patients=[known]), TABLES, ZONE)["personID"] == "100017"
    for other in (known | {"identified_by": "tfoms"}, known | {"id": "p-17"}):
        assert "personID" not in cards.of_card(a_card(patients=[other]), TABLES, ZONE)


def test_a_newborn_has_no_age_in_years() -> None:
    baby = {"age": {"value": 7, "unit": "months"}}
    assert "VOZR" not in cards.of_card(a_card(patients=[baby]), TABLES, ZONE)


OFFSETS = st.integers(min_value=-11, max_value=12).map(
    lambda hours: timezone(timedelta(hours=hours))
)
MOMENTS = st.datetimes(
    min_value=datetime(2020, 1, 1), max_value=datetime(2035, 1, 1), timezones=OFFSETS
)
TEXTS = st.text(max_size=30)
PERSONS = st.builds(
    schemas.Person,
    family=st.none() | TEXTS,
    given=st.none() | TEXTS,
    birth_date=st.none() | st.dates(),
    age=st.none() | st.builds(schemas.Age, value=st.integers(0, 1500)),
    sex=st.sampled_from([None, "male", "female", "unknown"]),
    enp=st.none() | TEXTS,
    id=st.none() | TEXTS,
    identified_by=st.sampled_from([None, "rmis"]),
)
CODES = st.builds(
    schemas.Coded,
    code=st.sampled_from(["1", "2", "12", "99", "", "x"]),
    system=st.sampled_from([f"{NSI}{number}" for number in (1524, 1528, 1545, 1551)]),
    text=st.none() | TEXTS,
)
CARDS = st.builds(
    lambda **changes: msgspec.structs.replace(a_card(), **changes),
    received_at=MOMENTS,
    finished_at=MOMENTS,
    patients=st.lists(PERSONS, max_size=2),
    reason=CODES,
    place_type=st.none() | CODES,
    result=CODES,
    form_of_care=st.none() | CODES,
    urgency=st.none() | st.integers(1, 3),
    station=st.none() | TEXTS | st.sampled_from(["3", "017"]),
    brigades=st.lists(st.builds(schemas.Brigade, id=TEXTS), max_size=2),
    address=st.builds(
        schemas.Address, text=TEXTS, entrance=st.none() | st.integers(), flat=st.none() | TEXTS
    ),
    mileage_km=st.none() | st.floats(0, 10_000),
)


@given(CARDS)
def test_whatever_a_card_holds_its_fields_are_those_of_adis_and_of_their_kind(
    given_card: clinical.CallCard,
) -> None:
    key = cards.key_of(given_card, ZONE)
    form = key.form(1) | cards.of_card(given_card, TABLES, ZONE)
    assert set(form) <= set(CARD)
    assert all(form.values())
    for name, value in form.items():
        if CARD[name] == "int":
            assert re.fullmatch(r"-?[0-9]+", value), name
        elif CARD[name] == "time":
            datetime.strptime(value, "%d.%m.%Y %H:%M")
        elif CARD[name] == "float":
            assert float(value) >= 0


@given(CARDS, st.integers(1, 5))
def test_ticket_card_and_status_never_change_the_key(
    given_card: clinical.CallCard, service: int
) -> None:
    form = cards.key_of(given_card, ZONE).form(service)
    for other in (
        cards.of_card(given_card, TABLES, ZONE),
        cards.of_ticket(given_card, TABLES, ZONE),
    ):
        assert not set(form) & set(other)
    assert {"NUMV", "NGOD", "DPRM", "SMPT", "SMPB"} <= set(form)
    assert form.get("STAN") == form.get("STBR")


@given(MOMENTS)
def test_a_time_is_the_regions_whatever_clock_it_was_told_by(at: datetime) -> None:
    told = datetime.strptime(cards.moment(at, ZONE), "%d.%m.%Y %H:%M").replace(tzinfo=ZONE)
    assert timedelta(0) <= at.astimezone(UTC) - told.astimezone(UTC) < timedelta(minutes=1)
