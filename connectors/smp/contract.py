"""The contract with the ambulance system: HTTP and JSON, the bodies are the bus's own schemas.

We call it:
    POST {url}/smp/calls           an IncidentCard, new or corrected  -> CallReply
    POST {url}/smp/cancellations   an IncidentCancelled               -> CallReply
    POST {url}/smp/telephony/calls, joined, operators, groups, dialled
                                   a TelephonyCall, TelephonyJoined, OperatorState,
                                   GroupStatistics, DialResult        -> CallReply
    POST {url}/smp/workers             a Worker, new or changed           -> CallReply, no call_id
    POST {url}/smp/workers/removals    a WorkerRemoved                    -> CallReply, no call_id
It calls us:
    POST /bus/status    a StatusEvent; `id112` is a card, a list of cards, or absent
    POST /bus/tickets   a CallTicket
    POST /bus/cards     a CardUpdate, for System-112
    POST /bus/dial      a DialOrder; `request_id` is the caller's own: its repeat dials nothing

Every call of ours carries `Idempotency-Key`; the same key again must change nothing. The card with
the newest `changed_at` holds: an older one is answered `outcome` "older" and changes nothing.
"""

from typing import Literal

import msgspec

from proto.schemas import DialRequest, Id112, Required, StatusEvent

CallOutcome = Literal["created", "updated", "tied", "older", "cancelled", "unknown", "done"]


class CallReply(msgspec.Struct, frozen=True):
    """What the ambulance system did; `call_id` is YEAR-NUMBER of the call, "" if there is none."""

    outcome: CallOutcome
    call_id: str = ""
    number_day: int | None = None
    number_year: int | None = None


class StatusReport(StatusEvent, frozen=True, kw_only=True):
    """A StatusEvent as the ambulance system posts it: it may concern several cards at once."""

    id112: Id112 | list[Id112] | None = None  # type: ignore[assignment]


class DialOrder(DialRequest, frozen=True, kw_only=True):
    """A DialRequest as the ambulance system posts it."""

    request_id: Required


class BusReply(msgspec.Struct, frozen=True):
    """Our answer: `code` follows HTTP, `sentence` is for people."""

    code: int
    sentence: str
