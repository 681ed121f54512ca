"""The partner's door: an HTTP request becomes messages, and is answered by what the bus said.

2xx only after the router's ACCEPTED. What breaks the contract is answered 400 with the field and
the rule, and told to the bus as `input.rejected.v1`. When the bus does not accept in time the
answer is 503 with Retry-After and a sentence: the partner keeps the data and repeats.
"""

import hashlib
import math
import uuid
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final, NamedTuple

import msgspec
from starlette.requests import Request
from starlette.responses import Response

from connectors.runtime.bus.ingress import REJECTED, Ingress, NotAccepted
from connectors.runtime.door.body import BadInput, read_body
from connectors.runtime.door.counted import Counted
from connectors.runtime.log import LOG
from connectors.runtime.oddities import Odd, told
from connectors.runtime.partner.limiter import Limiter
from connectors.runtime.statefile import StateAway
from proto import clock, schemas
from proto.message import Message, now_ms
from proto.wording import text

REJECTED_KEPT_MS: Final = 30 * 24 * 3600 * 1000  # then nobody will ask for it any more
# Refusals beyond these are counted and not told to the bus, one by one: who sends nonsense without
# end would have the bus sync for each of it.
TOLD_PER_S: Final = 20.0
TOLD_AT_ONCE: Final = 1000
ACCEPTED: Final = "accepted"
NAMESPACE: Final = uuid.UUID("6f1d3f0e-1120-5d8a-9c51-000000000112")

Make = Callable[[str, bytes], list[Message]]
Answer = Callable[[int, str, str], bytes]


class Verdict(NamedTuple):
    """What to answer: `status` as HTTP has it, a sentence for people, when to repeat, and which
    field broke which rule."""

    status: int
    sentence: str
    retry_after_s: int | None = None
    bad: BadInput | None = None


class _WithOdd(list[Message]):
    def __init__(self, messages: list[Message], odd: list[Odd]) -> None:
        super().__init__(messages)
        self.odd = odd


class Mended(_WithOdd):
    """Messages of an emergency that is taken although something had to be left out of its fields
    `odd`."""


class SetAside(_WithOdd):
    """Messages of a post of which some items, `odd`, break the contract: those are told to the
    administrator by messages among these, and the rest is taken."""


def message_id(*identity: str | None) -> str:
    """Return the id of what `identity` names: the same for every repeat of a partner."""
    return str(uuid.uuid5(NAMESPACE, msgspec.json.encode(identity).decode()))


class Door:
    """Answers what is asked of one connector. `answer(status, about, sentence)` is a body of its
    contract; `subject(about)` is the subject of what concerns `about`."""

    def __init__(
        self,
        ingress: Ingress,
        *,
        system: str,
        bytes_max: int,
        answer: Answer,
        subject: Callable[[str], str],
    ) -> None:
        self._ingress = ingress
        self._system = system
        self._bytes_max = bytes_max
        self._answer = answer
        self._subject = subject
        self._counted = Counted()
        self._told = Limiter(TOLD_PER_S, TOLD_AT_ONCE)

    async def answer(
        self, request: Request, operation: str, make: Make, about: str | None = None
    ) -> Response:
        """Answer a request of `operation`; `about` names the path parameter of its object.

        `make(about, body)` returns the messages, or raises BadInput. No messages means that the
        settings send this nowhere: the partner is told so, and need not repeat.
        """
        name = str(request.path_params[about]) if about else ""
        body = b""

        def messages() -> list[Message]:
            if len(name) > 200:
                raise BadInput(about or "", "is longer than 200 characters")
            return make(name, body)

        try:
            body = await read_body(request, self._bytes_max)
        except BadInput as bad:
            verdict = await self._refuse(operation, name[:200], body, bad)
        else:
            verdict = await self.take(operation, name[:200], body, messages)
        return self._response(name, verdict)

    async def take(
        self, operation: str, about: str, body: bytes, make: Callable[[], list[Message]]
    ) -> Verdict:
        """Publish what `make` returns and say what to answer, whatever the protocol is. `make` may
        raise BadInput; `body` is what came, for its digest."""
        try:
            messages = make()
        except BadInput as bad:
            return await self._refuse(operation, about, body, bad)
        except StateAway as away:
            return Verdict(503, "The service bus is busy; please repeat.", math.ceil(away.wait_s))
        except Exception as error:  # its text may hold personal data
            kind = type(error).__name__
            LOG.error(text("connector.mistake", id=operation, kind=kind))
            return Verdict(500, "The service bus made a mistake; please repeat.")
        if not messages:
            return Verdict(200, f"not passed on: {operation} is switched off here")
        try:
            await self._ingress.publish(messages)
        except NotAccepted as error:
            return self._not_accepted(error)
        if isinstance(messages, Mended) and messages.odd:
            return Verdict(200, self._mended(operation, messages.odd))
        if isinstance(messages, SetAside) and messages.odd:
            aside = told(messages.odd)
            return Verdict(200, f"{ACCEPTED}, but for what breaks the contract: {aside}")
        return Verdict(200, ACCEPTED)

    def _mended(self, operation: str, odd: list[Odd]) -> str:
        """Tell both sides that an emergency was taken, and which fields lost something."""
        line = text(
            "connector.mended_input", system=self._system, operation=operation, fields=told(odd)
        )
        self._counted.warning(f"{self._system}, {operation}, mended", line)
        return f"{ACCEPTED}; characters that no text may have were left out: {told(odd)}"

    async def _refuse(self, operation: str, about: str, body: bytes, bad: BadInput) -> Verdict:
        digest = hashlib.sha256(body).hexdigest()
        rejected = schemas.RejectedInput(
            partner=self._ingress.name,
            operation=operation,
            path=bad.path[:400],
            rule=bad.rule,
            about=about,
            digest=digest[:16],
            recorded_at=datetime.now(UTC),
        )
        line = text(
            "connector.refused_input",
            system=self._system,
            operation=operation,
            path=bad.path or "body",
            rule=bad.rule,
        )
        self._counted.warning(f"{self._system}, {operation}, refused", line)
        if self._told.admit(clock.monotonic()):
            self._ingress.rejected += 1
            return Verdict(bad.status, bad.sentence, bad=bad)
        message = Message.new(
            REJECTED,
            self._ingress.name,
            rejected,
            subject=self._subject(about) if about else "",
            id=message_id(REJECTED, operation, about, digest),
            expires=now_ms() + REJECTED_KEPT_MS,
        )
        try:
            await self._ingress.publish([message])
        except NotAccepted as error:
            if error.temporary:
                return self._not_accepted(error)
            LOG.error(text("connector.not_published", system=self._system, code=error.code))
        return Verdict(bad.status, bad.sentence, bad=bad)

    def _not_accepted(self, error: NotAccepted) -> Verdict:
        told = text("connector.not_published", system=self._system, code=error.code)
        if error.temporary:
            LOG.debug(told)
            return Verdict(503, error.sentence, error.retry_after_s)
        LOG.error(told)
        return Verdict(500, f"The service bus cannot take this: {error.code}")

    def _response(self, about: str, verdict: Verdict) -> Response:
        after_s = verdict.retry_after_s
        headers = {} if after_s is None else {"retry-after": str(after_s)}
        body = self._answer(verdict.status, about, verdict.sentence)
        return Response(body, verdict.status, headers, "application/json")
