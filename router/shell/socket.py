"""The bus socket: one ROUTER, bound to every configured address, set up so that it is safe.

`self_test` proves at every start that a stranger is refused (docs/decisions/0002).
"""

import contextlib
import ctypes
import errno
import os
import socket as posix
import stat
import time
from functools import partial
from pathlib import Path
from typing import Any

import zmq
from zmq.utils.monitor import parse_monitor_message

from proto.exits import EX_UNAVAILABLE, StartError
from proto.keys import KeyPair
from proto.wording import text
from router.shell.keyring import ZAP_DOMAIN

SELF_TEST_S = 5.0


def open_router(
    context: "zmq.Context[Any]",
    key: KeyPair | None,
    frame_bytes_max: int,
    frames_unread_max: int = 8,
) -> "zmq.Socket[bytes]":
    """Return an unbound ROUTER socket; with `key`, only CURVE peers of the keyring get in."""
    shuffle_routing_ids()
    socket: zmq.Socket[bytes] = context.socket(zmq.ROUTER)
    socket.setsockopt(zmq.LINGER, 0)
    socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    socket.setsockopt(zmq.MAXMSGSIZE, frame_bytes_max)
    socket.setsockopt(zmq.HANDSHAKE_IVL, 2000)
    socket.setsockopt(zmq.BACKLOG, 1024)
    socket.setsockopt(zmq.SNDHWM, 10_000)
    socket.setsockopt(zmq.RCVHWM, frames_unread_max)
    if key is not None:
        socket.curve_server = True
        socket.curve_secretkey = key.secret
        socket.curve_publickey = key.public
        socket.zap_domain = ZAP_DOMAIN.encode()
        socket.setsockopt(zmq.ZAP_ENFORCE_DOMAIN, 1)
    return socket


def shuffle_routing_ids() -> None:
    """Let the next ROUTER begin at a routing id nobody can foresee. libzmq draws it from the C
    library's rand(), and sows no seed: it would begin at the same one in every process."""
    seed = ctypes.c_uint(int.from_bytes(os.urandom(4), "little"))
    ctypes.CDLL(None).srand(seed)


def bind(socket: "zmq.Socket[bytes]", address: str, mode: str, where: str) -> str:
    """Bind and return the real address. `where` is the file and key that ask for it.

    Raises StartError, which names the address, the file and the key.
    """
    try:
        if address.startswith("ipc://"):
            _refuse_if_served(Path(address[len("ipc://") :]))
        socket.setsockopt(zmq.IPV6, int("[" in address))
        socket.bind(address)
        if address.startswith("ipc://"):
            os.chmod(address[len("ipc://") :], int(mode, 8))
    except (zmq.ZMQError, OSError) as error:
        raise bind_error(error.errno, address, where) from None
    return socket.getsockopt(zmq.LAST_ENDPOINT).rstrip(b"\0").decode()  # type: ignore[union-attr]


class IpcPath:
    """The file of a bound ipc address. Whoever cleans up a folder may take it away, and nobody
    could connect any more: then it is made anew."""

    def __init__(self, socket: "zmq.Socket[bytes]", address: str, mode: str, where: str) -> None:
        self.path = Path(address.removeprefix("ipc://"))
        self._rebind = partial(bind, socket, address, mode, where)
        self._inode = self._look()

    def mend(self) -> str | None:
        """Bind anew if the file is gone; return the text of what to say, if anything."""
        inode = self._look()
        if inode == self._inode:
            return None
        if inode is not None:  # another's: it is not ours to take away
            self._inode = inode
            return "router.socket_taken"
        try:
            self._rebind()
        except StartError:
            return None  # the folder is not there yet, perhaps
        self._inode = self._look()
        return "router.socket_bound_anew"

    def _look(self) -> int | None:
        try:
            return self.path.stat().st_ino
        except OSError:
            return None


def bind_error(number: int | None, address: str, where: str) -> StartError:
    """Return the error of an address that cannot be listened on."""
    number = number or errno.EINVAL
    reason = os.strerror(number) if number in errno.errorcode else zmq.strerror(number)
    return StartError(
        text("router.bind_failed", number=number, address=address, where=where, reason=reason)
    )


def _refuse_if_served(path: Path) -> None:
    """libzmq takes over an ipc path that another process serves; we do not."""
    if not path.exists():
        return
    if not stat.S_ISSOCK(path.stat().st_mode):
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))
    with (
        posix.socket(posix.AF_UNIX, posix.SOCK_STREAM) as probe,
        contextlib.suppress(ConnectionRefusedError, FileNotFoundError),
    ):
        probe.connect(str(path))
        raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def self_test(context: "zmq.Context[Any]", address: str, server_key: bytes) -> None:
    """Prove that a stranger's key and a client without CURVE are refused. Raises StartError."""
    target = address.replace("://0.0.0.0:", "://127.0.0.1:").replace("://[::]:", "://[::1]:")
    for mechanism in ("CURVE", "NULL"):
        socket = context.socket(zmq.DEALER)
        socket.setsockopt(zmq.LINGER, 0)
        if mechanism == "CURVE":
            stranger = KeyPair.new()
            socket.curve_publickey, socket.curve_secretkey = stranger.public, stranger.secret
            socket.curve_serverkey = server_key
        monitor = socket.get_monitor_socket()
        try:
            socket.setsockopt(zmq.IPV6, int("[" in target))
            socket.connect(target)
            if (fault := _fault(monitor)) is not None:
                sentence = text(fault, address=address, mechanism=mechanism)
                raise StartError(sentence, EX_UNAVAILABLE)
        finally:
            socket.disable_monitor()
            monitor.close(0)
            socket.close(0)


def _fault(monitor: "zmq.Socket[bytes]") -> str | None:
    """Return the text of what is wrong, None when the stranger was refused."""
    deadline = time.monotonic() + SELF_TEST_S
    refusals = (
        zmq.EVENT_HANDSHAKE_FAILED_AUTH,
        zmq.EVENT_HANDSHAKE_FAILED_PROTOCOL,
        zmq.EVENT_HANDSHAKE_FAILED_NO_DETAIL,
    )
    connected = False
    while monitor.poll(max(0, int((deadline - time.monotonic()) * 1000))):
        event = parse_monitor_message(monitor.recv_multipart())["event"]
        connected = connected or event == zmq.EVENT_CONNECTED
        if event == zmq.EVENT_HANDSHAKE_SUCCEEDED:
            return "router.self_test_failed"
        if event in refusals or (connected and event == zmq.EVENT_DISCONNECTED):
            return None
    # A firewall that does not let this server speak to its own address leaves it in the dark.
    return "router.self_test_failed" if connected else "router.self_test_blocked"
