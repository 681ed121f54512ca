"""Parts of connector external and of what it stands on: rules, file, quota, tokens, pages."""

import os
import stat
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st

from connectors.partners.external.checking import CLOCKS_DIFFER, check
from connectors.partners.external.command import external
from connectors.partners.external.connector import ExternalSettings
from connectors.partners.external.contract import Event
from connectors.partners.external.memory import KEPT_S, Call, Memory
from connectors.runtime.bus.settings import load
from connectors.runtime.checks import make_enp, snils_problem
from connectors.runtime.door.body import BadInput
from connectors.runtime.door.docpage import page
from connectors.runtime.door.openapi import Api, Operation, Reply
from connectors.runtime.door.token import TokenFile, digest_of, new_token
from connectors.runtime.partner.limiter import Limiter
from proto.exits import StartError
from proto.external import HandIn
from proto.external_types import HAND_IN
from proto.retention import DAY_S
from proto.schemas import Coded

NOW = datetime(2026, 11, 23, 8, 14, tzinfo=UTC)
CALL = msgspec.convert(HAND_IN, HandIn)
PEOPLE = st.lists(
    st.fixed_dictionaries(
        {},
        optional={
            "snils": st.one_of(st.just("00000000017"), st.text("0123456789", max_size=12)),
            "birth_date": st.dates().map(lambda date: date.isoformat()),
            "family": st.text(max_size=20),
        },
    ),
    max_size=4,
)


# -- rules ----------------------------------------------------------------------------------------


@given(PEOPLE, st.integers(-100, 100))
def test_the_first_broken_rule_is_named_by_its_field_and_never_by_its_value(
    people: list[dict[str, str]], late_min: int
) -> None:
    received = NOW + timedelta(minutes=late_min)
    told = HAND_IN | {"patients": people, "received_at": received.isoformat()}
    call = msgspec.convert(told, HandIn)
    tomorrow = (NOW + timedelta(days=1)).date()
    bad = [
        (index, field)
        for index, person in enumerate(people)
        for field, wrong in (
            ("snils", "snils" in person and snils_problem(person["snils"])),
            ("birth_date", person.get("birth_date", "") > tomorrow.isoformat()),
        )
        if wrong
    ]
    wanted = "received_at" if received > NOW + CLOCKS_DIFFER else None
    if wanted is None and bad:
        wanted = "patients[{}].{}".format(*bad[0])
    if wanted is None:
        check(call, NOW)
        return
    with pytest.raises(BadInput) as refused:
        check(call, NOW)
    assert refused.value.path == wanted
    said = {"is in the future", "is not 11 digits", "has a wrong check digit"}
    assert refused.value.rule in said


def test_somewhere_and_some_reason_are_enough() -> None:
    check(CALL, NOW)
    point = msgspec.structs.replace(CALL.address, text="")
    check(msgspec.structs.replace(CALL, address=point), NOW)
    words = Coded(code="", system="own", text="Плохо человеку")
    check(msgspec.structs.replace(CALL, reason=words), NOW)
    born = datetime(1990, 5, 6, tzinfo=UTC).date()
    person = {"enp": make_enp("99", born, "male", 1), "birth_date": "1990-05-07"}
    wrong = msgspec.convert(HAND_IN | {"patients": [person]}, HandIn)
    with pytest.raises(BadInput, match="another date of birth"):
        check(wrong, NOW)


# -- the file -------------------------------------------------------------------------------------


@pytest.fixture
def memory(tmp_path: Path) -> Iterator[Memory]:
    made = Memory(tmp_path / "calls.db")
    yield made
    made.close()


def call(id: str, at: float, client: str = "medevac") -> Call:
    return Call(f"{client}-{id}", client, id, b"d", None, at, True, None)


def event(id: str, minute: int, code: str = "departed") -> Event:
    at = NOW + timedelta(minutes=minute)
    told = {"number": 0, "event_id": id, "code": code, "occurred_at": at, "recorded_at": at}
    return msgspec.convert(told | {"call_id": "2026-1"}, Event)


@pytest.mark.parametrize("limit", [1, 3])
def test_no_day_has_more_calls_than_it_may(memory: Memory, limit: int) -> None:
    begun, now = 1e9, 1e9
    taken: list[Any] = []
    while now < begun + 3 * DAY_S:
        wait_s = memory.day_wait_s("medevac", limit, now)
        if wait_s:
            assert wait_s <= DAY_S
            assert memory.day_wait_s("medevac", limit, now + wait_s - 1) > 0
            now += wait_s
        else:
            memory.begin(call(f"{len(taken)}", now))
            memory.begin(call(f"{len(taken)}", now, "private"))
            taken.append(now)
            now += 3600
    for moment in taken:
        assert sum(moment <= one < moment + DAY_S for one in taken) <= limit
    assert len(taken) >= 3 * limit


def test_the_newest_status_is_by_time_and_an_event_keeps_its_number(memory: Memory) -> None:
    memory.begin(call("1", 0.0))
    assert memory.state("medevac-1").status is None
    kept = [
        memory.note_event("medevac-1", event("a", 1, "assigned")).number,
        memory.note_event("medevac-1", event("c", 9, "arrived")).number,
        memory.note_event("medevac-1", event("b", 5, "departed")).number,
    ]
    again = memory.note_event("medevac-1", event("c", 20, "returned"))
    assert (again.number, again.code) == (2, "arrived")
    state = memory.state("medevac-1")
    assert (kept, state.status, state.events) == ([1, 2, 3], "arrived", 3)
    assert [one.event_id for one in memory.events("medevac-1", 1, 1)] == ["c"]


