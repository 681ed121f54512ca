"""A TCP proxy that is not ours (HAProxy) between the clients and the router."""

import asyncio
import contextlib
import csv
import io
import shutil
import socket as posix
import subprocess
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from proto import BusClient
from tests.integration.bus import RouterProcess
from tests.ports import free_ports
from tests.until import wait_for

PATIENCE_S = 30.0
IDLE_S = 2  # the proxy ends a connection on which nothing was said for so long
# A client pauses for half a second to one second between attempts; at 20 a second it would be
# sixty in the same time.
WATCHED_S = 3.0
ATTEMPTS_MAX = 15
SETTINGS = """
global
    maxconn 100
    stats socket {folder}/stats.sock
defaults
    mode tcp
    timeout connect 1s
    timeout client {idle}s
    timeout server {idle}s
    retries 0
frontend bus
    bind 127.0.0.1:{port}
    default_backend router
backend router
    server router {router}
"""


class Proxy:
    """HAProxy on `port` before the router's TCP address."""

    def __init__(self, router: str, folder: Path) -> None:
        (self.port,) = free_ports(1)
        self._folder = folder
        settings = folder / "haproxy.cfg"
        settings.write_text(
            SETTINGS.format(folder=folder, idle=IDLE_S, port=self.port, router=router)
        )
        program = shutil.which("haproxy") or "/usr/sbin/haproxy"
        self._log = (folder / "haproxy.log").open("wb")
        self._process = subprocess.Popen(
            [program, "-db", "-f", str(settings)], stdout=self._log, stderr=self._log
        )
        wait_for(lambda: self._is_up() or self._process.poll() is not None, "haproxy")
        assert self._process.poll() is None, (folder / "haproxy.log").read_text()

    @property
    def address(self) -> str:
        """Where clients connect."""
        return f"tcp://127.0.0.1:{self.port}"

    def connections(self) -> int:
        """Return how many connections it has taken, ever."""
        return int(self._counters()["stot"])

    def _is_up(self) -> bool:
        try:
            self._counters()
        except OSError:
            return False
        return True

    def _counters(self) -> dict[str, str]:
        with posix.socket(posix.AF_UNIX) as asking:
            asking.connect(f"{self._folder}/stats.sock")
            asking.sendall(b"show stat\n")
            said = b"".join(iter(lambda: asking.recv(65536), b"")).decode()
        rows = csv.DictReader(io.StringIO(said.removeprefix("# ").strip()))
        return next(row for row in rows if row["pxname"] == "bus" and row["svname"] == "FRONTEND")

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        self._log.close()


@pytest.fixture
def router() -> Iterator[RouterProcess]:
    """A router with CURVE on one TCP port, which it has again after a restart."""
    (port,) = free_ports(1)
    with RouterProcess(tcp=f"tcp://127.0.0.1:{port}") as running:
        yield running


@pytest.fixture
def proxy(router: RouterProcess) -> Iterator[Proxy]:
    """The proxy before it."""
    running = Proxy(router.tcp().removeprefix("tcp://"), router.folder)
    try:
        yield running
    finally:
        running.close()


@contextlib.asynccontextmanager
async def peers(router: RouterProcess, proxy: Proxy) -> AsyncIterator[tuple[BusClient, BusClient]]:
    """A producer and a consumer that know the proxy's address only."""
    clients = [
        BusClient(
            proxy.address,
            name=name,
            key=router.keys / f"{name}.key",
            server_key=router.keys / "router.pub",
        )
        for name in ("producer", "consumer")
    ]
    async with clients[0] as producer, clients[1] as consumer:
        yield producer, consumer


async def passes(producer: BusClient, deliveries: AsyncIterator[object], body: bytes) -> None:
    """A message comes through, once and acknowledged."""
    await asyncio.wait_for(
        producer.publish(producer.message("test.message.v1", body, subject="call")), PATIENCE_S
    )
    delivery = await asyncio.wait_for(anext(deliveries), PATIENCE_S)
    assert delivery.message.body == body  # type: ignore[attr-defined]
    delivery.ack()  # type: ignore[attr-defined]


@pytest.mark.fault("C9")
def test_peers_return_at_a_bounded_rate_when_the_router_behind_was_away(
    router: RouterProcess, proxy: Proxy
) -> None:
    """The proxy takes every connection and drops it, since nobody is behind it: each client came
    20 times a second for ever. Now it pauses, and is back soon after the router is."""

    async def work() -> None:
        async with peers(router, proxy) as (producer, consumer):
            deliveries = aiter(consumer.consume("sink"))
            await passes(producer, deliveries, b"before")

            router.stop()
            await asyncio.sleep(WATCHED_S)  # the pauses grow to their longest
            seen = proxy.connections()
            await asyncio.sleep(WATCHED_S)
            assert 1 <= proxy.connections() - seen <= ATTEMPTS_MAX

            router.start()
            await passes(producer, deliveries, b"after")

    asyncio.run(work())


def test_a_quiet_consumer_keeps_its_session_through_the_proxy(
    router: RouterProcess, proxy: Proxy
) -> None:
    """The proxy ends what is silent for two seconds: a session with nothing to do is not."""

    async def work() -> None:
        async with peers(router, proxy) as (producer, consumer):
            deliveries = aiter(consumer.consume("sink"))
            await passes(producer, deliveries, b"before")
            seen = proxy.connections()

            await asyncio.sleep(2 * IDLE_S + 1)

            assert proxy.connections() == seen
            await passes(producer, deliveries, b"after")

    asyncio.run(work())


def test_strangers_at_the_proxy_keep_nobody_out(router: RouterProcess, proxy: Proxy) -> None:
    """Connections that are half closed, or say nothing, are ended by the proxy and the router."""
    with contextlib.ExitStack() as stack:
        for turn in range(40):
            stranger = stack.enter_context(posix.create_connection(("127.0.0.1", proxy.port), 5))
            if turn % 2:
                stranger.shutdown(posix.SHUT_WR)

        async def work() -> None:
            async with peers(router, proxy) as (producer, consumer):
                await passes(producer, aiter(consumer.consume("sink")), b"1")

        asyncio.run(work())
    assert router.ask("status")["state"] == "running"
