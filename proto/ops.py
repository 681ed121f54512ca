"""The operator's half of the ops socket: one blocking question, one JSON answer.

    ops_request("ipc:///run/smpbus/ops.sock", "trace", subject="112-4711")

The same is one line in any language that has ZeroMQ: a REQ socket, one frame
`{"command": "status"}`, one frame back: `{"ok": true, "result": {...}}` or
`{"ok": false, "code": "...", "sentence": "..."}`.
"""

import errno
import os
import socket
from typing import Any, Final

import msgspec
import zmq

from .nesting import decode_json

UNREACHABLE: Final = "unreachable"
NO_ANSWER: Final = "no_answer"
NOT_PERMITTED: Final = "not_permitted"
FORBIDDEN: Final = "forbidden"
BAD_ANSWER: Final = "bad_answer"
_PROBE_S: Final = 2.0


class OpsError(Exception):
    """No answer, or a negative one.

    `code` is UNREACHABLE (nobody listens there), NOT_PERMITTED (the system forbids the socket),
    NO_ANSWER (somebody listens but is silent), BAD_ANSWER, or what the router answered: FORBIDDEN
    when this user may not ask for that.
    """

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(f"{code}: {sentence}")
        self.code = code
        self.sentence = sentence


def ops_request(
    address: str, command: str, timeout_s: float = 5.0, **args: object
) -> dict[str, Any]:
    """Ask the router at `address` and return the result. Raises OpsError.

    A router that is not there is found at once, not after the time limit.
    """
    address = connectable(address)
    check_reachable(address)
    context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
    question = context.socket(zmq.REQ)
    try:
        question.setsockopt(zmq.LINGER, 0)
        question.setsockopt(zmq.IPV6, int("[" in address))
        question.connect(address)
        question.send(msgspec.json.encode({"command": command, **args}))
        if not question.poll(int(timeout_s * 1000)):
            raise OpsError(NO_ANSWER, f"no answer from {address} in {timeout_s:g} s")
        return _read(question.recv())
    finally:
        question.close(0)
        context.term()


def connectable(address: str) -> str:
    """Return the address to connect to for one that is listened on: * and 0.0.0.0 are here too."""
    for everywhere, here in (("*", "127.0.0.1"), ("0.0.0.0", "127.0.0.1"), ("[::]", "[::1]")):
        address = address.replace(f"tcp://{everywhere}:", f"tcp://{here}:")
    return address


def check_reachable(address: str) -> None:
    """Raise OpsError when the system says that nobody listens at `address`, or forbids it."""
    try:
        if address.startswith("ipc://"):
            path = address.removeprefix("ipc://")
            with socket.socket(socket.AF_UNIX) as probe:
                probe.settimeout(_PROBE_S)
                probe.connect("\0" + path[1:] if path.startswith("@") else path)
        else:
            host, _, port = address.removeprefix("tcp://").rpartition(":")
            socket.create_connection((host.strip("[]"), int(port)), _PROBE_S).close()
    except OSError as error:
        forbidden = error.errno in (errno.EACCES, errno.EPERM)
        reason = os.strerror(error.errno) if error.errno else str(error)
        raise OpsError(NOT_PERMITTED if forbidden else UNREACHABLE, reason) from None


def _read(raw: bytes) -> dict[str, Any]:
    try:
        answer = decode_json(raw, dict[str, Any])
        if answer["ok"]:
            return dict(answer["result"])
        code, sentence = str(answer["code"]), str(answer["sentence"])
    except (msgspec.DecodeError, KeyError, TypeError, ValueError, RecursionError):
        raise OpsError(BAD_ANSWER, "the answer is not what the ops protocol says") from None
    raise OpsError(code, sentence)
