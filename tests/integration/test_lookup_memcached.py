"""Lookups through a real memcached: shared, stopped, killed, restarted; and through a liar."""

import asyncio
import itertools
import signal
import time
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from connectors.services.lookup import CODE_LIST, NUMBER, PATIENT, CodeList, Lookup, LookupSettings
from connectors.services.lookup.lookup import Load
from connectors.services.lookup.secret import Secret
from proto.schemas import Person
from tests.integration.memcache import Memcache, liar
from tests.until import until

ANNA = Person(family="Вымышленная", given="Анна", snils="00000000017", enp="9900000000000017")
QUESTION = ("enp", "9900000000000017")
# A lookup's own bound is 50 ms; this leaves room for a machine that is busy elsewhere.
BOUND_S = 0.4


@pytest.fixture
def cache() -> Iterator[Memcache]:
    process = Memcache()
    process.start()
    yield process
    process.kill()


@pytest.fixture
def secret(tmp_path: Path) -> Path:
    file = tmp_path / "lookup.secret"
    file.write_text("0123456789abcdef" * 3)
    file.chmod(0o600)
    return file


class Register:
    """The partner: answers, and counts how often it was asked."""

    def __init__(self, answer: Any = ANNA) -> None:
        self.answer = answer
        self.asked = 0

    async def __call__(self) -> Any:
        self.asked += 1
        return self.answer


class Ahead:
    """The wall clock, and how far it was put ahead."""

    def __init__(self) -> None:
        self.by = 0.0

    def __call__(self) -> float:
        return time.time() + self.by


async def patient(lookup: Lookup, load: Load[Person]) -> Person | None:
    return await lookup.get(PATIENT, QUESTION, load)


def play(server: str, secret: Path, act: Callable[[Lookup, Register], Awaitable[None]]) -> None:
    async def whole() -> None:
        lookup = open_lookup(server, secret)
        try:
            await act(lookup, Register())
        finally:
            await lookup.close()

    asyncio.run(whole())


def open_lookup(server: str, secret: Path, clock: Callable[[], float] = time.time) -> Lookup:
    return Lookup(LookupSettings(server=server, secret_file=secret), clock)


async def ask(lookup: Lookup, register: Register, question: tuple[str, ...] = QUESTION) -> int:
    """Ask and get the right answer within the bound; return how often the loop turned meanwhile."""
    beats = 0

    async def beat() -> None:
        nonlocal beats
        while True:
            await asyncio.sleep(0.005)
            beats += 1

    heart = asyncio.create_task(beat())
    began = time.monotonic()
    assert await lookup.get(PATIENT, question, register) == ANNA
    took_s = time.monotonic() - began
    heart.cancel()
    assert took_s < BOUND_S
    return beats


def failures(lookup: Lookup) -> dict[str, int]:
    found: dict[str, int] = lookup.figures()["memcached"]["failures"]
    return found


def test_what_one_process_asked_the_next_finds(cache: Memcache, secret: Path) -> None:
    async def act(first: Lookup, register: Register) -> None:
        await ask(first, register)
        await first.drain()
        second = open_lookup(cache.server, secret)
        await ask(second, register)
        assert register.asked == 1
        assert second.figures()["kinds"]["patient"]["far"] == 1
        await ask(second, register)
        assert second.figures()["kinds"]["patient"]["near"] == 1
        assert failures(second) == {}
        await second.close()

    play(cache.server, secret, act)


def test_of_many_who_ask_at_once_each_process_asks_the_partner_once(
    cache: Memcache, secret: Path
) -> None:
    """Processes know nothing of each other's flights: two that have the same question in the same
    moment ask twice, and whoever comes after an answer asks no more."""

    async def act(first: Lookup, register: Register) -> None:
        second, third = (open_lookup(cache.server, secret) for _ in range(2))
        both, gate = asyncio.Event(), asyncio.Event()

        async def slowly() -> Person | None:
            register.asked += 1
            if register.asked == 2:
                both.set()
            await gate.wait()
            return ANNA

        asks = [patient(one, slowly) for one in (first, second) for _ in range(100)]
        asking = [asyncio.ensure_future(ask) for ask in asks]
        await asyncio.wait_for(both.wait(), 10)
        gate.set()
        assert await asyncio.gather(*asking) == [ANNA] * 200
        assert register.asked == 2
        for one in (first, second):
            row = one.figures()["kinds"]["patient"]
            assert (row["missed"], row["joined"], row["far"]) == (1, 99, 0)
            await one.drain()
        await ask(third, register)
        assert register.asked == 2
        for one in (second, third):
            await one.close()

    play(cache.server, secret, act)


