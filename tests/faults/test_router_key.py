"""Keys that do not fit: the router says so, since a peer hears nothing in such a handshake."""

from typing import Any

import pytest
import zmq

from proto import KeyPair
from tests.integration.bus import RouterProcess
from tests.until import wait_for


@pytest.mark.fault("A20")
@pytest.mark.parametrize(
    ("what", "counter", "said"),
    [("router", "other_router_key", "router.pub"), ("peer", "keys_refused", "bus.keys_dir")],
)
def test_a_key_that_does_not_fit_is_told(what: str, counter: str, said: str) -> None:
    """After a change of the router's key its peers waited for ever, and no log said why; the same
    for a peer whose key is not in the folder."""
    context: zmq.Context[Any] = zmq.Context()
    with RouterProcess() as router:
        key = KeyPair.load(router.keys / "producer.key") if what == "router" else KeyPair.new()
        server = (router.keys / "router.pub").read_bytes().strip()
        before = router.ask("status")["bounds"][counter]
        assert before == 0, "the strangers of the router's self-test are none"
        with context.socket(zmq.DEALER) as socket:
            socket.setsockopt(zmq.LINGER, 0)
            socket.curve_publickey, socket.curve_secretkey = key.public, key.secret
            socket.curve_serverkey = KeyPair.new().public if what == "router" else server
            socket.connect(router.address)
            router.wait_until("status", lambda status: status["bounds"][counter] > before)

            def is_said() -> bool:
                if what == "peer":  # libzmq does not try again after such a refusal
                    socket.disconnect(router.address)
                    socket.connect(router.address)
                return said in router.log.read_text()

            wait_for(is_said, said)
    context.term()
