"""A partner that serves nobody is told, whatever it answers; one bad message is no outage."""

import asyncio
from collections.abc import Callable

import msgspec
import pytest
from starlette.responses import Response

from connectors.partners.sys112.connector import coded_reply
from connectors.runtime.markup import soap, xml
from connectors.runtime.partner.partner import Answer, Partner, PartnerSettings
from proto.client import Retry
from tests.faults.partnerhouse import Asked, Side, house, page, taken
from tests.until import until

GONE, BACK = "Unable to complete network request", "снова отвечает"
Ask = Callable[[Partner, str], object]


def told(caplog: pytest.LogCaptureFixture) -> str:
    """Return what the administrator was told: "!" gone, "." back."""
    lines = [record.getMessage() for record in caplog.records]
    return "".join("!" if GONE in one else "." for one in lines if GONE in one or BACK in one)


async def _partner(side: Side, then: Callable[[Partner], object]) -> None:
    async with side.listening() as url:
        told = {"url": url, "breaker": {"failures_max": 4, "open_s": 60.0}}
        partner = Partner("test", msgspec.convert(told, PartnerSettings))
        try:
            await then(partner)  # type: ignore[misc]
        finally:
            await partner.close()


async def _post(partner: Partner, key: str) -> Answer:
    return await partner.send("POST", "/", b"{}", key)


async def _code(partner: Partner, key: str) -> object:
    return await partner.ask("POST", "/", b"{}", key, coded_reply)


async def _soap(partner: Partner, key: str) -> object:
    body = xml.parse(b"<Ask/>")
    return await soap.ask(
        partner, "", body, key, lambda call: xml.local(call.body), soap=soap.SOAP11
    )


def _status(status: int) -> Response:
    return Response(status_code=status, headers={"location": "/elsewhere"})


STATUSES = (500, 501, 505, 408, 401, 425, 302)
ANSWERS = [
    *(pytest.param(_post, _status(one), id=str(one)) for one in STATUSES),
    pytest.param(_post, page(403), id="a gateway's page"),
    pytest.param(_code, Response(b'{"Code": "500"}'), id="Code 500 in an answer 200"),
    pytest.param(_code, Response(b"{}"), id="no Code"),
    pytest.param(_soap, Response(soap.fault(soap.SOAP11, "receiver", "-"), 500), id="its Fault"),
]  # fmt: skip


@pytest.mark.fault("A4")
@pytest.mark.parametrize(("ask", "answer"), ANSWERS)
def test_a_partner_that_serves_nobody_is_told_once(
    ask: Ask, answer: Response, caplog: pytest.LogCaptureFixture
) -> None:
    """A partner that answered 500, 501, 505, 408, 401 or a redirect to everything looked well:
    "yes" in `partners`, no line, breaker closed."""
    caplog.set_level("INFO")
    side = Side(lambda _: answer)

    async def act(partner: Partner) -> None:
        for number in range(4):
            assert partner.breaker.closed
            assert partner.outage.up is None
            with pytest.raises(Retry):
                await ask(partner, f"message {number}")  # type: ignore[misc]
        assert not partner.breaker.closed
        assert partner.outage.up is False
        assert partner.tally.failures.total() == 4
        with pytest.raises(Retry):
            await ask(partner, "message 5")  # type: ignore[misc]
        assert len(side.asked) == 4

    asyncio.run(_partner(side, act))
    assert told(caplog) == "!"


@pytest.mark.fault("A4")
@pytest.mark.parametrize(("ask", "answer"), ANSWERS)
def test_one_message_that_fails_again_and_again_is_no_outage(
    ask: Ask, answer: Response, caplog: pytest.LogCaptureFixture
) -> None:
    """One bad message alone must not tell an outage, and neither must several that fail among
    others that are taken."""
    caplog.set_level("INFO")
    side = Side(lambda _: answer)

    async def act(partner: Partner) -> None:
        for _ in range(6):
            with pytest.raises(Retry):
                await ask(partner, "the same")  # type: ignore[misc]
        side.say = lambda _: taken()
        await _post(partner, "good")
        side.say = lambda _: answer
        for number in range(6):
            side.say = lambda _: answer
            with pytest.raises(Retry):
                await ask(partner, f"bad {number}")  # type: ignore[misc]
            if number % 3 == 2:
                side.say = lambda _: taken()
                await _post(partner, f"good {number}")
        assert partner.breaker.closed

    asyncio.run(_partner(side, act))
    assert told(caplog) == ""


@pytest.mark.fault("A4")
def test_what_an_administrator_reads_of_a_partner_that_answers_500(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """One line with the answer when it serves nobody, one when it is back, and all is delivered."""
    caplog.set_level("INFO")
    broken = True

    def say(_: Asked) -> Response:
        return Response(status_code=500) if broken else taken()

    async def act() -> None:
        nonlocal broken
        side = Side(say)
        breaker = {"failures_max": 5, "open_s": 0.2}
        async with house(side, "first_ms = 50, longest_ms = 200", breaker=breaker) as whole:
            for number in range(20):
                await whole.bring(f"card {number}")
            partner = whole.connector.partner
            await until(lambda: partner.outage.up is False, "the outage")
            await until(lambda: len(side.asked) > 15, "probes")
            broken = False

            async def all_settled() -> bool:
                return (await whole.states())["settled"] == 20

            await until(all_settled, "all")
            assert partner.outage.up

    asyncio.run(act())
    assert told(caplog) == "!."
    assert "HTTP 500" in caplog.text
