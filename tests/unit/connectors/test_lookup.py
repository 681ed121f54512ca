"""The lookup layer without memcached: keys, entries, bounds, one flight, stale answers."""

import asyncio
import re
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.services.lookup import CODE_LIST, NUMBER, PATIENT, CodeList, Lookup, LookupSettings
from connectors.services.lookup.entry import Entry, new_entry, pack, seal, unseal
from connectors.services.lookup.figures import Figures
from connectors.services.lookup.kind import KINDS, Kind
from connectors.services.lookup.near import Near
from connectors.services.lookup.secret import PREFIX, Secret
from proto.exits import StartError
from proto.schemas import Person
from tests.until import until

SECRET = Secret(b"s" * 32)
ANNA = Person(family="Вымышленная", given="Анна", enp="9900000000000000")
LIST = CodeList(
    oid="1.2.3",
    version="1.1",
    name="Список",
    key="Id",
    title="Name",
    rows={str(number): {"Id": str(number), "Name": f"Имя {number}"} for number in range(2000)},
)


class Clock:
    """Seconds that pass when told to."""

    def __init__(self) -> None:
        self.now = 1_800_000_000.0

    def __call__(self) -> float:
        return self.now


class Register:
    """A partner that is asked: counts, waits for `gate`, answers or fails."""

    def __init__(self, answer: Any) -> None:
        self.answer = answer
        self.asked = 0
        self.gate = asyncio.Event()
        self.gate.set()

    async def __call__(self) -> Any:
        self.asked += 1
        await self.gate.wait()
        if isinstance(self.answer, Exception):
            raise self.answer
        return self.answer


def play(act: Callable[[Lookup, Clock], Awaitable[None]], **settings: Any) -> None:
    async def whole() -> None:
        clock = Clock()
        lookup = Lookup(LookupSettings(**settings), clock)
        await act(lookup, clock)
        await lookup.close()

    asyncio.run(whole())


# -- keys and entries -----------------------------------------------------------------------------


@given(st.lists(st.text(min_size=4, max_size=30), min_size=1, max_size=4))
def test_a_key_tells_nothing_of_its_question_and_is_a_memcached_key(parts: list[str]) -> None:
    key = SECRET.key("patient", tuple(parts))
    assert re.fullmatch(PREFIX + r"[\w-]{43}", key, re.ASCII)
    assert key == SECRET.key("patient", tuple(parts))
    assert key != SECRET.key("worker", tuple(parts))
    assert key != Secret(b"t" * 32).key("patient", tuple(parts))


@given(st.lists(st.text(max_size=3), max_size=3), st.lists(st.text(max_size=3), max_size=3))
def test_different_questions_have_different_keys(one: list[str], other: list[str]) -> None:
    same = SECRET.key("number", tuple(one)) == SECRET.key("number", tuple(other))
    assert same == (one == other)


def sealed(kind: Kind[Any], value: Any, key: str = "k", now: float = 1000.0) -> bytes:
    return seal(pack(new_entry(kind, value, now, kind.ttl_s), kind), key, SECRET)


@pytest.mark.parametrize(
    ("kind", "value"), [(PATIENT, ANNA), (NUMBER, "2026-4711"), (CODE_LIST, LIST), (PATIENT, None)]
)
def test_an_entry_is_read_back_as_it_was(kind: Kind[Any], value: Any) -> None:
    entry = unseal(sealed(kind, value), kind, "k", SECRET, 1001.0)
    assert entry == new_entry(kind, value, 1000.0, kind.ttl_s)


def test_a_large_list_is_small_in_memcached() -> None:
    assert len(sealed(CODE_LIST, LIST)) * 4 < len(pack(new_entry(CODE_LIST, LIST, 1, 1), CODE_LIST))


def test_what_is_not_this_entry_is_not_read() -> None:
    good = sealed(PATIENT, ANNA)
    other_version = Kind("patient", 2, Person, 60, 60)
    assert unseal(good, PATIENT, "k", SECRET, 1001.0) is not None
    assert unseal(good, PATIENT, "another key", SECRET, 1001.0) is None
    assert unseal(good, PATIENT, "k", Secret(b"t" * 32), 1001.0) is None
    assert unseal(good, other_version, "k", SECRET, 1001.0) is None
    assert unseal(good, PATIENT, "k", SECRET, 1000.0 + PATIENT.ttl_s) is None
    assert unseal(good, PATIENT, "k", SECRET, 0.0) is None  # stored in the future
    assert unseal(sealed(NUMBER, "7"), PATIENT, "k", SECRET, 1001.0) is None  # of another shape
    bomb = SECRET.seal("k", b"z" + b"\x78\x9c")
    assert unseal(bomb, PATIENT, "k", SECRET, 1001.0) is None
    assert unseal(SECRET.seal("k", b"?"), PATIENT, "k", SECRET, 1001.0) is None
    assert unseal(SECRET.seal("k", b""), PATIENT, "k", SECRET, 1001.0) is None
    assert unseal(good[:11], PATIENT, "k", SECRET, 1001.0) is None  # less than a nonce
    assert unseal(b"", PATIENT, "k", SECRET, 1001.0) is None


