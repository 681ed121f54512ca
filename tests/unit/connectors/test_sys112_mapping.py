"""System-112's contract and mapping: what comes in, what goes out, what is refused and how."""

from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.partners.sys112 import contract, mapping
from connectors.partners.sys112.words import FINISH, LAST, Words
from connectors.runtime.door.body import BadInput, convert, decode
from connectors.services.vocabulary import load_codes, load_statuses
from connectors.simulators.sys112.samples import Sample, day_of_cards
from proto import catalogue, schemas
from proto.exits import StartError

WORDS = Words()


def sample(kind: str = "new") -> Sample:
    return next(s for s in day_of_cards(7, 60) if s.kind == kind)


def copy(body: dict[str, Any]) -> dict[str, Any]:
    return msgspec.json.decode(msgspec.json.encode(body), type=dict[str, Any])


def read(body: dict[str, Any], id112: str) -> schemas.IncidentCard:
    update = convert(body, contract.UpdateCard)
    contract.check_card(update)
    return mapping.card_in(update, body, WORDS)


@given(st.integers(min_value=0, max_value=9999))
def test_every_sample_of_every_day_fits_but_the_malformed_one(seed: int) -> None:
    for one in day_of_cards(seed, 5):
        if one.operation == "cancel":
            assert convert(one.body, contract.CancelCard).id112 == one.id112
        elif one.kind == "malformed":
            with pytest.raises(BadInput, match="TypeStr"):
                read(one.body, one.id112)
        else:
            card = read(one.body, one.id112)
            entry = catalogue.entry("incident.card.v1")
            assert entry.read(msgspec.json.encode(card)) == card


def test_a_day_has_all_that_life_brings() -> None:
    kinds = {one.kind for one in day_of_cards(1, 200)}
    assert kinds == {"new", "double", "correction", "repeat", "cancel", "malformed"}
    assert day_of_cards(1, 30) == day_of_cards(1, 30)
    assert day_of_cards(1, 30) != day_of_cards(2, 30)


def test_a_child_without_a_name_is_taken_with_its_age_in_months() -> None:
    people = [
        person
        for one in day_of_cards(3, 30, malformed=False)
        if one.operation == "update"
        for person in read(one.body, one.id112).patients
    ]
    nameless = [p for p in people if p.age and p.age.unit == "months"]
    assert nameless
    assert all(p.family is None and p.given is None for p in nameless)


def test_fields_beyond_the_contract_are_kept_by_their_path_and_come_back() -> None:
    one = sample()
    body = copy(one.body)
    body["Card"]["CommonData"]["Wind"] = {"speed": 7}
    body["Card"]["DdsData03"]["ExtPatientPerson"][0]["Pet"] = "кот"
    card = read(body, one.id112)
    assert card.extensions == {
        "Card.CommonData.Wind": {"speed": 7},
        "Card.DdsData03.ExtPatientPerson[0].Pet": "кот",
    }
    fields = msgspec.structs.asdict(card) | {"ext_id": "2026-1"}
    back = mapping.card_out(schemas.CardUpdate(**fields), "SMP", WORDS)
    assert back["Card"]["CommonData"]["Wind"] == {"speed": 7}
    assert back["Card"]["DdsData03"]["ExtPatientPerson"][0]["Pet"] == "кот"
    alone = schemas.CardUpdate(**(fields | {"patients": []}))
    assert mapping.card_out(alone, "SMP", WORDS)["Card"].get("DdsData03", {}).keys() <= {
        "DdsTypeStr", "CallerTypeStr",
    }  # fmt: skip


def test_a_card_sent_back_is_a_card_of_the_contract_with_the_same_meaning() -> None:
    for one in day_of_cards(5, 40, malformed=False):
        if one.operation != "update":
            continue
        card = read(one.body, one.id112)
        fields = msgspec.structs.asdict(card) | {"ext_id": "2026-1"}
        request = msgspec.json.decode(
            msgspec.json.encode(mapping.card_out(schemas.CardUpdate(**fields), card.system, WORDS))
        )
        again = read(request, one.id112)
        for name in ("id112", "incident_type", "patients", "level", "state", "changed_at"):
            assert getattr(again, name) == getattr(card, name)
        assert again.address.geo == card.address.geo


BREAKS: list[tuple[tuple[str, ...], Any, str, str]] = [
    (("SysCode",), None, "SysCode", "is required"),
    (("Card",), None, "Card", "is required"),
    (("Card", "CommonData", "TypeStr"), None, "Card.CommonData.TypeStr", "is required"),
    (("Card", "CommonData", "TypeStr"), 5, "Card.CommonData.TypeStr", "Expected `str`"),
    (("Card", "CommonData", "Level"), 3, "Card.CommonData.Level", "<= 2"),
    (("Card", "IncidentState"), "Иванов", "Card.IncidentState", "not one of the values"),
    (("Card", "Changed"), "2026-11-23T10:00:00", "Card.Changed", "timezone"),
    (("Card", "Changed"), "вчера", "Card.Changed", "RFC3339"),
    (("Card", "Changed"), "2000-01-01T00:00:00Z", "Card.Changed", "before Card.Created"),
    (("Card", "Location"), {}, "Card.Location.Address", "is required"),
    (
        ("Card", "Location"),
        {"Address": {"City": "Примерск"}},
        "Card.Location.Address.CityFiasId",
        "KLADR",
    ),
    (
        ("Card", "Location", "Coords", "Latitude"),
        "91.5",
        "Card.Location.Coords.Latitude",
        "90 degrees",
    ),
    (
        ("Card", "Location", "Coords", "Longitude"),
        "181",
        "Card.Location.Coords.Longitude",
        "180 degrees",
    ),
    (("Ier", "IerType"), 3, "Ier.IerType", "not one of the values"),
    (
        ("Card", "DdsData03", "ExtPatientPerson", "0", "Gender"),
        "Иванова",
        "Card.DdsData03.ExtPatientPerson[0].Gender",
        "not one of the values",
    ),
]


