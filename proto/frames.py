"""Frames: `[verb, payload]`, the payload one MessagePack array per verb.

Each struct below is the payload of the verb of the same name; SPEC.md is the same in words and
ABNF. An array longer than the struct is read as far as it is known, so a later minor version may
append elements.
"""

from typing import Annotated, Any, Final

import msgspec

from .errors import Code
from .message import UNREADABLE, Message, Name

PROTOCOL_VERSION: Final = 1
BATCH_LENGTH_MAX: Final = 4096
REPORT_BYTES_MAX: Final = 16 * 1024
VERSIONS_MAX: Final = 64
FRAME_BYTES_MAX: Final = 16 * 1024 * 1024  # of a router that does not say what it takes
FRAME_SPARE: Final = 64  # what encryption adds to a payload before the router measures it
NOTE_LENGTH_MAX: Final = 300
CODE_LENGTH_MAX: Final = 64
AFTER_MS_MAX: Final = 2**53
REQUEST_S_MAX: Final = 600.0
WINDOW_MAX: Final = 100_000

Ordinal = Annotated[int, msgspec.Meta(ge=0, le=2**63 - 1)]


class Hello(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """First words of a peer: protocol versions it speaks, its name, its software."""

    versions: Annotated[list[int], msgspec.Meta(max_length=VERSIONS_MAX)]
    name: Name
    software: Annotated[str, msgspec.Meta(max_length=128)] = ""


class Welcome(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The router's answer: chosen version, the session's name, and the limits in force.

    `bus` names the store for ever: with a delivery's generation and id it is the idempotency key.
    `epoch` grows at each start of the router. Sizes are bytes, times milliseconds.
    `frame_bytes_max` is the longest frame it takes; it drops the connection of a longer one.
    """

    version: int
    name: str
    bus: str
    epoch: int
    body_bytes_max: int
    batch_length_max: int
    heartbeat_ms: int
    frame_bytes_max: int = FRAME_BYTES_MAX


class Publish(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Messages to be accepted; `batch` is the sender's own number for them."""

    batch: Ordinal
    messages: Annotated[list[Message], msgspec.Meta(min_length=1, max_length=BATCH_LENGTH_MAX)]


class PublishRaw(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`Publish` as the router reads it: message bytes as they came."""

    batch: Ordinal
    messages: Annotated[list[msgspec.Raw], msgspec.Meta(min_length=1, max_length=BATCH_LENGTH_MAX)]


class Accepted(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """All messages of these batches that REFUSED did not name are on disk."""

    batches: list[int]


class Refusal(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One message that was not accepted: its index in the batch, and why."""

    index: int
    code: str
    sentence: str
    retry_after_ms: int | None = None


class RefusedBatch(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Payload of REFUSED: the messages of one batch that were not accepted."""

    batch: int
    refusals: list[Refusal]


class Credit(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How many unsettled deliveries of `destination` this session is ready to hold; 0 pauses.

    `serves` says whether it answers questions to it; None when the peer does not know of the field.
    """

    destination: Name
    window: Annotated[int, msgspec.Meta(ge=0, le=WINDOW_MAX)]
    serves: bool | None = None


class DeliveredMessage(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """One delivery: its stable id, the number of this attempt (from 1), the message, and the
    generation of its id: which start of the router gave that, "" in journals of long ago."""

    delivery: int
    attempt: int
    message: Message
    generation: str = ""


def key_of(bus: str, delivery: int, generation: str) -> str:
    """Return the idempotency key of a delivery: the same at every attempt, and never given twice,
    whatever copy of its journal the router was started on."""
    return f"{bus}-{generation}-{delivery}" if generation else f"{bus}-{delivery}"


class Deliver(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Deliveries of one destination, in order."""

    destination: str
    deliveries: list[DeliveredMessage]


class DeliveredRaw(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`DeliveredMessage` as the router writes it."""

    delivery: int
    attempt: int
    message: msgspec.Raw
    generation: str = ""


class DeliverRaw(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`Deliver` as the router writes it."""

    destination: str
    deliveries: list[DeliveredRaw]


ACK: Final = 0
RETRY: Final = 1
REJECT: Final = 2


class Settlement(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """What became of one delivery: ACK, RETRY (after so many milliseconds) or REJECT.

    With `wish` that time is what the partner asks for: the router keeps it between the pause of the
    destination's policy and its longest, and shortens it when the partner takes something else.

    `note` is the partner's answer or the reason, in a few words without personal data; it is shown
    by `smpbus trace`. `generation` is the delivery's own; None when the peer does not know of it.
    """

    delivery: Ordinal
    outcome: Annotated[int, msgspec.Meta(ge=0, le=2)] = ACK
    after_ms: Annotated[int, msgspec.Meta(ge=0, le=AFTER_MS_MAX)] | None = None
    note: Annotated[str, msgspec.Meta(max_length=NOTE_LENGTH_MAX)] | None = None
    generation: Annotated[str, msgspec.Meta(max_length=64)] | None = None
    wish: bool = False


def settlement(
    delivery: int,
    outcome: int,
    note: object = None,
    after_s: float | None = None,
    generation: str | None = None,
    *,
    wish: bool = False,
) -> Settlement:
    """Return a settlement that every router takes: the note cut to its length, the pause bounded.

    One bad settlement would take those that travel with it along. Raises ValueError for a pause
    that is negative or no number.
    """
    after_ms = None
    if after_s is not None:
        if not after_s >= 0:  # NaN is not, either
            raise ValueError(f"a pause of {after_s} seconds")
        after_ms = int(min(after_s * 1000, AFTER_MS_MAX))
    told = None if note is None else words(note)
    return Settlement(delivery, outcome, after_ms, told, generation, wish)


def words(note: object, length_max: int = NOTE_LENGTH_MAX) -> str:
    """Return `note` as text of at most `length_max` characters that can be encoded; of what is no
    text, the name of its kind."""
    if not isinstance(note, str):
        return type(note).__name__[:length_max]
    note = note[:length_max]
    return note if note.isascii() else note.encode("utf-8", "replace").decode()


class Settle(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Settlements, in any order."""

    settlements: Annotated[
        list[Settlement], msgspec.Meta(min_length=1, max_length=BATCH_LENGTH_MAX)
    ]


class Request(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A question to whoever serves `destination`; never on disk, answered once or timed out."""

    request: Ordinal
    destination: Name
    timeout_ms: Annotated[int, msgspec.Meta(ge=1, le=600_000)]
    message: Message


class RequestRaw(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """`Request` as the router reads and writes it."""

    request: Ordinal
    destination: Name
    timeout_ms: Annotated[int, msgspec.Meta(ge=1, le=600_000)]
    message: msgspec.Raw


class Reply(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The answer to a request: `code` is "" for success, else an error code and a sentence."""

    request: Ordinal
    code: Annotated[str, msgspec.Meta(max_length=CODE_LENGTH_MAX)] = ""
    sentence: Annotated[str, msgspec.Meta(max_length=NOTE_LENGTH_MAX)] = ""
    content_type: Annotated[str, msgspec.Meta(max_length=256)] = "application/json"
    body: bytes = b""


class Report(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How a peer is, for operators: JSON of the shape of `PeerReport` of `report`, bytes to the
    router. Transient; the newest one of a session replaces the one before."""

    body: Annotated[bytes, msgspec.Meta(max_length=REPORT_BYTES_MAX)]


class Ping(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Payload of PING and of PONG, which returns the same number."""

    nonce: Ordinal = 0


class Bye(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A peer leaves on purpose: its unsettled deliveries go to others at once."""

    reason: str = ""


class Error(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """Something in what was sent is wrong; `verb` says in which frame, `number` in which batch or
    request, if that could be read."""

    code: str
    sentence: str
    verb: str = ""
    number: int | None = None


class _Numbered(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """How PUBLISH and REQUEST begin."""

    number: Ordinal


HELLO: Final = b"HELLO"
WELCOME: Final = b"WELCOME"
PUBLISH: Final = b"PUBLISH"
ACCEPTED: Final = b"ACCEPTED"
REFUSED: Final = b"REFUSED"
CREDIT: Final = b"CREDIT"
DELIVER: Final = b"DELIVER"
SETTLE: Final = b"SETTLE"
REQUEST: Final = b"REQUEST"
REPLY: Final = b"REPLY"
REPORT: Final = b"REPORT"
PING: Final = b"PING"
PONG: Final = b"PONG"
BYE: Final = b"BYE"
ERROR: Final = b"ERROR"

encode = msgspec.msgpack.Encoder().encode

# What each side may receive, and how it reads it.
_decoder = msgspec.msgpack.Decoder
Readers = dict[bytes, "msgspec.msgpack.Decoder[Any]"]
ROUTER_READS: Final[Readers] = {
    HELLO: _decoder(Hello),
    PUBLISH: _decoder(PublishRaw),
    CREDIT: _decoder(Credit),
    SETTLE: _decoder(Settle),
    REQUEST: _decoder(RequestRaw),
    REPLY: _decoder(Reply),
    REPORT: _decoder(Report),
    PING: _decoder(Ping),
    PONG: _decoder(Ping),
    BYE: _decoder(Bye),
    ERROR: _decoder(Error),
}
PEER_READS: Final[Readers] = {
    WELCOME: _decoder(Welcome),
    ACCEPTED: _decoder(Accepted),
    REFUSED: _decoder(RefusedBatch),
    DELIVER: _decoder(Deliver),
    REQUEST: _decoder(Request),
    REPLY: _decoder(Reply),
    PING: _decoder(Ping),
    PONG: _decoder(Ping),
    BYE: _decoder(Bye),
    ERROR: _decoder(Error),
}


_numbered: Final = _decoder(_Numbered)


def number_of(frames: list[bytes]) -> int | None:
    """Return the number of a batch or request, also where the rest of the frame is unreadable."""
    if len(frames) != 2 or frames[0] not in (PUBLISH, REQUEST):
        return None
    try:
        return _numbered.decode(frames[1]).number
    except UNREADABLE:
        return None


class _Stored(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """A message whose envelope is longer than is taken today: an older router accepted it."""

    id: str
    type: str
    source: str
    subject: str
    time: int
    priority: int = 2
    not_before: int | None = None
    expires: int | None = None
    reply_to: str | None = None
    correlation_id: str | None = None
    traceparent: str | None = None
    content_type: str = "application/json"
    body: bytes = b""


_read_deliver_raw = _decoder(DeliverRaw).decode
_read_stored = _decoder(_Stored).decode


def read_deliveries(payload: bytes) -> tuple[Deliver, list[DeliveredRaw]]:
    """Read a DELIVER of which some message does not meet today's rules, each for itself.

    Returns those that can be read, and those that cannot. Raises one of UNREADABLE when the frame
    is none.
    """
    frame = _read_deliver_raw(payload)
    good: list[DeliveredMessage] = []
    bad: list[DeliveredRaw] = []
    for one in frame.deliveries:
        try:
            message = Message(*msgspec.structs.astuple(_read_stored(one.message)))
            good.append(DeliveredMessage(one.delivery, one.attempt, message, one.generation))
        except UNREADABLE:
            bad.append(one)
    return Deliver(frame.destination, good), bad


class FrameError(Exception):
    """A frame that this side cannot read; blame lies with the sender."""

    def __init__(self, code: Code, sentence: str, verb: str = "") -> None:
        super().__init__(sentence)
        self.code = code
        self.sentence = sentence
        self.verb = verb


def read(frames: list[bytes], readers: Readers) -> object:
    """Return the payload of `[verb, payload]`, decoded and validated.

    Raises FrameError with BAD_FRAME or UNKNOWN_VERB; the sentence holds no part of the payload.
    """
    if len(frames) != 2:
        raise FrameError(Code.BAD_FRAME, f"expected 2 frames [verb, payload], got {len(frames)}")
    reader = readers.get(frames[0])
    if reader is None:
        verb = frames[0][:16].decode("ascii", "replace")
        raise FrameError(Code.UNKNOWN_VERB, "this verb is not known here", verb)
    try:
        payload: object = reader.decode(frames[1])
        return payload
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        sentence = error.args[0] if isinstance(error, msgspec.DecodeError) else "text is not UTF-8"
        raise FrameError(Code.BAD_FRAME, str(sentence), frames[0].decode("ascii")) from None
    except RecursionError:
        sentence = "nested too deeply"
        raise FrameError(Code.BAD_FRAME, sentence, frames[0].decode("ascii")) from None