@given(st.data())
def test_no_changed_byte_is_read(data: st.DataObject) -> None:
    good = bytearray(sealed(PATIENT, ANNA))
    at = data.draw(st.integers(0, len(good) - 1))
    good[at] ^= data.draw(st.integers(1, 255))
    assert unseal(bytes(good), PATIENT, "k", SECRET, 1001.0) is None
    assert unseal(bytes(good[:at]), PATIENT, "k", SECRET, 1001.0) is None


@given(
    st.lists(st.tuples(st.sampled_from("abcdefgh"), st.integers(0, 60), st.booleans()), max_size=80)
)
def test_near_is_bounded_and_counts_its_bytes(steps: list[tuple[str, int, bool]]) -> None:
    near = Near(entries_max=4, bytes_max=100)
    for key, size, put in steps:
        if put:
            near.put(key, Entry("x", 0, 10, 10), size, now=0)
            assert (near.get(key, 1) is not None) == (size <= 100)
        else:
            near.forget(key)
            assert near.get(key, 1) is None
        assert len(near) <= 4
        assert 0 <= near.bytes <= 100
        assert near.bytes == sum(near.size(one) for one in "abcdefgh")
    for key in "abcdefgh":
        assert near.get(key, 10) is None
    assert (len(near), near.bytes) == (0, 0)


def test_figures_tell_rate_and_latency() -> None:
    figures = Figures()
    for _ in range(98):
        figures.count("worker", "near", 0.04)
    figures.count("worker", "missed", 30.0)
    figures.count("worker", "missed", 9999.0)
    row = figures.report()["worker"]
    assert (row["near"], row["missed"], row["hit_rate"]) == (98, 2, 0.98)
    assert (row["p50_ms"], row["p99_ms"]) == (0.05, 30.0)


# -- answers --------------------------------------------------------------------------------------


def test_an_answer_is_asked_for_once_and_again_after_its_time() -> None:
    async def act(lookup: Lookup, clock: Clock) -> None:
        register = Register(ANNA)
        for _ in range(3):
            assert await lookup.get(PATIENT, ("enp", "1"), register) == ANNA
        assert register.asked == 1
        clock.now += PATIENT.ttl_s
        assert await lookup.get(PATIENT, ("enp", "1"), register) == ANNA
        assert register.asked == 2
        row = lookup.figures()["kinds"]["patient"]
        assert (row["near"], row["missed"], row["hit_rate"]) == (2, 2, 0.5)

    play(act)


async def patient(lookup: Lookup, register: Register) -> Person | None:
    return await lookup.get(PATIENT, ("enp", "1"), register)


async def number(lookup: Lookup, register: Register) -> str | None:
    return await lookup.get(NUMBER, ("112", "7"), register)


def test_that_there_is_nobody_is_remembered_briefly() -> None:
    async def act(lookup: Lookup, clock: Clock) -> None:
        register = Register(None)
        assert await lookup.get(PATIENT, ("enp", "1"), register) is None
        assert await lookup.get(PATIENT, ("enp", "1"), register) is None
        assert register.asked == 1
        clock.now += PATIENT.absent_s
        register.answer = ANNA
        assert await lookup.get(PATIENT, ("enp", "1"), register) == ANNA

    play(act)


def test_a_thousand_ask_at_once_and_the_partner_is_asked_once() -> None:
    async def act(lookup: Lookup, _: Clock) -> None:
        register = Register(ANNA)
        register.gate.clear()
        asks = [asyncio.ensure_future(patient(lookup, register)) for _ in range(1000)]
        await until(lambda: register.asked, "the partner to be asked")
        asks[0].cancel()  # whoever goes away takes nobody's answer along
        register.gate.set()
        answers = await asyncio.gather(*asks[1:])
        assert answers == [ANNA] * 999
        assert register.asked == 1
        row = lookup.figures()["kinds"]["patient"]
        assert row["joined"] == 999
        assert row["failed"] == 1

    play(act)


