"""Messages that a partner cannot take do not keep the others from it."""

import asyncio
from pathlib import Path

import msgspec
import pytest
from starlette.responses import Response

from connectors.partners.sys112 import Sys112Connector
from connectors.partners.sys112.connector import Sys112Settings
from connectors.runtime.partner.breaker import Breaker, BreakerSettings
from connectors.runtime.partner.partner import path_part
from proto import catalogue
from proto.client import BusClient, Delivery, Reject
from proto.message import Message, Priority
from tests.faults.partnerhouse import Asked, Side, house, page, taken
from tests.until import until


@pytest.mark.fault("D5")
@pytest.mark.parametrize("poisoned", [page(404), Response(status_code=502)], ids=["404", "502"])
def test_a_few_bad_messages_do_not_stop_a_healthy_partner(poisoned: Response) -> None:
    """Twelve messages got a gateway's page, the breaker opened and probed with the same twelve: 26
    settled, 206 waited, though the partner took everything else. Sibling: a gateway that breaks."""

    def say(asked: Asked) -> Response:
        return poisoned if asked.body.startswith(b"poison") else taken()

    async def act() -> None:
        side = Side(say)
        breaker = {"failures_max": 5, "open_s": 0.3, "open_max_s": 60.0}
        async with house(side, "first_ms = 50, factor = 1.0", 8, breaker=breaker) as whole:
            for number in range(12):
                await whole.bring(f"poison {number}", Priority.EMERGENCY)
            partner = whole.connector.partner
            await until(lambda: not partner.breaker.closed, "the breaker to open")
            for number in range(60):
                await whole.bring(f"good {number}")

            async def all_settled() -> bool:
                return (await whole.states())["settled"] == 60

            await until(all_settled, "everything else")
            assert (await whole.states())["dead"] == 0

    asyncio.run(act())


@pytest.mark.fault("D5")
def test_a_message_that_failed_while_others_were_taken_says_nothing_of_the_partner() -> None:
    """By the third spell between successes a request is known for what it is."""
    breaker = Breaker(BreakerSettings(failures_max=2))
    for spell in range(5):
        for key in ("a", "b", "c"):
            breaker.failed(0.0, key, answered=True)
        assert breaker.closed == (spell >= 2)
        breaker.succeeded("another")
    assert breaker.is_suspect("a")
    breaker.succeeded("a")
    assert not breaker.is_suspect("a")


@pytest.mark.fault("D5")
def test_what_is_remembered_of_bad_messages_is_bounded() -> None:
    """However many fail."""
    breaker = Breaker(BreakerSettings())
    for number in range(5000):
        breaker.failed(0.0, f"message {number}", answered=True)
    assert sum(breaker.is_suspect(f"message {number}") for number in range(5000)) == 1024


@pytest.mark.fault("D5")
@pytest.mark.parametrize("id112", ["..", ".", "a\nb"])
def test_a_number_cannot_lead_to_another_path(id112: str, tmp_path: Path) -> None:
    """A call whose number was two dots had its reactions sent to another path of the partner."""

    async def act() -> None:
        side = Side(lambda _: Response(b'{"Code": "200"}'))
        async with side.listening() as url:
            told = {"partner": {"url": url}, "state_file": tmp_path / "cards.db"}
            settings = msgspec.convert(told, Sys112Settings)
            bus = BusClient("ipc:///nowhere", name="x")
            connector = Sys112Connector("sys112", settings, bus)
            body = catalogue.entry("call.status.v1").example | {"id112": id112}
            message = Message.new("call.status.v1", "smp", body)
            delivery = Delivery(_Nobody(), 1, 1, message)  # type: ignore[arg-type]
            with pytest.raises(Reject):
                await connector.handle(delivery)
            await connector.close()
            await bus.close()
        assert side.asked == []

    asyncio.run(act())
    with pytest.raises(Reject):
        path_part(id112)


def test_a_part_of_a_path_is_escaped() -> None:
    """Whatever is in it stays in it."""
    assert path_part("112/7 ?#%..;é") == "112%2F7%20%3F%23%25..%3B%C3%A9"


class _Nobody:
    """Whoever would settle."""

    bus = "bus"

    class client:
        bus = "bus"
