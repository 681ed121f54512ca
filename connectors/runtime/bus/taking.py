"""What a connector declares of the messages and questions that it gets, and what follows from it.

Decoding, its refusal, an unknown type and a bus that does not take what is said in answer are the
same for all: they are decided here, once. A method is named by where it is found from its owner:
"bring", or "questions.worker" for that of a part.
"""

from collections.abc import Mapping
from operator import attrgetter
from typing import Any, Final

import msgspec

from connectors.runtime.bus.ingress import NotAccepted
from connectors.runtime.door.body import BadInput, bad_input
from proto.client import Reject, Retry
from proto.errors import Code, RequestFailed
from proto.message import UNREADABLE, Message
from proto.nesting import decode_json
from proto.note import coded
from proto.wording import in_words

ANY: Final = "*"  # in place of a type: whatever else comes
Takes = Mapping[str, tuple[Any, str]]  # type -> shape of the body (bytes: as it is), method


async def take(owner: object, takes: Takes, message: Message, given: Any) -> str | None:
    """Have the method that `takes` names for a message bring it: `method(body, given)`; return the
    note. Raises Retry or Reject."""
    shape, method = takes.get(message.type) or takes.get(ANY) or (None, "")
    if not method:
        raise Reject(coded("connector.no_type", type=message.type))
    try:
        body = _read(message.body, shape)
    except UNREADABLE:
        raise Reject(coded("connector.bad_body")) from None
    try:
        note: str | None = await attrgetter(method)(owner)(body, given)
    except NotAccepted as error:
        raise Retry(error.code, float(error.retry_after_s)) from None
    except BadInput as bad:  # what no request to the partner can hold
        raise Reject(bad.sentence) from None
    return note


async def answer(owner: object, answers: Takes, message: Message, who: str) -> dict[str, Any]:
    """Return what the method that `answers` names for a question says: `method(question)`. `who` is
    asked in the end, for a sentence. Raises RequestFailed."""
    if message.type not in answers:
        known = ", ".join(answers)
        raise RequestFailed(Code.UNKNOWN_TYPE, f"answered are {known}")
    shape, method = answers[message.type]
    try:
        asked = _read(message.body, shape)
    except UNREADABLE:
        sentence = f"the body is not one of {message.type}"
        raise RequestFailed(Code.BAD_MESSAGE, sentence) from None
    try:
        told = await attrgetter(method)(owner)(asked)
    except (Retry, Reject) as error:
        sentence = f"{who} does not answer: {in_words(str(error))}"
        raise RequestFailed(Code.FAILED, sentence) from None
    return told if isinstance(told, dict) else _plain(told, who)


def check(shape: type, takes: Takes, what: str) -> None:
    """Raise TypeError for a method that `shape` does not have; those of its parts show later."""
    for type, (_, method) in takes.items():
        if "." not in method and not callable(getattr(shape, method, None)):
            raise TypeError(f"{shape.__name__}.{what}: {type}: there is no method {method}")


def _read(body: bytes, shape: Any) -> Any:
    return body if shape is bytes else decode_json(body, shape)


def _plain(answer: msgspec.Struct, who: str) -> dict[str, Any]:
    """Return an answer as JSON has it. Raises RequestFailed for one that is none of its type: what
    a partner tells may be longer than what a message of the bus may hold."""
    plain: dict[str, Any] = msgspec.to_builtins(answer)
    try:
        msgspec.convert(plain, type(answer))
    except msgspec.ValidationError as error:
        place = bad_input(str(error))
        sentence = f"{who}'s answer does not fit: {place.path}: {place.rule}"
        raise RequestFailed(Code.FAILED, sentence) from None
    return plain
