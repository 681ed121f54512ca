"""What both clients of the bus share: their socket, their timeouts, and what they say."""

import logging
import re
from typing import Final, Protocol

import msgspec
import zmq

from . import frames
from .errors import FATAL
from .keys import KeyPair
from .message import NAME_GRAMMAR, NAME_LENGTH_MAX
from .peer import Granting
from .wording import text

encode_json = msgspec.json.Encoder().encode

SOFTWARE: Final = "smpbus-python/1"
PING_AFTER_S: Final = 0.5
LOST_AFTER_S: Final = 2.0
GRANT_AFTER_S: Final = 1.0  # how soon a queue that was not given is asked for again; doubled up to
GRANT_LONGEST_S: Final = 5.0
BYE_MS: Final = 500
LOG: Final = logging.getLogger("smpbus.client")


def configure_dealer(
    socket: "zmq.Socket[bytes]", key: KeyPair | None, server_key: bytes | None
) -> None:
    """Set what every client socket of the bus needs."""
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.SNDHWM, 0)
    socket.setsockopt(zmq.RCVHWM, 0)
    socket.setsockopt(zmq.RECONNECT_IVL, -1)  # see proto/attempts.py
    if key is not None and server_key is not None:
        socket.curve_publickey = key.public
        socket.curve_secretkey = key.secret
        socket.curve_serverkey = server_key


def check_name(destination: str) -> None:
    """Raise ValueError for what cannot be the name of a destination."""
    if len(destination) > NAME_LENGTH_MAX or not re.match(NAME_GRAMMAR, destination):
        raise ValueError("a destination's name is lower case letters, digits, _ and -, at most 64")


def check_question(destination: str, timeout_s: float) -> int:
    """Return the time limit of a question in milliseconds. Raises ValueError."""
    check_name(destination)
    if not 0 < timeout_s <= frames.REQUEST_S_MAX:
        raise ValueError(f"a question may wait up to {frames.REQUEST_S_MAX:g} s, not {timeout_s}")
    return max(1, int(timeout_s * 1000))


def tell_error(error: frames.Error) -> None:
    """Say what the router did not take; queues that it does not give are told by `tell_granting`,
    the end of a session by whoever holds it."""
    if error.verb != "CREDIT" and error.code not in FATAL:
        try:
            meaning = text(f"codes.{error.code}")
        except KeyError:  # of a newer router
            meaning = ""
        fields = {"verb": error.verb, "code": error.code, "sentence": error.sentence}
        LOG.warning(text("client.error", **fields, meaning=meaning).rstrip())


class Named(Protocol):
    """A client of either kind."""

    address: str
    name: str


def tell_granting(client: Named, granting: Granting) -> None:
    """Say which queue the router does not give us, and when it does again."""
    fields = {"queue": granting.destination, "address": client.address, "name": client.name}
    if granting.code:
        LOG.error(text("client.not_given", code=granting.code, **fields))
    else:
        LOG.info(text("client.given", **fields))
