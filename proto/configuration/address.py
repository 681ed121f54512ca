"""Addresses the router may listen on: which are well formed, and which leave this machine."""

import ipaddress
import re
from typing import Final

IPC_PATH_BYTES_MAX: Final = 107  # sun_path of Linux less its closing zero byte
_TCP: Final = re.compile(r"tcp://(\*|\[[0-9a-fA-F:.%]+\]|[A-Za-z0-9._-]+):([0-9]{1,5}|\*)")
_HTTP: Final = re.compile(r"(\[[0-9a-fA-F:.]+\]|[A-Za-z0-9._-]+):([0-9]{1,5})")


def fault_of(address: str) -> str | None:
    """Return the text key ("config.address_...") of what is wrong with a ZeroMQ address."""
    if address.startswith("ipc://"):
        path = address.removeprefix("ipc://")
        if not path or path == "*" or path.endswith("/"):
            return "config.address_form"
        too_long = len(path.encode()) > IPC_PATH_BYTES_MAX
        return "config.address_ipc_long" if too_long else None
    found = _TCP.fullmatch(address)
    if found is None:
        return "config.address_form"
    return None if _is_host_port(found[1], found[2]) else "config.address_host_port"


def fault_of_http(address: str) -> str | None:
    """Return the text key of what is wrong with a HOST:PORT."""
    found = _HTTP.fullmatch(address)
    good = found is not None and _is_host_port(found[1], found[2])
    return None if good else "config.address_http"


def is_local(address: str) -> bool:
    """Whether only this machine can reach a well-formed ZeroMQ address."""
    if address.startswith("ipc://"):
        return True
    host = address.removeprefix("tcp://").rpartition(":")[0].strip("[]")
    if host in ("localhost", "lo"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_host_port(host: str, port: str) -> bool:
    # "*" is ZeroMQ's own word for a free port; `smpbus status` shows the one it got.
    if port != "*" and not 1 <= int(port) <= 65535:
        return False
    if host == "*" or not re.fullmatch(r"\[.*\]|[0-9.]+", host):
        return True
    try:
        ipaddress.ip_address(host.strip("[]").partition("%")[0])
    except ValueError:
        return False
    return True
