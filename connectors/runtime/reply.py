"""A partner's JSON answer as the shape that its contract names."""

from typing import TypeVar

import msgspec

from connectors.runtime.partner import Answer
from proto.client import Retry
from proto.wording import text

Shape = TypeVar("Shape")


def read_reply(answer: Answer, shape: type[Shape]) -> Shape:
    """Return the body as `shape`. Raises Retry when it is not JSON, or not of this shape: a page
    of some gateway, an answer cut short, a service being repaired."""
    kind = answer.headers.get("content-type", "").partition(";")[0].strip().lower()
    try:
        if kind.endswith("json"):
            return msgspec.json.decode(answer.body, type=shape)
    except (msgspec.DecodeError, UnicodeDecodeError):
        pass  # its text may quote the body
    raise Retry(text("connector.note_bad_reply", status=answer.status))
