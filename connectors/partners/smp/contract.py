"""The contract with the ambulance system: HTTP and JSON, the bodies are the bus's own schemas.

We call it:
    POST {url}/smp/calls           an IncidentCard, new or corrected  -> CallReply
    POST {url}/smp/cancellations   an IncidentCancelled               -> CallReply
    POST {url}/smp/telephony/calls, joined, operators, groups, dialled
                                   a TelephonyCall, TelephonyJoined, OperatorState,
                                   GroupStatistics, DialResult        -> CallReply
    POST {url}/smp/external/calls, cancellations
                                   an ExternalCall, ExternalCancelled -> CallReply
    POST {url}/smp/workers             a Worker, new or changed           -> CallReply, no call_id
    POST {url}/smp/workers/removals    a WorkerRemoved                    -> CallReply, no call_id
It calls us:
    POST /bus/status    a StatusEvent; `id112` is a card, a list of cards, or absent, and so is
                        `external`, the calls of outside services
    POST /bus/tickets   a CallTicket
    POST /bus/cards     a CardUpdate, for System-112
    POST /bus/dial      a DialOrder; `request_id` is the caller's own: its repeat dials nothing

Every call of ours carries `Idempotency-Key`; the same key again must change nothing. The card with
the newest `changed_at` holds: an older one is answered `outcome` "older" and changes nothing.

An ambulance system that nobody can call takes the same by itself (mode = "queue"): POST
/queue/receive, /queue/commit; POST /queue/send is the door for what it posts, many at once.
"""

from datetime import datetime
from typing import Annotated, Final, Literal, TypeVar

import msgspec

from proto.external import ExternalRef
from proto.message import Id, PriorityNumber, Subject, Type
from proto.schemas import DialRequest, Id112, Instant, Required, Short, StatusEvent

SEVERAL_MAX: Final = 100
MADE_BYTES_MAX: Final = 4 * 1024 * 1024  # of several messages that are made of one post
One = TypeVar("One")
AtOnce = Annotated[list[One], msgspec.Meta(max_length=SEVERAL_MAX)]
PATHS: Final = {  # of what we post
    "incident.card.v1": "/smp/calls",
    "incident.cancelled.v1": "/smp/cancellations",
    "external.call.v1": "/smp/external/calls",
    "external.cancelled.v1": "/smp/external/cancellations",
    "telephony.call.v1": "/smp/telephony/calls",
    "telephony.joined.v1": "/smp/telephony/joined",
    "telephony.operator.v1": "/smp/telephony/operators",
    "telephony.group.v1": "/smp/telephony/groups",
    "telephony.dialled.v1": "/smp/telephony/dialled",
    "transfer.state.v1": "/smp/transfers",
    "hospital.booked.v1": "/smp/hospital/bookings",
    "hospital.outcome.v1": "/smp/hospital/outcomes",
    "visit.state.v1": "/smp/visits",
    "document.state.v1": "/smp/documents",
    "register.state.v1": "/smp/registers",
    "worker.changed.v1": "/smp/workers",
    "worker.removed.v1": "/smp/workers/removals",
}

CallOutcome = Literal["created", "updated", "tied", "older", "cancelled", "unknown", "done"]


class CallReply(msgspec.Struct, frozen=True):
    """What the ambulance system did; `call_id` is YEAR-NUMBER of the call, "" if there is none."""

    outcome: CallOutcome
    call_id: str = ""
    number_day: int | None = None
    number_year: int | None = None


class StatusReport(StatusEvent, frozen=True, kw_only=True):
    """A StatusEvent as the ambulance system posts it: it may concern several cards at once. Each is
    a message with all of the body, so all together are at most 4 MiB."""

    id112: Id112 | AtOnce[Id112] | None = None  # type: ignore[assignment]
    external: ExternalRef | AtOnce[ExternalRef] | None = None


class DialOrder(DialRequest, frozen=True, kw_only=True):
    """A DialRequest as the ambulance system posts it."""

    request_id: Required


class BusReply(msgspec.Struct, frozen=True):
    """Our answer: `code` follows HTTP, `sentence` is for people."""

    code: int
    sentence: str


class Sent(msgspec.Struct, frozen=True, kw_only=True):
    """One message of POST /queue/send: `payload` is what its `type` is posted as at /bus/*, which
    also says the rest. `id` is the sender's own name of it: its repeat changes nothing, whatever
    the payload; `subject`, `priority` (0 emergency, 1 urgent, 2 routine, 3 bulk), `not_before` and
    `expires` stand above what the type says."""

    type: Type
    payload: msgspec.Raw
    id: Id | None = None
    subject: Subject | None = None
    priority: PriorityNumber | None = None
    not_before: Instant | None = None
    expires: Instant | None = None


class SendRequest(msgspec.Struct, frozen=True):
    """POST /queue/send."""

    messages: Annotated[list[Sent], msgspec.Meta(min_length=1, max_length=SEVERAL_MAX)]


class RawSend(msgspec.Struct, frozen=True):
    """A SendRequest of which each message is yet to be read."""

    messages: Annotated[list[msgspec.Raw], msgspec.Meta(min_length=1, max_length=SEVERAL_MAX)]


class SendResult(msgspec.Struct, frozen=True, omit_defaults=True):
    """What became of one message, in the order of the request: `code` 200 it is on the router's
    disk, 400 it breaks a rule (`path`), 503 send it again. `id` is the sender's."""

    code: int
    sentence: str
    path: str = ""
    id: str | None = None


class SendReply(msgspec.Struct, frozen=True):
    """The answer to POST /queue/send."""

    results: list[SendResult]


class ReceiveRequest(msgspec.Struct, frozen=True):
    """POST /queue/receive: at most `max` messages; when there are none, wait so long for one."""

    max: Annotated[int, msgspec.Meta(ge=1, le=SEVERAL_MAX)] = 10
    wait_s: Annotated[float, msgspec.Meta(ge=0, le=30)] = 0.0


class Received(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """A message that is held for the receiver until `commit_by`. `ref` is the same however often
    the message comes: it is also the idempotency key; `attempt` counts from 1."""

    ref: str
    attempt: int
    commit_by: datetime
    type: str
    source: str
    subject: str
    id: str
    time: datetime
    priority: int
    expires: datetime | None = None
    correlation_id: str | None = None
    payload: msgspec.Raw


class ReceiveReply(msgspec.Struct, frozen=True):
    """The answer to POST /queue/receive, the urgent ones first; none is an answer too."""

    messages: list[Received]


class CommitRequest(msgspec.Struct, frozen=True):
    """POST /queue/commit. "done": never again; "retry": again after `after_s` seconds, or when the
    bus thinks fit; "reject": it can never be taken, and becomes a dead letter with `reason`. The
    reason and the note are read by administrators and hold no personal data."""

    refs: Annotated[list[Required], msgspec.Meta(min_length=1, max_length=SEVERAL_MAX)]
    outcome: Literal["done", "retry", "reject"]
    after_s: Annotated[float, msgspec.Meta(ge=0, le=86_400)] | None = None
    reason: Short = ""
    note: Short = ""


class CommitResult(msgspec.Struct, frozen=True):
    """Whether the outcome counts. If not, the ref is not held: its time was over, and it comes
    again."""

    ref: str
    committed: bool


class CommitReply(msgspec.Struct, frozen=True):
    """The answer to POST /queue/commit."""

    results: list[CommitResult]
