"""A partner that is dead, hangs or talks nonsense: what a question gets, and what the breaker does.

A real router, the connector of the insurance fund, and a fund that answers as the test says.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import pytest
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.partners.tfoms import TfomsConnector
from connectors.partners.tfoms.connector import TfomsSettings
from connectors.runtime.bus.intake import Intake
from connectors.runtime.door.serving import HttpServer, bind
from connectors.runtime.partner.partner import BadReply, Partner, PartnerSettings
from connectors.runtime.partner.reply import read_reply
from proto import schemas
from proto.client import BusClient, Retry
from proto.errors import RequestFailed
from tests.integration.bus import RouterProcess
from tests.leap import LeapingClock, leaping
from tests.ports import free_port
from tests.until import until

BREAKER = {"failures_max": 2, "open_s": 60.0}
GOOD = b'{"outcome": "not_found"}'


class Fund:
    """The fund's side: counts what it is asked, and says `body` while it `talks`."""

    def __init__(self) -> None:
        self.asked = 0
        self.body = GOOD
        self.talks = asyncio.Event()
        self.talks.set()

    async def answer(self, _: Request) -> Response:
        self.asked += 1
        await self.talks.wait()
        return Response(self.body, media_type="application/json")

    @contextlib.asynccontextmanager
    async def listening(self) -> AsyncIterator[str]:
        """Answer at the URL that is yielded."""
        app = Starlette(routes=[Route("/insured", self.answer, methods=["POST"])])
        port = free_port()
        server = HttpServer(app, bind(f"127.0.0.1:{port}", "test"))
        await server.start()
        try:
            yield f"http://127.0.0.1:{port}"
        finally:
            self.talks.set()
            await server.stop()


@contextlib.asynccontextmanager
async def asking(fund: Fund) -> AsyncIterator[Any]:
    """Yield `ask(policy)`, which puts a question through a router to the fund's connector."""
    routes = '[destinations.tfoms]\n[[routes]]\ntype = "test.*"\nto = ["tfoms"]\n'
    permissions = '[peers.tfoms]\nconsume = ["tfoms"]\n[peers.ward]\nask = ["tfoms"]\n'
    async with contextlib.AsyncExitStack() as stack:
        url = await stack.enter_async_context(fund.listening())
        router = stack.enter_context(
            RouterProcess(peers=("tfoms", "ward"), routes=routes, permissions=permissions)
        )
        bus: BusClient = await stack.enter_async_context(router.client("tfoms"))
        partner = {"url": url, "timeout_s": 0.3, "breaker": BREAKER}
        store = Path(stack.enter_context(tempfile.TemporaryDirectory())) / "cards.db"
        told = {"partner": partner, "store_file": store}
        settings = msgspec.convert(told, TfomsSettings)
        connector = TfomsConnector("tfoms", settings, bus)
        stack.push_async_callback(connector.close)
        intake = Intake.of(connector)
        running = asyncio.create_task(intake.run())
        stack.push_async_callback(asyncio.wait, [running])
        stack.push_async_callback(intake.stop, 0)
        ward = await stack.enter_async_context(router.client("ward"))

        async def ask(policy: str) -> dict[str, Any]:
            question = schemas.InsuranceQuestion(policy_number=policy, on_date=date(2026, 1, 1))
            message = ward.message("insurance.lookup.v1", question)
            reply = await ward.request("tfoms", message, timeout_s=5.0)
            answer: dict[str, Any] = msgspec.json.decode(reply.body)
            return answer

        yield ask


def test_a_question_to_a_partner_that_hangs_fails_at_once_with_the_reason() -> None:
    async def act() -> None:
        fund = Fund()
        async with asking(fund) as ask:
            await ask("known")
            fund.talks.clear()
            for policy in ("1", "2"):
                with pytest.raises(RequestFailed, match="timeout"):
                    await ask(policy)
            asked = fund.asked
            for policy in ("3", "4", "5"):
                with pytest.raises(RequestFailed) as failed:
                    await ask(policy)
                assert failed.value.code == "failed"
                assert "60" in failed.value.sentence  # when it is tried again
            assert fund.asked == asked  # nobody waited for it
            assert (await ask("known"))["outcome"] == "not_found"  # what is cached serves on

    asyncio.run(act())


def test_answers_that_are_not_of_the_contract_open_the_breaker() -> None:
    async def act() -> None:
        fund = Fund()
        fund.body = b"<html>502</html>"
        async with asking(fund) as ask:
            for policy in ("1", "2"):
                with pytest.raises(RequestFailed):
                    await ask(policy)
            asked = fund.asked
            with pytest.raises(RequestFailed, match="60"):
                await ask("3")
            assert fund.asked == asked == 2

    asyncio.run(act())


def test_a_probe_that_is_answered_with_nonsense_does_not_let_the_others_follow() -> None:
    async def act(clock: LeapingClock) -> None:
        fund = Fund()
        async with fund.listening() as url:
            breaker = {"failures_max": 1, "open_s": 30, "open_max_s": 30}
            settings = msgspec.convert({"url": url, "breaker": breaker}, PartnerSettings)
            partner = Partner("fund", settings)
            closed: list[bool] = []
            partner.on_change = lambda: closed.append(partner.breaker.closed)

            async def ask() -> schemas.InsuranceAnswer:
                return await partner.ask(
                    "POST", "/insured", b"{}", "1",
                    lambda answer: read_reply(answer, schemas.InsuranceAnswer),
                )  # fmt: skip

            fund.body = b"null"
            for _ in range(3):
                with pytest.raises(BadReply):
                    await ask()
                with pytest.raises(Retry):
                    await ask()
                clock.leap(30)
            assert closed
            assert not any(closed)
            fund.body = GOOD
            assert (await ask()).outcome == "not_found"
            assert partner.breaker.closed
            await partner.close()

    with leaping() as clock:
        asyncio.run(act(clock))


def test_of_a_partner_that_may_be_back_one_request_finds_out() -> None:
    async def act(clock: LeapingClock) -> None:
        fund = Fund()
        async with fund.listening() as url:
            breaker = {"failures_max": 1, "open_s": 30}
            settings = msgspec.convert(
                {"url": url, "timeout_s": 0.2, "breaker": breaker}, PartnerSettings
            )
            partner = Partner("fund", settings)
            fund.talks.clear()
            with pytest.raises(Retry):
                await partner.send("POST", "/insured", b"{}", "1")
            clock.leap(30)
            asked = fund.asked
            probes = [partner.send("POST", "/insured", b"{}", str(n)) for n in range(10)]
            fund.talks.set()
            answers = await asyncio.gather(*probes, return_exceptions=True)
            assert fund.asked == asked + 1
            assert sum(isinstance(answer, Retry) for answer in answers) == 9
            assert partner.breaker.closed
            # One that is given up takes the place of a probe along, and gives it back.
            fund.talks.clear()
            with pytest.raises(Retry):
                await partner.send("POST", "/insured", b"{}", "2")
            clock.leap(60)  # it rests twice as long after a second failure
            asked = fund.asked
            given_up = asyncio.create_task(partner.send("POST", "/insured", b"{}", "3"))
            await until(lambda: fund.asked > asked, "the probe")
            given_up.cancel()
            await asyncio.gather(given_up, return_exceptions=True)
            fund.talks.set()
            assert (await partner.send("POST", "/insured", b"{}", "4")).status == 200
            await partner.close()

    with leaping() as clock:
        asyncio.run(act(clock))
