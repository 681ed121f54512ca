"""Run inside a unit's walls: tries each thing that is asked for, and prints what came of it.

probe.py '[["read", "/etc/shadow"], ["connect", "/run/smpbus/bus.sock"], ...]'
"""

import errno
import json
import os
import socket
import sys


def read(path: str) -> None:
    """Read a file, or list a folder."""
    if os.path.isdir(path):
        os.listdir(path)
        return
    with open(path, "rb") as file:
        file.read(1)


def write(path: str) -> None:
    """Open a file for writing, made if it is not there; nothing is written."""
    os.close(os.open(path, os.O_WRONLY | os.O_CREAT, 0o600))


def connect(path: str) -> None:
    """Connect to a socket."""
    with socket.socket(socket.AF_UNIX) as one:
        one.connect(path)


def signal(pid: str) -> None:
    """Ask whether a process may be signalled."""
    os.kill(int(pid), 0)


def main() -> None:
    """Print one JSON object: "allowed" or the name of the error, by what was tried."""
    ways = {"read": read, "write": write, "connect": connect, "signal": signal}
    came = {}
    for way, what in json.loads(sys.argv[1]):
        try:
            ways[way](what)
            came[f"{way} {what}"] = "allowed"
        except OSError as error:
            came[f"{way} {what}"] = errno.errorcode.get(error.errno or 0, "OSError")
    print("PROBE", json.dumps(came), flush=True)


main()