def test_old_calls_are_forgotten_with_their_events(memory: Memory) -> None:
    memory.begin(call("old", 1000.0))
    memory.note_event("medevac-old", event("a", 1))
    memory.begin(call("young", 1000.0 + KEPT_S))
    assert memory.call("medevac-old") is not None
    memory.begin(call("new", 1001.0 + KEPT_S))
    assert memory.call("medevac-old") is None
    assert memory.events("medevac-old", 0, 9) == []
    assert memory.call("medevac-young") is not None


def test_a_file_that_cannot_be_is_one_sentence(tmp_path: Path) -> None:
    with pytest.raises(StartError, match="state_file"):
        Memory(tmp_path / "none" / "calls.db")
    (tmp_path / "text.db").write_text("no database, whatever it is called" * 100)
    with pytest.raises(StartError, match="state_file"):
        Memory(tmp_path / "text.db")


# -- quota ----------------------------------------------------------------------------------------


@given(
    st.floats(min_value=0.1, max_value=100),
    st.integers(min_value=1, max_value=20),
    st.lists(st.floats(min_value=0, max_value=5), min_size=1, max_size=100),
)
def test_who_is_refused_takes_no_place_and_is_let_in_when_told(
    per_s: float, burst: int, gaps: list[float]
) -> None:
    limiter, now, admitted = Limiter(per_s, burst), 0.0, []
    for gap in gaps:
        now += gap
        for _ in range(3):
            wait_s = limiter.admit(now)
            if wait_s:
                assert limiter.admit(now) == wait_s  # asking costs nothing
            else:
                admitted.append(now)
    for index, moment in enumerate(admitted):
        later = admitted[index : index + burst + 1]
        if len(later) > burst:
            assert later[-1] - moment > 1 / per_s - 1e-6
    if wait_s := limiter.admit(now):
        assert limiter.admit(now + wait_s + 1e-6) == 0


# -- tokens ---------------------------------------------------------------------------------------


def test_a_token_is_printed_once_and_only_its_digest_is_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = tmp_path / "smpbus.toml"
    config.write_text(
        '[connectors.external]\n[connectors.external.clients.medevac]\ntoken_file = "k/m.token"\n'
    )
    monkeypatch.setenv("SMPBUS_CONFIG", str(config))
    file = tmp_path / "k" / "m.token"

    def run(*arguments: str) -> tuple[int, str, str]:
        done = CliRunner().invoke(external, ["token", *arguments])
        return done.exit_code, done.stdout.strip(), done.stderr

    code, first, said = run("medevac")
    assert code == 0
    assert str(file) in said
    assert first not in said
    assert first not in file.read_text()
    assert stat.S_IMODE(file.stat().st_mode) == 0o644
    code, _, said = run("medevac")
    assert code == os.EX_USAGE
    assert "--add" in said
    second = run("medevac", "--add")[1]
    both = TokenFile(file)
    assert both.admits(digest_of(first))
    assert both.admits(digest_of(second))
    third = run("medevac", "--replace")[1]
    assert TokenFile(file).admits(digest_of(third))
    assert not TokenFile(file).admits(digest_of(first))
    code, _, said = run("stranger")
    assert code == os.EX_USAGE
    assert "medevac" in said
    other = tmp_path / "smp.token"
    fourth = run("smp", "--file", str(other))[1]
    assert TokenFile(other).admits(digest_of(fourth))
    code, _, said = run("smp", "--file", str(config / "x"))
    assert code == os.EX_CANTCREAT
    assert said.startswith("ОШИБКА: ")


def test_tokens_are_long_and_never_the_same() -> None:
    tokens = {new_token() for _ in range(1000)}
    assert len(tokens) == 1000
    assert min(map(len, tokens)) >= 43  # 256 bits


# -- settings -------------------------------------------------------------------------------------


def test_the_example_of_the_settings_is_valid_and_names_its_files(tmp_path: Path) -> None:
    example = Path(__file__).parents[3] / "config" / "connectors.example.toml"
    settings = load("external", ExternalSettings, example).settings
    assert isinstance(settings, ExternalSettings)
    client = settings.clients["medevac"]
    assert client.token_file == example.parent / "keys" / "medevac.token"
    assert client.webhook is not None
    assert client.webhook.secret_file == example.parent / "keys" / "medevac.webhook"
    wrong = tmp_path / "smpbus.toml"
    for told, named in (
        ('[connectors.external.clients.Medevac]\ntoken_file = "x"\n', "clients"),
        ("[connectors.external.clients.medevac]\n", "token_file"),
        ('[connectors.external.clients.a]\ntoken_file = "x"\nquota = 1\n', "quota"),
    ):
        wrong.write_text(f"[connectors.external]\n{told}")
        with pytest.raises(StartError, match=r"connectors\.external") as caught:
            load("external", ExternalSettings, wrong)
        assert named in caught.value.sentence


# -- documents ------------------------------------------------------------------------------------


class Shape(msgspec.Struct):
    """A <b>shape</b>."""

    field: str
    several: list[int] = []


def test_whatever_a_document_says_the_page_shows_it_as_text() -> None:
    evil = "<script>alert('x')</script>"
    one = Operation(
        "do", "POST", "/do/{id}", evil, evil,
        (Reply(200, evil, Shape, {"field": evil}), Reply(404, "gone", Shape)),
        Shape, {"field": evil}, description=evil,
    )  # fmt: skip
    api = Api("Title & more", "1", evil, [one], token=evil, webhooks=[one])
    document = api.document()
    words = page(document)
    assert "<script" not in words
    assert "&lt;script&gt;" in words
    assert "<b>shape" not in words
    assert document["components"]["schemas"].keys() == {"Shape"}
    assert document["webhooks"]["/do/{id}"]["post"]["security"] == []