def test_a_failure_of_the_partner_reaches_all_who_wait_and_is_not_kept() -> None:
    async def act(lookup: Lookup, _: Clock) -> None:
        register = Register(ConnectionError("away"))
        asks = [patient(lookup, register) for _ in range(3)]
        answers = await asyncio.gather(*asks, return_exceptions=True)
        assert [type(answer) for answer in answers] == [ConnectionError] * 3
        register.answer = ANNA
        assert await lookup.get(PATIENT, ("enp", "1"), register) == ANNA
        assert register.asked == 2

    play(act)


def test_an_old_code_list_serves_while_the_new_one_is_asked_for() -> None:
    async def act(lookup: Lookup, clock: Clock) -> None:
        register = Register(LIST)
        await lookup.get(CODE_LIST, ("1.2.3",), register)
        await lookup.drain()
        clock.now += CODE_LIST.ttl_s + 1
        register.answer = ConnectionError("away")
        assert await lookup.get(CODE_LIST, ("1.2.3",), register) == LIST
        await lookup.drain()
        assert await lookup.get(CODE_LIST, ("1.2.3",), register) == LIST
        assert register.asked == 2  # a failed renewal is not repeated at every question
        clock.now += 60
        register.answer = newer = CodeList(
            oid="1.2.3", version="1.2", name="n", key="Id", title="Name", rows={}
        )
        assert await lookup.get(CODE_LIST, ("1.2.3",), register) == LIST
        await lookup.drain()
        assert await lookup.get(CODE_LIST, ("1.2.3",), register) == newer
        assert lookup.figures()["kinds"]["code_list"]["stale"] == 2
        clock.now += CODE_LIST.ttl_s + CODE_LIST.stale_s
        register.answer = ConnectionError("away")
        with pytest.raises(ConnectionError):
            await lookup.get(CODE_LIST, ("1.2.3",), register)

    play(act)


def test_what_came_by_itself_is_newer_than_what_is_being_asked_for() -> None:
    async def act(lookup: Lookup, _: Clock) -> None:
        register = Register("old")
        register.gate.clear()
        asking = asyncio.ensure_future(number(lookup, register))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
        await lookup.put(NUMBER, ("112", "7"), "new")
        register.gate.set()
        assert await asking == "old"
        await lookup.drain()
        assert await lookup.get(NUMBER, ("112", "7"), register) == "new"
        await lookup.forget(NUMBER, ("112", "7"))
        register.answer = "newest"
        assert await lookup.get(NUMBER, ("112", "7"), register) == "newest"

    play(act)


def test_the_settings_change_how_long_an_answer_is_fresh() -> None:
    async def act(lookup: Lookup, clock: Clock) -> None:
        register = Register("7")
        await lookup.get(NUMBER, ("a",), register)
        clock.now += 11
        await lookup.get(NUMBER, ("a",), register)
        assert register.asked == 2

    play(act, ttl_s={"number": 10.0})


# -- settings that cannot work --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({"server": "127.0.0.1:11211"}, "secret_file"),
        ({"ttl_s": {"patents": 5.0}}, "patents"),
        ({"server": "127.0.0.1", "secret_file": Path("/dev/null")}, "127.0.0.1"),
        ({"server": ":5", "secret_file": Path("/dev/null")}, "unix:"),
        ({"secret_file": Path("/nowhere/secret")}, "/nowhere/secret"),
    ],
)
def test_a_wrong_setting_is_one_sentence(settings: dict[str, Any], told: str) -> None:
    with pytest.raises(StartError, match=re.escape(told)):
        Lookup(LookupSettings(**settings))


def test_a_secret_is_long_and_its_owners_alone(tmp_path: Path) -> None:
    file = tmp_path / "lookup.secret"
    file.write_text("short")
    file.chmod(0o600)
    with pytest.raises(StartError, match="head -c 32"):
        Secret.load(file)
    file.write_text("x" * 44)
    assert Secret.load(file).key("a", ()) == Secret(b"x" * 44).key("a", ())
    file.chmod(0o640)
    with pytest.raises(StartError, match="chmod 600"):
        Secret.load(file)


def test_every_kind_has_a_name_and_sensible_times() -> None:
    assert len({kind.name for kind in KINDS}) == len(KINDS)
    for kind in KINDS:
        assert 0 < kind.absent_s < kind.ttl_s
        assert kind.ttl_s + kind.stale_s <= 30 * 86_400
