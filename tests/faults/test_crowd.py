"""One key with more connections than there is room for: it crowds itself, and nobody else."""

import contextlib
import threading
import time
from collections.abc import Iterator

import pytest
import zmq

from proto import BlockingBusClient, KeyPair, frames
from tests.integration.bus import RouterProcess

ROOM = 64  # connections
CROWD = 120
EACH_S = 2.0  # generous; a pause of 0.2 s for each that came in vain made ten and more of it
PERMISSIONS = (
    '[peers.producer]\npublish = ["test.*"]\n[peers.crowd]\npublish = ["test.*"]\n'
    '[peers.consumer]\nconsume = ["sink"]\n'
)


class Crowd:
    """Connections of one key that greet, and greet again for as long as it lasts."""

    def __init__(self, router: RouterProcess) -> None:
        self._key = KeyPair.load(router.keys / "crowd.key")
        self._server = (router.keys / "router.pub").read_bytes().strip()
        self._address = router.address
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()

    def _run(self) -> None:
        hello = [frames.HELLO, frames.encode(frames.Hello([1], "crowd"))]
        with zmq.Context() as context:
            sockets = [self._connect(context) for _ in range(CROWD)]
            while not self._over.wait(0.05):
                for socket in sockets:
                    with contextlib.suppress(zmq.Again):
                        socket.send_multipart(hello, zmq.DONTWAIT)
            for socket in sockets:
                socket.close(0)

    def _connect(self, context: "zmq.Context[zmq.Socket[bytes]]") -> "zmq.Socket[bytes]":
        socket = context.socket(zmq.DEALER)
        socket.setsockopt(zmq.SNDHWM, 2)
        socket.setsockopt(zmq.RECONNECT_IVL, 100)
        socket.curve_publickey, socket.curve_secretkey = self._key.public, self._key.secret
        socket.curve_serverkey = self._server
        socket.connect(self._address)
        return socket


@pytest.fixture(scope="module")
def crowded() -> Iterator[tuple[RouterProcess, BlockingBusClient]]:
    """A router with a client, and a crowd of one key that comes back for ever."""
    peers = ("producer", "consumer", "crowd")
    bus = f"connections_max = {ROOM}"
    with (
        RouterProcess(peers=peers, permissions=PERMISSIONS, bus=bus) as router,
        router.blocking("producer") as early,
        Crowd(router),
    ):
        router.wait_until("status", lambda told: told["bounds"]["connections_shut"] > CROWD)
        yield router, early


@pytest.mark.fault("siege")
def test_a_crowd_does_not_keep_the_others_waiting(
    crowded: tuple[RouterProcess, BlockingBusClient],
) -> None:
    """Each frame of a connection that was shut out already kept the whole router waiting for
    0.2 s: four hundred sessions of one name stopped it for 16 s."""
    _, bus = crowded
    for number in range(20):
        began = time.monotonic()
        bus.publish(bus.message("test.message.v1", b"%d" % number, subject="call"))
        assert time.monotonic() - began < EACH_S


@pytest.mark.fault("siege")
def test_a_crowd_does_not_shut_others_out(
    crowded: tuple[RouterProcess, BlockingBusClient],
) -> None:
    """A sibling: a crowd with a key held every connection there was, and whoever came anew, a
    connector that had been restarted, was one too many."""
    router, _ = crowded
    for name in ("producer", "consumer"):
        began = time.monotonic()
        with router.blocking(name):
            assert time.monotonic() - began < 5 * EACH_S
    bounds = router.ask("status")["bounds"]
    assert bounds["connections"] <= ROOM
