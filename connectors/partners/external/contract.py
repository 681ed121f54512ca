"""The contract with outside services: HTTP and JSON. Rules beyond the shapes are in `checking`.

They call us, each with a token of its own:
    POST /external/calls               a HandIn, with Idempotency-Key   -> 201 CallView
    GET  /external/calls/{id}                                           -> CallView
    GET  /external/calls/{id}/events   ?after=NUMBER&wait_s=SECONDS     -> Events
    POST /external/calls/{id}/cancel   a CancelRequest, or nothing      -> 202 CallView
We call a service that has a webhook:
    POST {url}                         a Told, with Idempotency-Key and Signature

What is refused is answered as RFC 9457 has it (application/problem+json).
"""

from typing import Annotated, Final, Literal

import msgspec

from proto.external import ExternalNotice
from proto.schemas import Instant, Short, StatusCode, Text

PROBLEM_TYPE: Final = "application/problem+json"
KEY_LENGTH_MAX: Final = 200
WAIT_S_MAX: Final = 20.0
EVENTS_MAX: Final = 100  # in one answer
# A call that has come to one of these goes no further.
ENDED: Final[frozenset[StatusCode]] = frozenset({"finished", "returned", "refused", "cancelled"})

ProblemKind = Literal[
    "unauthorized",
    "elsewhere",
    "no_such_call",
    "no_such_page",
    "bad_request",
    "idempotency_key",
    "key_reused",
    "ended",
    "too_large",
    "media_type",
    "quota",
    "bus_away",
    "failed",
]


class Problem(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """What is wrong (RFC 9457): `type` for programs, `detail` for people; `path` and `rule` when a
    field breaks one."""

    type: str
    title: str
    status: int
    detail: str
    path: str | None = None
    rule: str | None = None


class EventBrigade(msgspec.Struct, frozen=True, omit_defaults=True):
    """Which brigade; no more is told of it."""

    id: Short
    name: Short | None = None


class Event(msgspec.Struct, frozen=True, omit_defaults=True, kw_only=True):
    """One status of a call. `number` counts the events of the call from 1, in the order in which
    they came; what happened first is said by `occurred_at`. `supersedes` is the `event_id` of one
    that this one corrects."""

    number: int
    event_id: str
    code: StatusCode
    occurred_at: Instant
    recorded_at: Instant
    call_id: str
    brigade: EventBrigade | None = None
    supersedes: Short | None = None


class Notice(ExternalNotice, frozen=True, kw_only=True):
    """What a webhook is to be told, as we put it into the queue."""

    event: Event  # type: ignore[assignment]


class CallView(msgspec.Struct, frozen=True, kw_only=True):
    """A call as its service sees it. `id` is the bus's, `number` the service's own, `call_id` the
    ambulance's; `status` is the newest one, null until the ambulance has said any; `events` is the
    number of the last event."""

    id: str
    number: Short | None
    handed_in_at: Instant
    call_id: str | None
    status: StatusCode | None
    cancel_asked_at: Instant | None
    events: int


class Events(msgspec.Struct, frozen=True):
    """The events after `after`, at most 100; ask again with `after` = `next`."""

    events: list[Event]
    next: int


class CancelRequest(msgspec.Struct, frozen=True):
    """Why the call is not wanted any more."""

    reason: Text | None = None


class Told(msgspec.Struct, frozen=True, kw_only=True):
    """What a webhook is told: an event of the call `id`, whose own number is `number`."""

    id: str
    number: Short | None
    event: Event


Number = Annotated[int, msgspec.Meta(ge=0, le=2**31)]
