"""The head of a stored message: its envelope, read without its body, which may be large.

The body is the last field of a message (SPEC 3.1), so its first bytes hold everything else: the
heads of a thousand messages fit into memory, however large their bodies are.
"""

from struct import unpack_from
from typing import Final, NamedTuple

import msgspec

from proto.message import UNREADABLE, Message, decode_message

HEAD_BYTES: Final = 4_096  # as much of a message as is read for its head
BODY: Final = Message.__struct_fields__.index("body")
FIELDS_MIN: Final = 5  # those without a default
# MessagePack: the first byte of a scalar -> the format of its length, or how many bytes follow.
_SIZES: Final[dict[int, str | int]] = {
    0xC4: ">B", 0xC5: ">H", 0xC6: ">I", 0xD9: ">B", 0xDA: ">H", 0xDB: ">I",
    0xC0: 0, 0xC2: 0, 0xC3: 0, 0xCA: 4, 0xCB: 8, 0xCC: 1, 0xCD: 2, 0xCE: 4, 0xCF: 8,
    0xD0: 1, 0xD1: 2, 0xD2: 4, 0xD3: 8,
}  # fmt: skip
_LENGTHS: Final = {">B": 1, ">H": 2, ">I": 4}


class _Numbers(msgspec.Struct, array_like=True, gc=False):
    """A message as far as its correlation_id: every message is looked at for that."""

    id: str
    type: str
    source: str
    subject: str
    time: int
    priority: int = 0
    not_before: int | None = None
    expires: int | None = None
    reply_to: str | None = None
    correlation_id: str | None = None


_read_numbers: Final = msgspec.msgpack.Decoder(_Numbers).decode


class Head(NamedTuple):
    """A message with an empty body, and how many bytes the body has. What did not fit into the
    bytes that were read is missing, from the back."""

    message: Message
    body_bytes: int


def head_of(prefix: bytes, size: int) -> Head:
    """Return the head of a message of `size` bytes (1 or more) that begins with `prefix`. Raises
    one of `proto.message.UNREADABLE` when that is no message."""
    if len(prefix) == size:
        message = decode_message(prefix)
        return Head(msgspec.structs.replace(message, body=b""), len(message.body))
    start = {0x9: 1, 0xD: 3}.get(prefix[0] >> 4, 0)  # after a short array's head, or a long one's
    ends = [start]
    while start and len(ends) <= BODY and (end := _end(prefix, ends[-1])) is not None:
        ends.append(end)
    count = len(ends) - 1
    if count < FIELDS_MIN:
        raise msgspec.DecodeError("the head is not of a message")
    message = decode_message(bytes([0x90 | count]) + prefix[start : ends[-1]])
    left = size - ends[-1]
    if count == BODY and isinstance(kind := _SIZES.get((prefix + b"\0")[ends[-1]], 0), str):
        left -= 1 + _LENGTHS[kind]
    return Head(message, left)


def _end(data: bytes, at: int) -> int | None:
    """Return where the scalar at a place ends; None when it is not all there."""
    if at >= len(data):
        return None
    first = data[at]
    at += 1
    if first < 0x80 or first >= 0xE0:
        length = 0
    elif 0xA0 <= first < 0xC0:
        length = first & 0x1F
    else:
        kind = _SIZES.get(first)
        if kind is None:
            return None
        if isinstance(kind, str):
            if at + _LENGTHS[kind] > len(data):
                return None
            length = _LENGTHS[kind] + int(unpack_from(kind, data, at)[0])
        else:
            length = kind
    return at + length if at + length <= len(data) else None


def numbers_in(prefix: bytes, size: int, most: int, length_max: int) -> list[str]:
    """Return the first numbers in the correlation_id of a message, with spaces between there."""
    try:
        if len(prefix) == size:
            told = _read_numbers(prefix).correlation_id
        else:
            told = head_of(prefix, size).message.correlation_id
    except UNREADABLE:
        return []  # a damaged one is told where it is read as a whole
    if not told:
        return []
    words = told.split(maxsplit=most)
    return [word for word in words[:most] if len(word) <= length_max]
