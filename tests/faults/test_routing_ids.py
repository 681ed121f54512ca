"""Routing ids: nobody can foresee them, none that a peer chose is served, and guessing is dear."""

import os
import subprocess
import sys
import time
from typing import Any

import pytest
import zmq

from proto import KeyPair, frames
from proto.frames import PEER_READS
from router.settings import BusSettings
from router.shell.gate import Gate
from router.shell.peers import GUESS_COST, LATE, Peers, learn_first_id
from router.shell.socket import open_router
from tests.integration.bus import RouterProcess
from tests.until import wait_for

FIRST_ID = """
import zmq
from router.shell.peers import learn_first_id
from router.shell.socket import open_router
context = zmq.Context()
socket = open_router(context, None, 1024)
print(learn_first_id(socket).hex())
socket.close(0)
context.term()
"""


class Guesser:
    """Sockets with the key of `name` and routing ids of their own choice."""

    def __init__(self, router: RouterProcess, name: str) -> None:
        self.context: zmq.Context[Any] = zmq.Context()
        self.sockets: list[zmq.Socket[bytes]] = []
        self.key = KeyPair.load(router.keys / f"{name}.key")
        self.server = (router.keys / "router.pub").read_bytes().strip()
        self.address = router.address
        self.hello = [frames.HELLO, frames.encode(frames.Hello([1], name))]

    def greet(self, id: bytes | None = None) -> Any:
        socket: zmq.Socket[bytes] = self.context.socket(zmq.DEALER)
        self.sockets.append(socket)
        if id is not None:
            socket.setsockopt(zmq.ROUTING_ID, id)
        socket.setsockopt(zmq.LINGER, 0)
        socket.curve_publickey, socket.curve_secretkey = self.key.public, self.key.secret
        socket.curve_serverkey = self.server
        socket.connect(self.address)
        socket.send_multipart(self.hello)
        assert socket.poll(5000), "no answer"
        return frames.read(socket.recv_multipart(), PEER_READS)

    def close(self) -> None:
        for socket in self.sockets:
            socket.close(0)
        self.context.term()


@pytest.mark.fault("D1")
def test_two_router_processes_begin_at_different_ids() -> None:
    """libzmq's first id was the same in each process; it has to be one nobody can foresee."""
    begun = [
        subprocess.run([sys.executable, "-c", FIRST_ID], capture_output=True, check=True).stdout
        for _ in range(2)
    ]
    assert begun[0].strip()
    assert begun[0] != begun[1]


@pytest.mark.fault("D1")
def test_a_chosen_id_of_libzmqs_own_form_is_refused_and_guessing_bars_the_key() -> None:
    """Ids of the automatic form were taken from anybody; now each is an error, the connection ends,
    and after a few the key is not listened to at all."""
    with RouterProcess() as router:
        guesser = Guesser(router, "producer")
        try:
            for _ in range(GUESS_COST + 1):
                answer = guesser.greet(b"\0" + os.urandom(4))
                assert isinstance(answer, frames.Error)
                assert answer.code in ("bad_frame", "too_many_errors")
            assert guesser.greet().code == "too_many_errors"
        finally:
            guesser.close()
        found = router.wait_until("status", lambda status: not status["bounds"]["connections"])
        assert found["bounds"]["routing_ids_guessed"] >= GUESS_COST
        assert found["sessions"] == 0
        with router.blocking("consumer"):  # another key has nothing to do with it
            router.wait_until("status", lambda status: status["sessions"] == 1)
        assert "producer" in router.log.read_text()


@pytest.mark.fault("D1")
def test_what_is_for_a_vanished_peer_does_not_reach_who_took_its_id() -> None:
    """A peer's delivery went to a stranger who came with its id; what is sent belongs to the
    connection that spoke, not to its number."""
    context: zmq.Context[Any] = zmq.Context()
    server = open_router(context, None, 1024)
    first_id = learn_first_id(server)
    gate = Gate(server, "test", 100, 60.0)
    peers = Peers(BusSettings(), gate, first_id)
    port = server.bind_to_random_port("tcp://127.0.0.1")

    def speak(id: bytes | None) -> tuple["zmq.Socket[bytes]", list[zmq.Frame]]:
        for _ in range(50):  # libzmq passes by who comes before the old one is cleared away
            socket: zmq.Socket[bytes] = context.socket(zmq.DEALER)
            if id is not None:
                socket.setsockopt(zmq.ROUTING_ID, id)
            socket.connect(f"tcp://127.0.0.1:{port}")
            socket.send(b"here")
            if server.poll(200):
                return socket, server.recv_multipart(copy=False)
            socket.close(0)
        raise AssertionError("not heard")

    try:
        socket, received = speak(None)
        id = received[0].bytes
        peer = peers.meet(id, b"key", received[1])
        assert peers.is_there(peer)
        assert not peers.is_chosen(id)
        socket.close(0)
        wait_for(lambda: not peers.is_there(peer), "its end to be noticed")
        _, received = speak(id)
        assert received[0].bytes == id
        assert not peers.is_there(peer)
        far = (int.from_bytes(first_id[1:], "big") + gate.accepted + LATE + 1) % 2**32
        assert peers.is_chosen(b"\0" + far.to_bytes(4, "big"))
    finally:
        gate.close()
        context.destroy(0)


@pytest.mark.fault("D1")
def test_a_peer_whose_frame_is_faster_than_word_of_its_connection_is_answered() -> None:
    """On a busy machine a first frame may be read before the thread that watches connections has
    had its turn; a peer without a known connection would never be answered."""

    class Late(Gate):
        def _read(self) -> bool:
            # Let the others go first, as a machine that is busy elsewhere does.
            self._guard.release()
            time.sleep(0.05)
            self._guard.acquire()
            return super()._read()

    context: zmq.Context[Any] = zmq.Context()
    server = open_router(context, None, 1024)
    gate = Late(server, "test", 100, 60.0)
    peers = Peers(BusSettings(), gate, learn_first_id(server))
    port = server.bind_to_random_port("tcp://127.0.0.1")
    socket: zmq.Socket[bytes] = context.socket(zmq.DEALER)
    try:
        socket.connect(f"tcp://127.0.0.1:{port}")
        socket.send(b"here")
        assert server.poll(10_000)
        received = server.recv_multipart(copy=False)
        assert peers.is_there(peers.meet(received[0].bytes, b"key", received[1]))
    finally:
        socket.close(0)
        gate.close()
        server.close(0)
        context.term()
