"""Connecting again: paced, told, and without a restart when a key was exchanged."""

import asyncio
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress

import pytest

from proto import attempts
from proto.blocking import BlockingBusClient
from proto.client import BusClient
from proto.errors import NotConnected, RequestFailed
from proto.keys import KeyPair
from tests.integration.bus import RouterProcess
from tests.until import until

WAIT_S = 20.0


class Proxy:
    """A TCP proxy whose server is down: it takes every connection and drops it."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.address = f"tcp://127.0.0.1:{self.listener.getsockname()[1]}"
        self.taken = 0

    def run(self) -> None:
        with suppress(OSError):
            while True:
                channel, _ = self.listener.accept()
                self.taken += 1
                channel.close()


@contextmanager
def dropping() -> Iterator[Proxy]:
    proxy = Proxy()
    thread = threading.Thread(target=proxy.run, daemon=True)
    thread.start()
    try:
        yield proxy
    finally:
        proxy.listener.shutdown(socket.SHUT_RDWR)
        proxy.listener.close()
        thread.join(5)


@pytest.mark.fault("C9")
@pytest.mark.parametrize("blocking", [False, True])
def test_a_proxy_before_a_stopped_router_is_asked_once_a_second(blocking: bool) -> None:
    """Seen: behind a TCP proxy each client connected 20 times a second for ever; the pauses grow to
    a second, and what is known of the reason is said."""
    key, server = KeyPair.new(), KeyPair.new().public
    with dropping() as proxy:
        if blocking:
            script = BlockingBusClient(
                proxy.address, name="smp", key=key, server_key=server, timeout_s=2.5
            )
            with pytest.raises(NotConnected) as caught, script:
                pass
        else:
            bus = BusClient(
                proxy.address, name="smp", key=key, server_key=server, connect_timeout_s=2.5
            )
            with pytest.raises(NotConnected) as caught:
                asyncio.run(enter(bus))
        assert 2 <= proxy.taken <= 12  # 50 without pauses
        assert proxy.address in str(caught.value)
        assert "router.pub" in str(caught.value)


async def enter(bus: BusClient) -> None:
    async with bus:
        pass


@pytest.mark.fault("C9")
def test_the_pauses_grow_and_begin_anew_after_a_good_session_only() -> None:
    """A sibling: a router that welcomes and drops at once was asked without pause as well."""
    pauses = attempts.Pauses()
    at, waited = 0.0, []
    for _ in range(12):  # welcomed each time, and dropped after a tenth of a second
        pauses.welcomed(at)
        waited.append(pauses.lost(at + 0.1))
        at += 1
    assert waited[0] <= attempts.FIRST_S
    assert all(attempts.LONGEST_S / 2 <= pause <= attempts.LONGEST_S for pause in waited[6:])
    pauses.welcomed(at)
    assert pauses.lost(at + attempts.LIVED_S) <= attempts.FIRST_S


@pytest.mark.fault("A20")
def test_an_exchanged_router_key_is_told_and_taken_up_without_a_restart() -> None:
    """Seen: after an exchange of the router's key every connector waited with "does not answer";
    the reason is said, and the file is read again when it has the new key."""

    async def work(router: RouterProcess) -> None:
        async with router.client("producer") as bus:
            public = router.keys / "router.pub"
            old = public.read_bytes()
            await asyncio.to_thread(router.stop)
            for name in ("router.key", "router.pub"):
                (router.keys / name).unlink()
            KeyPair.new().save(router.keys, "router")
            new = public.read_bytes()
            public.write_bytes(old)  # the connector's machine has not got it yet
            await asyncio.to_thread(router.start, False)
            await until(lambda: "router.pub" in bus.trouble)
            assert not bus.connected
            public.write_bytes(new)
            await until(lambda: bus.connected)
            assert bus.trouble == ""
            async with asyncio.timeout(WAIT_S):
                await bus.publish(bus.message("test.message.v1", b"{}"))

    with RouterProcess() as router:
        asyncio.run(work(router))


@pytest.mark.fault("C9")
@pytest.mark.parametrize("timeout_s", [700, 0, -1, float("nan")])
def test_a_question_with_an_absurd_time_limit_is_an_error_of_the_caller(timeout_s: float) -> None:
    """Seen: request(timeout_s=700) was refused by the router, and waited 701 s; it is said at the
    call, and so is a destination that is no name."""

    async def work(router: RouterProcess) -> None:
        async with router.client("producer") as bus:
            question = bus.message("test.question.v1", b"{}")
            with pytest.raises(ValueError, match="may wait up to"):
                await bus.request("sink", question, timeout_s=timeout_s)
            with pytest.raises(ValueError, match="name"):
                await bus.request("No Name", question)
            with pytest.raises(ValueError, match="name"):
                bus.consume("No Name")
            with pytest.raises(ValueError, match="credit"):
                bus.consume("sink", credit=-1)

    with RouterProcess() as router:
        asyncio.run(work(router))


@pytest.mark.fault("C9")
def test_a_process_that_stood_still_does_not_take_the_router_for_lost() -> None:
    """A sibling: two seconds of work on the loop were two seconds of silence, and a good
    session was dropped with all that it held, though the router's words lay there unread."""

    async def work(router: RouterProcess) -> None:
        async with router.client("producer") as bus:
            time.sleep(2.3)  # noqa: ASYNC251  # that is what happens
            async with asyncio.timeout(WAIT_S):
                await bus.publish(bus.message("test.message.v1", b"{}"))
                ticked_at = bus._session._ticked_at
                await until(lambda: bus._session._ticked_at > ticked_at, "its next look round")
            assert bus.reconnects == 0

    with RouterProcess() as router:
        asyncio.run(work(router))


@pytest.mark.fault("C9")
def test_a_question_of_a_script_ends_with_its_session() -> None:
    """A sibling: the blocking client forgot a question that was asked before the greeting, and
    waited out its time for one whose router had gone."""
    with RouterProcess() as router, router.blocking("producer") as script:
        router.stop()
        began = time.monotonic()
        threading.Timer(0.5, router.start, (False,)).start()
        question = script.message("test.question.v1", b"{}")
        codes = []
        for _ in range(2):
            with pytest.raises(RequestFailed) as caught:
                script.request("sink", question, timeout_s=60)
            codes.append(caught.value.code)
        assert codes[-1] == "no_consumer"
        assert time.monotonic() - began < 30
