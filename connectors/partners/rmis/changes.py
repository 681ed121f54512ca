"""Changes that the hospitals' system tells, as messages of the bus.

A change keeps its own id, so that it is one message however often and by whichever door it comes;
one that comes again and says something else is another message. What it says is a claim: it is of
something that we asked for, and never under an id of what we saw ourselves.
"""

import hashlib
import re
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from connectors.partners.rmis.contract import Change, Changes, Read
from connectors.partners.rmis.memory import Kind, Memory
from connectors.runtime.door.body import BadInput, convert, decode
from connectors.runtime.door.claims import Doubts, Namespace
from connectors.runtime.door.door import REJECTED_KEPT_MS, SetAside, message_id
from connectors.runtime.log import LOG
from connectors.runtime.oddities import Odd
from connectors.runtime.repeats import digest_of
from proto import catalogue, clinical, schemas
from proto.message import Message, Priority, now_ms
from proto.wording import text

OUTSIDE: Final = "rmis"
# The event ids that we give to what we were answered and what a dialect sees.
_OURS: Final = re.compile(r"(rmis-(ticket|card|bed|visit)-|riams-)")
UNKNOWN: Final = "is of nothing that was asked for here"


class Reader:
    """Makes messages of changes. `polls_itself`: what a poll brings was seen by the dialect, and
    has ids of ours."""

    def __init__(
        self,
        source: str,
        memory: Memory,
        names: Namespace,
        doubts: Doubts,
        *,
        polls_itself: bool = False,
    ) -> None:
        self._source = source
        self._memory = memory
        self._names = names
        self._doubts = doubts
        self._polls_itself = polls_itself

    def message(self, change: Change, *, seen: bool = False) -> Message:
        """Return the message of one change, which we have `seen` ourselves or somebody claims.
        Raises BadInput."""
        if not seen and _OURS.match(change.id):
            self._doubts.set_aside("event id")
            raise BadInput("id", "is of the ids that are given here")
        raw: dict[str, Any] = {**change.body, "event_id": change.id}
        if change.type == "transfer.state.v1":
            raw["system"] = OUTSIDE
        typed: Any = convert(raw, catalogue.entry(change.type).schema)
        self._judge(typed)
        if isinstance(typed, clinical.TransferState):
            self._memory.note_transfers([(typed.call_id, typed.kind, typed.state)])
        # A dialect that asks for states tells the hour of its asking.
        digest = digest_of(raw, without=("at",))
        return Message.new(
            change.type,
            self._source,
            msgspec.json.encode(raw),
            subject=self._memory.subject_of(typed.call_id),
            id=self._names.id_of(change.type, OUTSIDE, change.id, digest),
            priority=Priority.URGENT if change.type.startswith("hospital.") else Priority.ROUTINE,
            correlation_id=getattr(typed, "number", None),
        )

    def _judge(self, typed: Any) -> None:
        """Raise BadInput for what became of something that we never asked for."""
        field, kind, id = _asked_of(typed)
        if not self._memory.was_asked(typed.call_id, kind, id):
            self._doubts.set_aside("unknown object")
            raise BadInput(field, UNKNOWN)

    def messages(self, told: Changes) -> list[Message]:
        """Return what a poll brought; a change that breaks its schema is told to the administrator
        and never stands in the way of the next."""
        unread = told.unread if isinstance(told, Read) else []
        found = [self._refused("changes", one.id, one.path, one.rule, one.digest) for one in unread]
        for index, change in enumerate(told.changes):
            try:
                found.append(self.message(change, seen=self._polls_itself))
            except BadInput as bad:
                found.append(self._rejected(change, f"changes[{index}].body.{bad.path}", bad.rule))
        return found

    def posted(self, changes: list[bytes]) -> list[Message]:
        """Return what a post brought, each change read for itself; the first that breaks the
        contract is raised as BadInput when all of them do."""
        found: list[Message] = []
        bad: list[BadInput] = []
        odd: list[Odd] = []
        for index, raw in enumerate(changes):
            id, path = "", f"changes[{index}]."
            try:
                change = _change(raw, path)
                id, path = change.id, f"{path}body."
                found.append(self.message(change))
            except BadInput as one:
                bad.append(one)
                at = one.path if one.path.startswith(path) else f"{path}{one.path}".rstrip(".")
                odd.append(Odd(at, one.rule))
                digest = hashlib.sha256(raw).hexdigest()
                found.append(self._refused("changes", id, at, one.rule, digest))
        if bad and len(bad) == len(changes):
            raise bad[0]
        return SetAside(found, odd)

    def _rejected(self, change: Change, path: str, rule: str) -> Message:
        digest = hashlib.sha256(msgspec.json.encode(change)).hexdigest()
        return self._refused(change.type, change.id, path, rule, digest)

    def _refused(self, operation: str, id: str, path: str, rule: str, digest: str) -> Message:
        if rule != UNKNOWN:  # that one is counted
            LOG.warning(text("rmis.change_refused", path=path, rule=rule))
        rejected = schemas.RejectedInput(
            partner=self._source,
            operation=operation,
            path=path[:400],
            rule=rule,
            about=id[:200],
            digest=digest[:16],
            recorded_at=datetime.now(UTC),
        )
        return Message.new(
            "input.rejected.v1",
            self._source,
            rejected,
            id=message_id("input.rejected.v1", operation, id, digest),
            expires=now_ms() + REJECTED_KEPT_MS,
        )


def _asked_of(typed: Any) -> tuple[str, Kind | None, str]:
    """Return what a change is about: the field that names it, its kind and its number."""
    match typed:
        case clinical.TransferState():
            return "call_id", typed.kind, typed.call_id
        case clinical.BedState():
            return "booking_id", "bed", typed.booking_id
        case clinical.VisitState():
            return "visit_id", "visit", typed.visit_id
    return "call_id", None, ""


def _change(raw: bytes, path: str) -> Change:
    """Raises BadInput, its field beginning with `path`."""
    try:
        return decode(raw, Change)
    except BadInput as bad:
        raise BadInput(f"{path}{bad.path}".rstrip("."), bad.rule) from None
