"""The Asterisk Manager Interface as bytes: packets out of a stream, actions into it. No I/O.

A packet is lines of `Key: Value`, ended by an empty line; a connection begins with one line that is
the banner. Sources: docs.asterisk.org, "AMI v2 Specification";
what real exchanges do besides: docs/domain.md 9.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Final

PACKET_BYTES_MAX: Final = 256 * 1024
_CONTROL: Final = re.compile("[\x00-\x1f\x7f\x85\u2028\u2029]")
_END: Final = b"\r\n\r\n"


class Packet(dict[str, str]):
    """One event or response. Of a key that comes twice the last holds; a missing one is ""."""

    def __missing__(self, _: str) -> str:
        return ""

    @property
    def event(self) -> str:
        """The event's name, "" of a response."""
        return self["Event"]


class Parser:
    """Cuts a stream into packets. What is no packet is counted in `spoiled` and passed by."""

    def __init__(self) -> None:
        self.banner = ""
        self.spoiled = 0
        self._rest = b""
        self._greeted = False
        self._skipping = False

    def feed(self, data: bytes) -> Iterator[Packet]:
        """Yield the packets that are whole now."""
        self._rest += data
        if not self._greeted and not self._read_banner():
            return
        *whole, self._rest = self._rest.split(_END)
        for part in whole:
            if self._skipping:  # the end of one that was too long
                self._skipping = False
            elif (packet := _read(part)) is None:
                self.spoiled += 1
            elif packet:
                yield packet
        if len(self._rest) > PACKET_BYTES_MAX:
            self.spoiled += not self._skipping
            self._skipping = True
            self._rest = self._rest[-len(_END) :]

    def _read_banner(self) -> bool:
        line, ended, rest = self._rest.partition(b"\r\n")
        if not ended:
            self._rest = self._rest[-PACKET_BYTES_MAX:]  # whatever speaks there has no lines
            return False
        self.banner = line.decode("utf-8", "replace")[:100]
        self._rest, self._greeted = rest, True
        return True


def _read(part: bytes) -> Packet | None:
    packet = Packet()
    for line in part.split(b"\r\n"):
        key, colon, value = line.decode("utf-8", "replace").partition(":")
        if not line:
            continue
        if not colon:
            return None
        packet[key.strip()] = value.strip()
    return packet


def encode(action: str, action_id: str, fields: Mapping[str, str] = {}) -> bytes:
    """Return the bytes of an action. Raises ValueError for a word that would end its line, or holds
    any other control character."""
    told = {"Action": action, "ActionID": action_id, **fields}
    lines = [f"{key}: {value}" for key, value in told.items()]
    for key, line in zip(told, lines, strict=True):
        if _CONTROL.search(line):
            name = key if key.isalnum() else "a field"
            raise ValueError(f"{name} holds a control character")
    return ("\r\n".join(lines) + "\r\n\r\n").encode()
