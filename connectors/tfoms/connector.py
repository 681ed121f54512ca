"""The connector of the insurance fund: answers whose policy it is on a date.

The contract is HTTP and JSON: POST {url}/insured, an InsuranceQuestion -> an InsuranceAnswer, both
in the bus's own words (proto/schemas.py).
"""

from functools import partial
from typing import Annotated, Any, ClassVar, Final

import msgspec
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from connectors.lookup import INSURED, Lookup, LookupSettings
from connectors.lookup.question import spelt
from connectors.runtime import checks
from connectors.runtime.connector import Connector
from connectors.runtime.partner import Answer, BadReply, PartnerSettings
from connectors.runtime.reply import read_reply
from connectors.runtime.settings import ConnectorSettings
from proto import schemas
from proto.client import BusClient, Delivery, Reject, Retry
from proto.errors import Code, RequestFailed
from proto.identifiers import new_id
from proto.message import Message
from proto.wording import text

PATH: Final = "/insured"
TYPE: Final = "insurance.lookup.v1"


class TfomsSettings(ConnectorSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[connectors.tfoms]; `listen` is the page of figures."""

    partner: PartnerSettings
    listen: Annotated[str, msgspec.Meta(pattern=r"^.+:\d{1,5}$")] = "127.0.0.1:7117"
    lookup: LookupSettings = LookupSettings()


class TfomsConnector(Connector):
    """See the module. Answers are kept for half a day, that there is none for five minutes."""

    Settings: ClassVar[type[ConnectorSettings]] = TfomsSettings
    settings: TfomsSettings

    def __init__(self, name: str, settings: TfomsSettings, bus: BusClient) -> None:
        """Raises StartError."""
        super().__init__(name, settings, bus)
        self.lookup = Lookup(settings.lookup)
        bus.serve(self.destination, self.answer)

    async def close(self) -> None:
        """Let go of the fund and of the caches."""
        await super().close()
        await self.lookup.close()

    async def handle(self, delivery: Delivery) -> str | None:
        """Nothing is queued for the fund. Raises Reject."""
        raise Reject(text("connector.note_no_type", type=delivery.message.type))

    async def answer(self, message: Message) -> dict[str, Any]:
        """Answer a question with an InsuranceAnswer. Raises RequestFailed."""
        if message.type != TYPE:
            raise RequestFailed(Code.UNKNOWN_TYPE, f"{self.name} answers {TYPE} only")
        try:
            asked = msgspec.json.decode(message.body, type=schemas.InsuranceQuestion)
        except (msgspec.DecodeError, UnicodeDecodeError):
            raise RequestFailed(Code.BAD_MESSAGE, "the body is not an InsuranceQuestion") from None
        if wrong := problem(asked):
            raise RequestFailed(Code.BAD_MESSAGE, wrong)
        try:
            found = await self.lookup.get(INSURED, question_of(asked), partial(self._ask, asked))
        except (Retry, Reject) as error:
            raise RequestFailed(Code.FAILED, f"the fund does not answer: {error}") from None
        answer = found or schemas.InsuranceAnswer(outcome="not_found")
        plain: dict[str, Any] = msgspec.to_builtins(answer)
        return {"persons": [], **plain}

    async def _ask(self, asked: schemas.InsuranceQuestion) -> schemas.InsuranceAnswer | None:
        """Ask the fund; None when it knows nobody. Raises Retry or Reject."""
        body = msgspec.json.encode(asked)
        return await self.partner.ask("POST", PATH, body, new_id(), _read)

    def figures(self) -> dict[str, Any]:
        """Return the counters of lookups."""
        return {"lookup": self.lookup.figures()}

    def app(self) -> Starlette:
        """Return the page of figures, GET /figures."""

        async def figures(_: Request) -> Response:
            return Response(msgspec.json.encode(self.figures()), media_type="application/json")

        return Starlette(routes=[Route("/figures", figures)])


def _read(reply: Answer) -> schemas.InsuranceAnswer | None:
    """Raises BadReply or Reject."""
    if reply.status >= 300:
        raise Reject(f"HTTP {reply.status}")
    answer = read_reply(reply, schemas.InsuranceAnswer)
    count = len(answer.persons)
    fits = {"found": count == 1, "ambiguous": count > 1, "not_found": count == 0}
    sound = all(checks.enp_problem(one.enp) is None for one in answer.persons)
    if not fits[answer.outcome] or not sound:
        raise BadReply(text("connector.note_bad_reply", status=reply.status))
    return answer if answer.persons else None


def problem(asked: schemas.InsuranceQuestion) -> str | None:
    """Return what makes a question senseless: the field and the rule, never the value."""
    if asked.enp and (rule := checks.enp_problem(asked.enp, asked.birth_date)):
        return f"enp: {rule}"
    if asked.snils and (rule := checks.snils_problem(asked.snils)):
        return f"snils: {rule}"
    by_names = asked.family and asked.given and asked.birth_date
    if not (asked.enp or asked.snils or asked.policy_number or asked.document or by_names):
        return "name enp, snils, policy_number, document, or family, given and birth_date"
    return None


def question_of(asked: schemas.InsuranceQuestion) -> tuple[str, ...]:
    """Return a question in the one spelling under which its answer is kept."""
    document = asked.document
    parts = (
        asked.on_date, asked.enp, asked.snils, asked.policy_number,
        f"{document.type}/{document.series or ''}/{document.number}" if document else None,
        asked.family, asked.given, asked.middle, asked.birth_date,
    )  # fmt: skip
    return tuple(spelt(part) for part in parts)
