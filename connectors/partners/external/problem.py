"""What is refused, as RFC 9457 has it."""

from typing import Final

import msgspec
from starlette.responses import Response

from connectors.partners.external.contract import PROBLEM_TYPE, Problem, ProblemKind
from connectors.runtime.door.body import BadInput
from connectors.runtime.door.door import Verdict

TITLES: Final[dict[ProblemKind, tuple[int, str]]] = {
    "unauthorized": (401, "No good token"),
    "elsewhere": (403, "Not from this address"),
    "no_such_call": (404, "No such call"),
    "no_such_page": (404, "No such address or method"),
    "bad_request": (400, "The request breaks a rule"),
    "idempotency_key": (400, "No good Idempotency-Key"),
    "key_reused": (422, "This Idempotency-Key belongs to another request"),
    "ended": (409, "The call has ended"),
    "too_large": (413, "The request is too large"),
    "media_type": (415, "The request is not JSON"),
    "quota": (429, "The quota is used up"),
    "bus_away": (503, "The bus is away"),
    "failed": (500, "The bus cannot take this"),
}


KINDS: Final[dict[int, ProblemKind]] = {413: "too_large", 415: "media_type"}


class Refusal(Exception):
    """A request is refused; it is answered with `response`."""

    def __init__(
        self,
        kind: ProblemKind,
        detail: str,
        *,
        bad: BadInput | None = None,
        retry_after_s: int | None = None,
        status: int | None = None,
    ) -> None:
        super().__init__(kind)
        self.kind: ProblemKind = kind
        self.status, self.title = TITLES[kind]
        self.status = status or self.status
        self.detail = detail
        self.bad = bad
        self.retry_after_s = retry_after_s

    @classmethod
    def of(cls, bad: BadInput) -> "Refusal":
        """Return the refusal of an input that breaks a rule."""
        return cls(KINDS.get(bad.status, "bad_request"), bad.sentence, bad=bad)

    @classmethod
    def by(cls, verdict: Verdict) -> "Refusal":
        """Return the refusal that the bus's verdict makes."""
        if verdict.bad is not None:
            return cls.of(verdict.bad)
        kind: ProblemKind = "bus_away" if verdict.status == 503 else "failed"
        return cls(kind, verdict.sentence, retry_after_s=verdict.retry_after_s)

    def response(self) -> Response:
        """Return what is answered."""
        headers = {}
        if self.kind == "unauthorized":
            headers["www-authenticate"] = "Bearer"
        if self.retry_after_s is not None:
            headers["retry-after"] = str(self.retry_after_s)
        problem = Problem(
            type=f"urn:smpbus:problem:{self.kind}",
            title=self.title,
            status=self.status,
            detail=self.detail,
            path=self.bad.path if self.bad else None,
            rule=self.bad.rule if self.bad else None,
        )
        return Response(msgspec.json.encode(problem), self.status, headers, PROBLEM_TYPE)
