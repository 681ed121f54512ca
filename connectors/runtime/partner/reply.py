"""A partner's JSON answer as the shape that its contract names. To be read inside `Partner.ask`,
so that nonsense counts as a failure of the partner."""

from typing import TypeVar

from connectors.runtime.door.body import without_mark
from connectors.runtime.partner.partner import Answer, BadReply
from proto.message import UNREADABLE
from proto.nesting import decode_json
from proto.note import coded

Shape = TypeVar("Shape")


def read_reply(answer: Answer, shape: type[Shape]) -> Shape:
    """Return the body as `shape`. Raises BadReply when it is not JSON, or not of this shape: a page
    of some gateway, an answer cut short, a service being repaired."""
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if kind.endswith("json"):
            return decode_json(without_mark(answer.body), shape)
    except UNREADABLE:
        pass  # its text may quote the body
    raise BadReply(coded("connector.bad_reply", status=answer.status))
