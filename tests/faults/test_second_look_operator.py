"""Addresses of IPv6 at all ends, and an operator's "try now", with a real router."""

import asyncio
import json
import subprocess
from typing import Any

import pytest

from proto import BlockingBusClient, BusClient, Delivery
from tests.integration.bus import SMPBUS, RouterProcess

SLOW = (
    "[destinations.sink]\nbackoff = { first_ms = 600000, longest_ms = 600000 }\n"
    '[destinations.other]\n[[routes]]\ntype = "test.*"\nto = ["sink"]\n'
)


@pytest.mark.fault("C9")
def test_an_address_of_ipv6_serves_at_all_ends() -> None:
    """`tcp://[::1]:PORT` passed the check and failed at bind. The router, its self-test (it starts
    only when a stranger was refused there) and both clients take it."""
    with RouterProcess(tcp="tcp://[::1]:*") as router:
        address = router.tcp()
        assert address.startswith("tcp://[::1]:")
        keys: Any = {"key": router.keys / "producer.key", "server_key": router.keys / "router.pub"}
        with BlockingBusClient(address, name="producer", **keys) as bus:
            bus.publish(bus.message("test.message.v1", {"n": 1}))

        async def take() -> Delivery:
            told: Any = keys | {"key": router.keys / "consumer.key"}
            async with BusClient(address, name="consumer", **told) as bus:
                async for delivery in bus.consume("sink"):
                    delivery.ack()
                    return delivery
            raise AssertionError("nothing came")

        assert asyncio.run(asyncio.wait_for(take(), 20)).message.json() == {"n": 1}


@pytest.mark.fault("A5")
def test_an_operator_tries_again_now() -> None:
    """`smpbus retry DESTINATION [SUBJECT]` brings what waits ten minutes for its next attempt: of
    one subject, or of all; what nobody knows is said."""

    def retry(*arguments: str) -> "subprocess.CompletedProcess[str]":
        command = [SMPBUS, "retry", *arguments, "--config", str(router.config)]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=False)

    def tried(*arguments: str) -> int:
        ended = retry(*arguments, "--json")
        assert ended.returncode == 0, ended.stderr
        return int(json.loads(ended.stdout)["tried"])

    async def act() -> None:
        async with router.client("producer") as bus:
            for subject in ("a", "b", "c"):
                await bus.publish(bus.message("test.message.v1", {}, subject=subject))
        async with router.client("consumer") as bus:
            come: asyncio.Queue[Delivery] = asyncio.Queue()

            async def consume() -> None:
                async for delivery in bus.consume("sink", credit=10):
                    await come.put(delivery)

            consuming = asyncio.create_task(consume())
            for _ in range(3):
                (await come.get()).retry("HTTP 503")
            await asyncio.to_thread(
                router.wait_until, "queues", lambda told: _row(told)["retrying"] == 3
            )
            assert await asyncio.to_thread(tried, "sink", "b") == 1
            again = await asyncio.wait_for(come.get(), 20)
            assert (again.message.subject, again.attempt) == ("b", 2)
            again.ack()
            assert await asyncio.to_thread(tried, "sink", "b") == 0
            assert await asyncio.to_thread(tried, "other") == 0
            assert await asyncio.to_thread(tried, "sink") == 2
            rest = [await asyncio.wait_for(come.get(), 20) for _ in range(2)]
            assert {(one.message.subject, one.attempt) for one in rest} == {("a", 2), ("c", 2)}
            for one in rest:
                one.ack()
            unknown = await asyncio.to_thread(retry, "nowhere")
            assert unknown.returncode != 0
            assert "nowhere" in unknown.stderr
            assert "Traceback" not in unknown.stderr
            consuming.cancel()
            await asyncio.gather(consuming, return_exceptions=True)

    with RouterProcess(routes=SLOW) as router:
        asyncio.run(act())


def _row(told: dict[str, Any]) -> dict[str, Any]:
    return next(row for row in told["queues"] if row["destination"] == "sink")
