"""A real router process for many connectors in one event loop, and what they tell the bus."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator, Sequence
from typing import Any

from proto.client import BusClient
from proto.message import Message
from proto.ops import ops_request
from tests.integration.bus import RouterProcess

BACKOFF = "backoff = { attempts_max = 1000, first_ms = 20, factor = 1.0, longest_ms = 20 }"


class Hub:
    """What is brought to connector NAME comes from `to-NAME`; all that it tells is kept here."""

    def __init__(self, router: RouterProcess, senders: dict[str, BusClient]) -> None:
        self.address = router.address
        self.senders = senders
        self.heard: defaultdict[str, list[Message]] = defaultdict(list)  # by who told it
        self._router = router

    async def fate(self, name: str, subject: str) -> Any:
        """Return what an operator sees of the delivery of a subject to connector `name`."""
        story = await asyncio.to_thread(
            ops_request, self._router.ops, "trace", 5.0, subject=subject
        )
        fates = [one for hop in story["messages"] for one in hop["deliveries"]]
        return next(one for one in fates if one["destination"] == name)

    def logs(self) -> str:
        """Return the router's log."""
        return self._router.log.read_text(encoding="utf-8")

    async def listen(self, bus: BusClient) -> None:
        """Keep what the connectors tell."""
        async for delivery in bus.consume("heard", credit=200):
            self.heard[delivery.message.source].append(delivery.message)
            delivery.ack()


def _routes(names: Sequence[str]) -> str:
    return "[destinations.heard]\n" + "".join(
        f"[destinations.{name}]\n{BACKOFF}\n"
        f'[[routes]]\ntype = "*"\nsource = "to-{name}"\nto = ["{name}"]\n'
        f'[[routes]]\ntype = "*"\nsource = "{name}"\nto = ["heard"]\n'
        f'[[routes]]\ntype = "document.timer.v1"\nsource = "{name}"\nto = ["{name}"]\n'
        for name in names
    )


def _permissions(names: Sequence[str]) -> str:
    return '[peers.recorder]\nconsume = ["heard"]\n' + "".join(
        f'[peers.{name}]\npublish = ["*"]\nconsume = ["{name}"]\n'
        f'[peers.to-{name}]\npublish = ["*"]\nask = ["{name}"]\n'
        for name in names
    )


@contextlib.asynccontextmanager
async def hub(names: Sequence[str]) -> AsyncIterator[Hub]:
    """Start a router that brings messages to the connectors `names`, and listen to them."""
    async with contextlib.AsyncExitStack() as stack:
        router = RouterProcess(
            peers=(), routes=_routes(names), permissions=_permissions(names), curve=False
        )
        stack.enter_context(router)
        clients = {name: BusClient(router.address, name=f"to-{name}") for name in names}
        recorder = BusClient(router.address, name="recorder")
        for client in (*clients.values(), recorder):
            await client.start()
            stack.push_async_callback(client.close)
        for client in clients.values():  # a question is not kept for a router that is not there yet
            await client.wait_welcomed()
        whole = Hub(router, clients)
        listening = asyncio.create_task(whole.listen(recorder))
        stack.callback(listening.cancel)
        yield whole
