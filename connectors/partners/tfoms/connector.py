"""The connector of the insurance fund: answers whose policy it is on a date, and keeps the call
cards that a register will bill (`smpbus register`).

How the fund is asked depends on the dialect; what is kept does not.
"""

import asyncio
import time
from collections import Counter
from datetime import date
from functools import partial
from pathlib import Path
from typing import Annotated, Any, ClassVar, Final, Literal

import msgspec

from connectors.billing.draft import Draft, draft_of, question_about
from connectors.billing.store import Checked, Store, Why
from connectors.partners.tfoms.canonical import Canonical
from connectors.partners.tfoms.dialect import Dialect
from connectors.partners.tfoms.ferzl import Ferzl, FerzlSettings
from connectors.partners.tfoms.hl7 import Hl7, Hl7Settings
from connectors.runtime import checks
from connectors.runtime.bus.connector import Connector
from connectors.runtime.bus.settings import ConnectorSettings, Listen
from connectors.runtime.partner.partner import PartnerSettings
from connectors.runtime.statefile import StateAway
from connectors.services.lookup import INSURED, Lookup, LookupSettings
from connectors.services.lookup.question import spelt
from proto import clinical, schemas
from proto.client import BusClient, Delivery, Reject, Retry
from proto.errors import Code, RequestFailed
from proto.exits import StartError
from proto.note import coded
from proto.wording import text

NAME: Final = "tfoms"
ASKED_AT_ONCE: Final = 8
AGAIN_MAX_S: Final = 7 * 86_400.0


class TfomsSettings(ConnectorSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """[connectors.tfoms]; `listen` is the page of figures. Call cards are kept in `store_file`. A
    card whose patient the fund did not answer about is asked about again after `again_s`, one that
    it does not know after `unknown_again_s`, then after twice as long each time."""

    partner: PartnerSettings
    listen: Listen = "127.0.0.1:7117"
    dialect: Literal["canonical", "ferzl", "hl7"] = "canonical"
    ferzl: FerzlSettings | None = None
    hl7: Hl7Settings = Hl7Settings()
    lookup: LookupSettings = LookupSettings()
    store_file: Path = Path("/var/lib/smpbus/tfoms/cards.db")
    poll_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] = 15.0
    again_s: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = 60.0
    unknown_again_s: Annotated[float, msgspec.Meta(gt=0, le=604_800)] = 86_400.0


class TfomsConnector(Connector):
    """See the module. Answers are kept for half a day, that there is none for five minutes."""

    Settings: ClassVar = TfomsSettings
    takes: ClassVar = {"call.card.v1": (clinical.CallCard, "keep_card")}
    answers: ClassVar = {"insurance.lookup.v1": (schemas.InsuranceQuestion, "insured")}
    asked_is: ClassVar = "the fund"
    owns: ClassVar = ("lookup", "dialect", "store")
    keeps: ClassVar = ("store.state",)
    settings: TfomsSettings
    waits_for_partner: ClassVar = False

    def __init__(self, name: str, settings: TfomsSettings, bus: BusClient) -> None:
        """Raises StartError."""
        super().__init__(name, settings, bus)
        self.poll_s = settings.poll_s
        self.lookup = Lookup(settings.lookup)
        self.dialect = self._dialect()
        self.store = Store(settings.store_file)
        self._came: Counter[str] = Counter()

    def _dialect(self) -> Dialect:
        if self.settings.dialect == "ferzl":
            if self.settings.ferzl is None:
                raise StartError(text("tfoms.no_token_source"))
            return Ferzl(self.name, self.partner, self.settings.ferzl)
        if self.settings.dialect == "hl7":
            return Hl7(self.partner, self.settings.hl7)
        return Canonical(self.partner)

    def forget(self) -> None:
        """See Connector."""
        self.store.forget_old(date.today(), self.settings.retention.fund_card_days)

    # -- call cards -----------------------------------------------------------------------------

    async def keep_card(self, card: clinical.CallCard, delivery: Delivery) -> str:
        """Keep a call card for its register."""
        draft = draft_of(card)
        came = self.store.came(draft)
        self._came[came] += 1
        if came != "kept":
            return coded(f"tfoms.{came}")
        checked = await self._check(draft, asked=0)
        self.store.keep(draft, delivery.message.subject, checked)
        self.forget()
        if checked.why:
            return coded("tfoms.unpaid", why=coded(f"tfoms.why_{checked.why}"))
        return coded("tfoms.kept")

    async def poll(self) -> None:
        """Ask again about cards whose policy is not known, while the fund answers."""
        while self.partner.breaker.wait_s(time.monotonic()) == 0:
            closed = self.partner.breaker.closed
            waiting = self.store.take_due(ASKED_AT_ONCE if closed else 1)
            if not waiting:
                return
            asking = [self._check(one.draft, one.asked, probe=True) for one in waiting]
            for one, checked in zip(waiting, await asyncio.gather(*asking), strict=True):
                self.store.checked(one.draft, checked)

    async def _check(self, draft: Draft, asked: int, *, probe: bool = False) -> Checked:
        """Return what is known of the policy on the day of the call; `asked` times before. A fund
        that is away is not waited for, but by a `probe`."""
        question = question_about(draft)
        if question is None:
            return Checked("nobody")
        try:
            if not (probe or self.partner.breaker.closed):
                raise Retry("")
            found = await self._insured(question)
        except (Retry, Reject):
            return self._later("silent", self.settings.again_s, asked)
        if found.outcome != "found":
            return self._later(found.outcome, self.settings.unknown_again_s, asked)
        insured = found.persons[0]
        return Checked("" if insured.insurer else "no_insurer", insured)

    @staticmethod
    def _later(why: Why, after_s: float, asked: int) -> Checked:
        pause_s = min(after_s * 2.0 ** min(asked, 20), max(after_s, AGAIN_MAX_S))
        return Checked(why, ask_at=int(time.time() + pause_s))

    # -- questions ------------------------------------------------------------------------------

    async def insured(self, asked: schemas.InsuranceQuestion) -> dict[str, Any]:
        """Answer with an InsuranceAnswer. Raises RequestFailed, Retry or Reject."""
        if wrong := problem(asked):
            raise RequestFailed(Code.BAD_MESSAGE, wrong)
        plain: dict[str, Any] = msgspec.to_builtins(await self._insured(asked))
        return {"persons": [], **plain}

    async def _insured(self, asked: schemas.InsuranceQuestion) -> schemas.InsuranceAnswer:
        """Return the answer, cached or new. Raises Retry or Reject."""
        found = await self.lookup.get(INSURED, question_of(asked), partial(self._ask, asked))
        return found or schemas.InsuranceAnswer(outcome="not_found")

    async def _ask(self, asked: schemas.InsuranceQuestion) -> schemas.InsuranceAnswer | None:
        """Ask the fund; None when it knows nobody. Raises Retry or Reject."""
        answer = await self.dialect.insured(asked)
        return answer if answer.persons else None

    # -- figures --------------------------------------------------------------------------------

    def figures(self) -> dict[str, Any]:
        """Return the counters of lookups, of cards that came to this process, and how many are
        kept, by why nobody pays for them."""
        try:
            kept = {why or "payable": count for why, count in self.store.counts().items()}
        except StateAway:
            kept = {}
        return {"lookup": self.lookup.figures(), "cards": {"came": self._came, "kept": kept}}


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