@pytest.mark.parametrize(("steps", "value", "path", "rule"), BREAKS, ids=lambda v: str(v)[:40])
def test_a_refusal_names_the_field_and_the_rule_and_no_value(
    steps: tuple[str, ...], value: Any, path: str, rule: str
) -> None:
    one = sample()
    body = copy(one.body)
    table: Any = body
    for step in steps[:-1]:
        table = table[int(step)] if isinstance(table, list) else table[step]
    if value is None:
        del table[steps[-1]]
    else:
        table[steps[-1]] = value
    with pytest.raises(BadInput) as caught:
        read(body, one.id112)
    assert caught.value.path == path
    assert rule in caught.value.rule
    assert "Иванов" not in caught.value.sentence


@pytest.mark.parametrize("body", [b"", b"{", b"\xff\xfe", b'{"a": "\xff"}', b"[]"])
def test_what_is_not_json_is_bad_input(body: bytes) -> None:
    with pytest.raises(BadInput):
        decode(body, dict[str, Any])


# -- statuses -------------------------------------------------------------------------------------

# What System-112 hears of a brigade's status, of one whose call goes on with another brigade, and
# of one of the polyclinic's urgent care (docs/domain.md 2.3).
EXPECTED: dict[str, tuple[str | None, str | None, str | None]] = {
    "received": (None, None, None),
    "assigned": ("Notification", "Notification", "Notification"),
    "accepted": (None, None, "Solution"),
    "departed": ("Departure", "Departure", None),
    "arrived": ("Arrival", "Arrival", None),
    "transport_started": (None, None, None),
    "at_hospital": (None, None, None),
    "handed_over": ("Solution", "Solution", None),
    "finished": (FINISH, "Solution", FINISH),
    "returned": (None, None, None),
    "refused": (FINISH, FINISH, FINISH),
    "cancelled": ("Canceled", "Solution", "Canceled"),
    "duplicate": (LAST, LAST, LAST),
}
WAYS: list[dict[str, Any]] = [{}, {"goes_on": True}, {"service": "urgent_care"}]


def event(code: str, **changes: Any) -> schemas.StatusEvent:
    example = catalogue.entry("call.status.v1").example | {"code": code, **changes}
    return msgspec.convert(example, schemas.StatusEvent)


def test_every_status_is_expected_here() -> None:
    assert set(EXPECTED) == set(get_args(schemas.StatusCode))


@pytest.mark.parametrize("code", EXPECTED)
def test_a_status_becomes_its_reaction(code: str) -> None:
    for way, expected in zip(WAYS, EXPECTED[code], strict=True):
        status = event(code, **way)
        reaction = WORDS.reaction(status)
        if expected in (None, LAST):
            assert (reaction and reaction.word) == expected
            continue
        assert reaction is not None
        request = mapping.reaction_out(status, "112-99-000001", reaction, "SMP", "Ambulance")
        if expected == FINISH:
            assert isinstance(request, contract.FinishReaction)
            assert request.finish_operator.operator_login == "disp-2"
        else:
            assert isinstance(request, contract.AddReaction)
            assert request.action_type == expected
            assert request.action_time_iso_str == status.occurred_at
            assert request.unit_name == "Бригада 12"
        assert msgspec.json.decode(msgspec.json.encode(request), type=type(request)) == request


def test_a_brigade_taken_off_is_a_solution_with_its_remark_unless_there_is_one() -> None:
    def remark(**changes: Any) -> str | None:
        status = event("cancelled", goes_on=True, **changes)
        reaction = WORDS.reaction(status)
        assert reaction is not None
        request = mapping.reaction_out(status, "1", reaction, "SMP", "Ambulance")
        assert isinstance(request, contract.AddReaction)
        return request.remark

    assert remark() == "Отклонение бригады с вызова"
    assert remark(remark="Поломка машины") == "Поломка машины"


@pytest.mark.parametrize(
    ("file", "told", "instead", "named"),
    [
        ("statuses", 'sys112 = "Departure"', 'sys112 = "Abfahrt"', "chain.departed.sys112"),
        ("statuses", 'sys112_urgent = "last"', 'sys112_urgent = "next"', "chain.duplicate"),
        ("code_systems", 'sys112 = "InWork"', 'sys112 = "Working"', "card_state.in_work"),
        ("code_systems", 'sys112 = "5"', 'sys112 = "-"', r"contact_kind.\*.sys112"),
    ],
)
def test_a_word_that_112_does_not_have_is_named(
    file: str, told: str, instead: str, named: str, tmp_path: Path
) -> None:
    shipped = load_statuses().file.with_name(f"{file}.toml").read_text(encoding="utf-8")
    assert told in shipped
    wrong = tmp_path / f"{file}.toml"
    wrong.write_text(shipped.replace(told, instead), encoding="utf-8")
    codes = load_codes(wrong) if file == "code_systems" else None
    chain = load_statuses(wrong) if file == "statuses" else None
    with pytest.raises(StartError, match=rf"{file}\.toml(, строка [0-9]+)?: {named}"):
        Words(codes, chain)