def test_a_correction_reaches_other_processes(cache: Memcache, secret: Path) -> None:
    async def act(first: Lookup, _: Register) -> None:
        clock = Ahead()
        second = open_lookup(cache.server, secret, clock)
        await first.put(NUMBER, ("112", "7"), "4711")
        assert await second.get(NUMBER, ("112", "7"), Register("?")) == "4711"
        await first.put(NUMBER, ("112", "7"), "4712")
        assert await second.get(NUMBER, ("112", "7"), Register("?")) == "4711"
        clock.by = 31.0
        assert await second.get(NUMBER, ("112", "7"), Register("?")) == "4712"
        await first.forget(NUMBER, ("112", "7"))
        clock.by = 62.0
        assert await second.get(NUMBER, ("112", "7"), Register("4713")) == "4713"
        await second.close()

    play(cache.server, secret, act)


def test_keys_and_what_memcached_tells_hold_nothing_of_the_question(
    cache: Memcache, secret: Path
) -> None:
    async def act(lookup: Lookup, register: Register) -> None:
        await ask(lookup, register)
        await ask(lookup, register, ("snils", "00000000017"))
        await lookup.drain()

    play(cache.server, secret, act)
    keys = cache.keys()
    assert len(keys) == 2
    assert not [key for key in keys if "0017" in key or "enp" in key or "patient" in key]


@pytest.mark.fault("S16")
def test_values_are_unreadable_to_whoever_asks_memcached(cache: Memcache, secret: Path) -> None:
    """Any local user may dump what is there: no name, no number, not even the name of a
    field, and never the same bytes for the same answer."""

    async def act(lookup: Lookup, register: Register) -> None:
        await ask(lookup, register)
        await ask(lookup, register, ("snils", "00000000017"))
        await lookup.drain()

    play(cache.server, secret, act)
    first, second = cache.values()
    for told in (first, second):
        for part in ("Вымышленная", "Анна", "00000000017", "family", "snils"):
            assert part.encode() not in told
    assert first != second


def test_a_long_code_list_goes_through(cache: Memcache, secret: Path) -> None:
    rows: dict[str, dict[str, str | None]] = {
        str(n): {"Id": str(n), "Name": f"Диагноз {n}"} for n in range(15_000)
    }
    whole = CodeList(oid="1.2", version="2", name="МКБ", key="Id", title="Name", rows=rows)

    async def act(first: Lookup, _: Register) -> None:
        register = Register(whole)
        await first.get(CODE_LIST, ("1.2",), register)
        await first.drain()
        second = open_lookup(cache.server, secret)
        assert await second.get(CODE_LIST, ("1.2",), register) == whole
        assert register.asked == 1
        await second.close()

    play(cache.server, secret, act)


def test_a_stopped_memcached_is_a_miss_within_its_time(cache: Memcache, secret: Path) -> None:
    async def act(lookup: Lookup, register: Register) -> None:
        await ask(lookup, register)
        await lookup.drain()
        cache.signal(signal.SIGSTOP)
        turns = [await ask(lookup, register, ("enp", str(number))) for number in range(6)]
        assert sum(turns) >= 3  # three waits of 50 ms that the loop did not spend standing still
        await ask(lookup, register)
        assert register.asked == 7
        told = failures(lookup)
        assert told["timeout"] >= 3
        assert told["resting"] >= 1  # and then it costs no time at all
        assert lookup.figures()["memcached"]["answers"] is False
        cache.signal(signal.SIGCONT)
        await answers_again(lookup)

    play(cache.server, secret, act)


async def answers_again(lookup: Lookup) -> None:
    """Ask new questions until memcached is used again."""
    numbers = itertools.count()

    async def answers() -> bool:
        await lookup.get(NUMBER, ("again", str(next(numbers))), Register("7"))
        return bool(lookup.figures()["memcached"]["answers"])

    await until(answers, "memcached to be used again")


