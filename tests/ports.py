"""TCP ports of loopback for what a test starts itself.

The ports that the system hands out for outgoing connections are of no use: between asking for one
and listening on it, any client of the same test may be given it. These lie below that range.
"""

import itertools
import os
import socket

PARTS = 4
FIRST, LAST = 12_000, 32_000  # below net.ipv4.ip_local_port_range, which begins at 32768

# Each process of a run in parallel has a part of its own (PYTEST_XDIST_WORKER: gw0, gw1, ...).
_PART = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0")[2:]) % PARTS
_next = itertools.count(os.getpid() * 37)


def free_ports(count: int) -> list[int]:
    """Return `count` ports that nobody listens on; no two answers of one process are alike."""
    found: list[int] = []
    while len(found) < count:
        size = (LAST - FIRST) // PARTS
        port = FIRST + _PART * size + next(_next) % size
        if _can_bind(port):
            found.append(port)
    return found


def free_port() -> int:
    """Return one such port."""
    return free_ports(1)[0]


def _can_bind(port: int) -> bool:
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
        return True
