"""Before a rate limit, or a partner that is slow, the urgent go first."""

import asyncio
import time

import msgspec
import pytest

from connectors.runtime.partner.limiter import Limiter
from connectors.runtime.partner.partner import Partner, PartnerSettings
from connectors.runtime.partner.turns import BULK, EMERGENCY, QUESTION, RANK, Turns
from proto.message import Priority
from tests.faults.partnerhouse import Side, house
from tests.until import until


@pytest.mark.fault("A9")
def test_an_emergency_and_a_question_do_not_wait_behind_a_backlog() -> None:
    """At two requests a second with a backlog an emergency came after 14.5 s, and questions got no
    answer; places are given by priority, questions first."""

    async def act() -> None:
        side = Side()
        async with house(side, rate_per_s=8.0, rate_burst=1) as whole:
            for number in range(60):
                await whole.bring(f"bulk {number}", Priority.BULK)
            await until(lambda: len(side.asked) >= 2, "the backlog to go")
            before = len(side.asked)
            await whole.bring("an emergency", Priority.EMERGENCY)
            asked = asyncio.create_task(
                whole.connector.partner.send("POST", "/", b"a question", "question")
            )
            await until(lambda: b"an emergency" in side.bodies(), "the emergency")
            await asked
            assert side.bodies().index(b"an emergency") - before <= 4
            assert side.bodies().index(b"a question") - before <= 3

    asyncio.run(act())


@pytest.mark.fault("A9")
def test_a_question_does_not_wait_for_a_connection_behind_a_backlog() -> None:
    """Sibling: with every connection to a slow partner in use, a question waited behind whatever
    had come before, and failed as if the partner were silent."""

    async def act() -> None:
        side = Side()
        slow = side.answer

        async def answer(request: object) -> object:
            await asyncio.sleep(0.15)
            return await slow(request)  # type: ignore[arg-type]

        side.answer = answer  # type: ignore[method-assign, assignment]
        async with side.listening() as url:
            told = {"url": url, "connections_max": 1, "timeout_s": 0.5}
            partner = Partner("test", msgspec.convert(told, PartnerSettings))

            async def send(name: str, rank: int) -> None:
                RANK.set(rank)
                await partner.send("POST", "/", name.encode(), name)

            bulk = [asyncio.create_task(send(f"bulk {n}", BULK)) for n in range(8)]
            await until(lambda: side.asked, "the first")
            await send("a question", QUESTION)
            assert side.bodies().index(b"a question") <= 2
            await asyncio.gather(*bulk)
            assert partner.tally.failures.total() == 0
            await partner.close()

    asyncio.run(act())


async def _order(waiting: list[int]) -> list[int]:
    """Return in which order tasks of these ranks, all waiting, get their turn."""
    turns = Turns(1, Limiter(0))
    order: list[int] = []
    go = asyncio.Event()

    async def one(rank: int) -> None:
        RANK.set(rank)
        async with turns.turn():
            await go.wait()
            order.append(rank)

    first = asyncio.create_task(one(BULK))
    await asyncio.sleep(0)
    tasks = [asyncio.create_task(one(rank)) for rank in waiting]
    await asyncio.sleep(0)
    go.set()
    await asyncio.gather(first, *tasks)
    return order[1:]


@pytest.mark.fault("A9")
def test_nobody_starves() -> None:
    """Questions and emergencies take turns, and what is passed over for long goes once."""
    order = asyncio.run(_order([QUESTION] * 50 + [BULK] * 2 + [EMERGENCY] * 50))
    assert order[:4] == [QUESTION, EMERGENCY, QUESTION, EMERGENCY]
    assert order.index(BULK) == 64
    assert asyncio.run(_order([4, 3, 2, 1, 0])) == [0, 1, 2, 3, 4]


@pytest.mark.fault("A9")
def test_a_place_that_nobody_wants_any_more_is_not_lost() -> None:
    """Whoever gives up in the line, or with its turn given, leaves the place to the next."""

    async def act() -> None:
        turns = Turns(1, Limiter(0))
        async with turns.turn():
            waiting = [asyncio.create_task(_pass(turns)) for _ in range(3)]
            await asyncio.sleep(0)
            waiting[1].cancel()
        waiting[0].cancel()  # its turn has come already
        done = await asyncio.gather(*waiting, return_exceptions=True)
        assert done[2] is None
        async with asyncio.timeout(1):
            await _pass(turns)

    asyncio.run(act())


async def _pass(turns: Turns) -> None:
    async with turns.turn():
        pass


@pytest.mark.fault("A9")
def test_the_rate_holds() -> None:
    """However many come at once, no more than the limit go."""

    async def act() -> float:
        turns = Turns(100, Limiter(50.0, 1))
        began = time.monotonic()
        await asyncio.gather(*(_pass(turns) for _ in range(21)))
        return time.monotonic() - began

    assert asyncio.run(act()) >= 0.35
