"""Tell systemd how this process is: the sd_notify protocol, one datagram to $NOTIFY_SOCKET.

States used: READY=1, STOPPING=1, WATCHDOG=1, STATUS=text (several may be joined by a line feed).
"""

import os
import socket


def notify(state: str) -> bool:
    """Send `state`; return whether anybody was told. Never raises: nobody may be listening."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address or address[0] not in "/@":
        return False
    if address[0] == "@":
        address = "\0" + address[1:]  # the abstract namespace of Linux
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as channel:
            channel.setblocking(False)
            channel.sendto(state.encode(), address)
    except OSError:
        return False
    return True
