"""What a partner says, fit for a log: a code by its grammar, and of its free words none.

A partner's sentence may name a patient, or look like a line of ours. It goes where it is asked for
(the note of a delivery, the dead letter: `smpbus dead list`), never to the log.
"""

import re
from typing import Final

from proto.client import Reject
from proto.wording import in_words, text

_ID: Final = re.compile(r"[A-Za-z0-9_.:/@+=-]{1,128}")
_CODE: Final = re.compile(r"[A-Za-z0-9_.-]{1,40}")


def code_of(said: object) -> str:
    """Return a partner's code as it is, "?" for what is no code."""
    code = str(said)
    return code if _CODE.fullmatch(code) else "?"


def id_of(said: str) -> str:
    """Return the id of a message as it is, "?" for one that its sender made of words."""
    return said if _ID.fullmatch(said) else "?"


def reason_of(error: Exception) -> str:
    """Return in words why something was refused, without a partner's own sentence."""
    return text("connector.in_words") if isinstance(error, RejectInWords) else in_words(str(error))


class RejectInWords(Reject):
    """A Reject whose reason is a partner's own sentence: kept with the dead letter, not logged."""
