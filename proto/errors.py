"""Error codes of the wire, and the exceptions the client library raises for them.

A code is a stable word that programs compare; the sentence beside it is for people and may
change. `FATAL` codes end the session; after any other the session goes on.
"""

from enum import StrEnum
from typing import Final


class Code(StrEnum):
    """Every code that ERROR, REFUSED and REPLY may carry."""

    # Conversation
    BAD_FRAME = "bad_frame"
    UNKNOWN_VERB = "unknown_verb"
    BAD_VERSION = "bad_version"
    HELLO_REQUIRED = "hello_required"
    NAME_MISMATCH = "name_mismatch"
    UNKNOWN_NAME = "unknown_name"
    REVOKED = "revoked"
    TOO_MANY_SESSIONS = "too_many_sessions"
    TOO_MANY_ERRORS = "too_many_errors"
    TOO_MUCH = "too_much"
    STOPPING = "stopping"
    # Permission
    NOT_PERMITTED = "not_permitted"
    SOURCE_MISMATCH = "source_mismatch"
    UNKNOWN_DESTINATION = "unknown_destination"
    # One message
    BAD_MESSAGE = "bad_message"
    UNKNOWN_TYPE = "unknown_type"
    BODY_TOO_LARGE = "body_too_large"
    NO_ROUTE = "no_route"
    EXPIRED = "expired"
    QUEUE_FULL = "queue_full"
    STORE_FULL = "store_full"
    # Settlement
    NOT_YOURS = "not_yours"
    # Request and reply
    NO_CONSUMER = "no_consumer"
    TIMEOUT = "timeout"
    FAILED = "failed"


FATAL: Final = frozenset(
    {Code.BAD_VERSION, Code.NAME_MISMATCH, Code.UNKNOWN_NAME, Code.REVOKED, Code.TOO_MANY_SESSIONS}
)
# Refusals that may succeed later, unchanged: the client may try again by itself.
TEMPORARY: Final = frozenset({Code.QUEUE_FULL, Code.STORE_FULL, Code.STOPPING})

# Refusals of this very message, whoever sends it and however often: nothing behind it need wait.
HOPELESS: Final = frozenset({Code.BAD_MESSAGE, Code.BODY_TOO_LARGE, Code.EXPIRED})


class BusError(Exception):
    """The bus said no. `code` is for programs, the text is a sentence for people."""

    def __init__(self, code: str, sentence: str) -> None:
        super().__init__(f"{code}: {sentence}")
        self.code = code
        self.sentence = sentence


class Refused(BusError):
    """A message was not accepted; `retry_after_ms` says when a repeat makes sense, if ever."""

    def __init__(self, code: str, sentence: str, retry_after_ms: int | None = None) -> None:
        super().__init__(code, sentence)
        self.retry_after_ms = retry_after_ms


class RequestFailed(BusError):
    """A request got no answer, or the answering side failed."""


class NotConnected(BusError):
    """The router could not be reached in the time given."""

    def __init__(self, sentence: str) -> None:
        super().__init__("not_connected", sentence)
