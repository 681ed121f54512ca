"""The message: an immutable envelope and a body, as it travels and as it is stored.

On the wire a message is one MessagePack array, in the order of the fields below. The router checks
its shape and passes the array on byte for byte: it is never encoded again on its way.
"""

import re
import time
from enum import IntEnum
from typing import Annotated, Final

import msgspec

from .identifiers import new_id
from .nesting import decode_json
from .pattern import exactly

ID_LENGTH_MAX: Final = 128
TYPE_LENGTH_MAX: Final = 128
SUBJECT_LENGTH_MAX: Final = 256
NAME_LENGTH_MAX: Final = 64
INT_MAX: Final = 2**63 - 1
# Of the fields that the bus passes on unread, in bytes of UTF-8. The router checks them where a
# message comes in: what is in a journal already is read all the same.
BYTES_MAX: Final = {
    "reply_to": 256, "correlation_id": 4096, "traceparent": 256, "content_type": 256
}  # fmt: skip
# What decoding somebody else's bytes may raise: not of this shape, no text, nested without end.
UNREADABLE: Final = (msgspec.DecodeError, UnicodeDecodeError, RecursionError)


class Priority(IntEnum):
    """How urgent a message is; the lower number goes first."""

    EMERGENCY = 0
    URGENT = 1
    ROUTINE = 2
    BULK = 3


TYPE_GRAMMAR: Final = re.compile(r"[a-z0-9_]+(\.[a-z0-9_]+)+")
NAME_GRAMMAR: Final = exactly(r"[a-z][a-z0-9_-]*")
# The source of a message that was passed on: the bus that accepted it first, and its source there.
RELAYED_GRAMMAR: Final = re.compile(r"([0-9a-z]+)\.([a-z][a-z0-9_-]*)")

# The grammars are checked where a type is first seen and a name is configured, not at every
# decode: they would take four fifths of its time.
Id = Annotated[str, msgspec.Meta(min_length=1, max_length=ID_LENGTH_MAX)]
Type = Annotated[str, msgspec.Meta(max_length=TYPE_LENGTH_MAX)]
Source = Annotated[str, msgspec.Meta(max_length=NAME_LENGTH_MAX)]
Name = Annotated[str, msgspec.Meta(max_length=NAME_LENGTH_MAX, pattern=NAME_GRAMMAR)]
Subject = Annotated[str, msgspec.Meta(max_length=SUBJECT_LENGTH_MAX)]
Milliseconds = Annotated[int, msgspec.Meta(ge=0, le=INT_MAX)]
PriorityNumber = Annotated[int, msgspec.Meta(ge=0, le=3)]


class Message(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """An envelope (CloudEvents 1.0 meaning) and a body.

    `id` is given by the sender and is unique within `source`; the router accepts it once.
    `type` is dotted words with the major version last ("call.status.v1"; `TYPE_GRAMMAR`).
    `source` is the sender's configured name, or BUS.NAME when another bus accepted it first.
    `subject` is what the message is about (the call number); messages of one subject keep their
    order at each destination; "" means no order.
    `time`, `not_before` and `expires` are milliseconds since 1970-01-01 UTC. `priority` is one of
    `Priority`. `traceparent` is W3C Trace Context. `body` is opaque to the bus; `content_type`
    says what it is.
    """

    id: Id
    type: Type
    source: Source
    subject: Subject
    time: Milliseconds
    priority: PriorityNumber = Priority.ROUTINE
    not_before: Milliseconds | None = None
    expires: Milliseconds | None = None
    reply_to: str | None = None
    correlation_id: str | None = None
    traceparent: str | None = None
    content_type: str = "application/json"
    body: bytes = b""

    @classmethod
    def new(
        cls,
        type: str,
        source: str,
        body: object = b"",
        *,
        subject: str = "",
        id: str | None = None,
        priority: int = Priority.ROUTINE,
        not_before: int | None = None,
        expires: int | None = None,
        correlation_id: str | None = None,
        traceparent: str | None = None,
    ) -> "Message":
        """Make a message now. A `body` that is not bytes is encoded as JSON."""
        return cls(
            id=id or new_id(),
            type=type,
            source=source,
            subject=subject,
            time=now_ms(),
            priority=priority,
            not_before=not_before,
            expires=expires,
            correlation_id=correlation_id,
            traceparent=traceparent,
            body=body if isinstance(body, bytes) else msgspec.json.encode(body),
        )

    def json(self) -> object:
        """Return the body decoded from JSON. Raises msgspec.DecodeError when it is not JSON."""
        return decode_json(self.body)


def now_ms() -> int:
    """Return the wall clock in milliseconds since 1970-01-01 UTC."""
    return time.time_ns() // 1_000_000


encode_message = msgspec.msgpack.Encoder().encode
decode_message = msgspec.msgpack.Decoder(Message).decode

_PLACE: Final = re.compile(r" - at `\$\[([0-9]+)\]`\Z")


def fault_of(error: Exception) -> str:
    """Return in a few words what is wrong with a message that could not be decoded, with the name
    of the field where it is one, and nothing of what stands in it."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if not isinstance(error, msgspec.DecodeError):
        return "text is not UTF-8"
    sentence = str(error)
    if place := _PLACE.search(sentence):
        names = Message.__struct_fields__
        return f"{names[int(place[1])]}: {sentence}"
    return sentence


def overlong(message: Message) -> str | None:
    """Return what is wrong with the length of a field that the bus passes on unread."""
    correlation_id = message.correlation_id
    if (
        message.content_type == "application/json"
        and message.reply_to is None
        and message.traceparent is None
        and (correlation_id is None or len(correlation_id) < BYTES_MAX["correlation_id"] // 4)
    ):
        return None  # as nearly all are
    for name, most in BYTES_MAX.items():
        value = getattr(message, name)
        if value is not None and len(value.encode()) > most:
            return f"{name}: longer than {most} bytes"
    return None