def test_a_killed_and_restarted_memcached_is_a_miss_and_then_a_cache_again(
    cache: Memcache, secret: Path
) -> None:
    async def act(lookup: Lookup, register: Register) -> None:
        await ask(lookup, register)
        await lookup.drain()
        cache.kill()
        for number in range(5):
            await ask(lookup, register, ("enp", str(number)))
            await lookup.drain()
        assert failures(lookup)["refused"] >= 1
        await ask(lookup, register)
        assert register.asked == 6  # what this process holds still serves
        cache.start()
        await answers_again(lookup)
        await lookup.put(PATIENT, ("enp", "new"), ANNA)
        other = open_lookup(cache.server, secret)
        await ask(other, register, ("enp", "new"))
        assert register.asked == 6
        await other.close()

    play(cache.server, secret, act)


def test_a_restart_between_two_questions_breaks_only_the_connection(
    cache: Memcache, secret: Path
) -> None:
    async def act(lookup: Lookup, register: Register) -> None:
        await ask(lookup, register)
        await lookup.drain()
        cache.kill()
        cache.start()
        await ask(lookup, register, ("enp", "1"))
        await ask(lookup, register, ("enp", "2"))
        assert register.asked == 3

    play(cache.server, secret, act)


def _drip(request: bytes, send: Callable[[bytes], None]) -> None:
    for _ in range(200):
        send(b"V")
        time.sleep(0.02)


def _flood(request: bytes, send: Callable[[bytes], None]) -> None:
    key = request.split()[1]
    send(b"VALUE " + key + b" 0 999999999999\r\n")
    for _ in range(10_000):
        send(b"x" * 65536)


def _other_key(request: bytes, send: Callable[[bytes], None]) -> None:
    send(b"VALUE other 0 3\r\nabc\r\nEND\r\n")


def _rubbish(request: bytes, send: Callable[[bytes], None]) -> None:
    send(b"VALUE " + request.split()[1] + b" 0 5\r\nhello\r\nEND\r\n")


def _forged(request: bytes, send: Callable[[bytes], None]) -> None:
    forged = Secret(b"somebody else's secret, 32 bytes").seal("k", b"p\x97\x01")
    size = str(len(forged)).encode()
    send(b"VALUE " + request.split()[1] + b" 0 " + size + b"\r\n" + forged + b"\r\nEND\r\n")


def _negative(request: bytes, send: Callable[[bytes], None]) -> None:
    send(b"VALUE " + request.split()[1] + b" 0 -1\r\n")


LIES: dict[str, Callable[[bytes, Callable[[bytes], None]], None]] = {
    "http": lambda _, send: send(b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "error": lambda _, send: send(b"SERVER_ERROR out of memory\r\n"),
    "binary": lambda _, send: send(bytes(range(256)) * 16 + b"\r\n"),
    "empty lines": lambda _, send: send(b"\r\n\r\n\r\n"),
    "two answers": lambda _, send: send(b"END\r\nVALUE a 0 1\r\nx\r\nEND\r\n"),
    "silence": lambda _, send: None,
    "drip": _drip,
    "flood": _flood,
    "another key": _other_key,
    "rubbish": _rubbish,
    "forged": _forged,
    "negative size": _negative,
}


@pytest.mark.parametrize("lie", LIES)
def test_a_liar_is_a_miss_and_never_an_error(lie: str, secret: Path) -> None:
    async def act(lookup: Lookup, register: Register) -> None:
        for number in range(5):
            await ask(lookup, register, ("enp", str(number)))
            await ask(lookup, register, ("enp", str(number)))
        assert register.asked == 5
        figures = lookup.figures()["memcached"]
        assert sum(figures["failures"].values()) + figures["invalid"] > 0

    with liar(LIES[lie]) as server:
        play(server, secret, act)


def test_nothing_is_left_running_when_it_is_closed(cache: Memcache, secret: Path) -> None:
    async def whole() -> None:
        lookup = open_lookup(cache.server, secret)
        begun = asyncio.Event()

        async def slow() -> Person:
            begun.set()
            await asyncio.Event().wait()
            return ANNA

        asking = asyncio.ensure_future(patient(lookup, slow))
        await begun.wait()
        await lookup.close()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert len(asyncio.all_tasks()) == 1

    asyncio.run(whole())
