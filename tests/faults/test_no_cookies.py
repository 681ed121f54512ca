"""What a partner asks us to remember and send back is neither remembered nor sent."""

import asyncio

import pytest
from starlette.responses import Response

from connectors.runtime.partner.http import HttpClient
from tests.faults.partnerhouse import Asked, Side, taken


@pytest.mark.fault("A18")
@pytest.mark.fault("D6")
def test_no_cookie_ever_goes_back() -> None:
    """Every cookie that a partner set was kept without bound and went back: after 20 new ones an
    answer the head of a request had 110 KB in 10 s, and the card door stood still."""

    def say(asked: Asked) -> Response:
        answer = taken()
        for number in range(20):
            answer.set_cookie(f"c{len(side.asked)}-{number}", "x" * 50, max_age=3600)
        return answer

    side = Side(say)

    async def act() -> None:
        async with side.listening() as url, HttpClient(url) as client:
            for _ in range(30):
                await client.request("POST", "/")
            assert len(client._client.cookies.jar) == 0

    asyncio.run(act())
    assert len(side.asked) == 30
    assert not any("cookie" in asked.headers for asked in side.asked)
    assert max(sum(map(len, asked.headers.values())) for asked in side.asked) < 300


@pytest.mark.fault("A18")
def test_a_cookie_of_a_redirect_is_none_either() -> None:
    """Sibling: a redirect, which is not followed, leaves none behind."""

    def say(_: Asked) -> Response:
        answer = Response(status_code=302, headers={"location": "/elsewhere"})
        answer.set_cookie("session", "1")
        return answer

    side = Side(say)

    async def act() -> None:
        async with side.listening() as url, HttpClient(url) as client:
            assert (await client.request("GET", "/")).status == 302
            await client.request("GET", "/")

    asyncio.run(act())
    assert [asked.path for asked in side.asked] == ["/", "/"]
    assert not any("cookie" in asked.headers for asked in side.asked)
