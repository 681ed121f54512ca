"""What the bus is told of calls, operators and groups: bodies and message ids. Pure."""

from datetime import datetime
from typing import Final

import msgspec

from connectors.partners.ats.groups import Group, OperatorEvent
from connectors.partners.ats.story import Call, CallEvent
from connectors.runtime.door.door import message_id
from proto import schemas
from proto.message import Message, Priority

TALKS_MAX: Final = 200  # of a call: the newest
encode: Final = msgspec.json.Encoder().encode


def call_message(source: str, event: CallEvent) -> Message:
    """Return what became of a call."""
    call = event.call
    id = message_id("telephony.call.v1", call.id, event.kind, event.mark)
    return message(source, "telephony.call.v1", id, f"ats-{call.id}", _call(event))


def _call(event: CallEvent) -> schemas.TelephonyCall:
    call = event.call
    return schemas.TelephonyCall(
        call_id=call.id, event=event.kind, at=event.at, direction=call.direction,
        number_from=call.number_from[:400], number_to=call.number_to[:400],
        started_at=call.started_at, answered_at=call.answered_at, queue=call.queue or None,
        operator=event.operator or None, cause=event.cause or None,
        recording_ref=call.recording or None, id112=call.id112 or None,
        transferred_to=event.to or None, talks=_talks(call),
        unheard=[schemas.CallUnheard(since=one.since, until=one.until) for one in call.unheard],
        recordings=call.recordings[-TALKS_MAX:] if len(call.recordings) > 1 else [],
    )  # fmt: skip


def _talks(call: Call) -> list[schemas.CallTalk]:
    return [
        schemas.CallTalk(
            operator=talk.operator or None,
            number=talk.number or None,
            queue=talk.queue or None,
            since=talk.since,
            until=talk.until,
            goes_on=talk.goes_on,
        )
        for talk in call.talks[-TALKS_MAX:]
    ]


def joined_message(source: str, call_id: str, id112: str, at: datetime) -> Message:
    """Return that a card and a call belong together."""
    body = schemas.TelephonyJoined(call_id=call_id, id112=id112, at=at)
    id = message_id("telephony.joined.v1", call_id, id112)
    return message(source, "telephony.joined.v1", id, f"112-{id112}", body, call_id)


def operator_message(source: str, event: OperatorEvent) -> Message:
    """Return that an operator came into another state."""
    body = schemas.OperatorState(
        operator=event.operator, groups=list(event.groups), state=event.state, at=event.at
    )
    id = message_id("telephony.operator.v1", event.operator, event.state, event.at.isoformat())
    return message(source, "telephony.operator.v1", id, f"operator-{event.operator}", body)


def group_message(
    source: str, group: str, there: Group, period_s: float, threshold_s: float, at: datetime,
    unheard_s: float,
) -> Message:  # fmt: skip
    """Return the figures of a group."""
    figures = there.figures
    body = schemas.GroupStatistics(
        group=group, period_s=period_s, at=at, offered=figures.offered, answered=figures.answered,
        abandoned=figures.abandoned, answered_in_time=figures.answered_in_time,
        threshold_s=threshold_s, wait_mean_s=figures.wait_mean_s, wait_max_s=figures.wait_max_s,
        talk_mean_s=figures.talk_mean_s, logged_in=there.logged_in, available=there.available,
        waiting=there.waiting, left=figures.left, left_by_key=figures.left_by_key,
        unheard_s=unheard_s,
    )  # fmt: skip
    id = message_id("telephony.group.v1", group, at.isoformat())
    return message(source, "telephony.group.v1", id, f"group-{group}", body)


def message(
    source: str, type: str, id: str, subject: str, body: schemas.Body, correlation_id: str = ""
) -> Message:
    """Return a message of the exchange."""
    made = Message.new(
        type, source, encode(body), subject=subject, id=id, priority=Priority.ROUTINE
    )
    return msgspec.structs.replace(made, correlation_id=correlation_id) if correlation_id else made
