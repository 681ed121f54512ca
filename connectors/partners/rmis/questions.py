"""Questions to the hospitals' system: who is it, what must the brigade know, where is a bed.

They are answered at once or not at all: nothing of them is queued. Who somebody is, and the extract
of the health record, are kept by the lookup layer; free beds never are.
"""

from functools import partial
from typing import Final

import msgspec

from connectors.partners.rmis.dialect import Dialect, Identifier
from connectors.runtime import checks
from connectors.services.lookup import PATIENTS, SUMMARY, Lookup
from connectors.services.lookup.question import spelt
from proto import clinical
from proto.client import Retry
from proto.errors import Code, RequestFailed
from proto.wording import text

# What a brigade can read on its way, and a message of the bus may carry.
SHOWN_MAX: Final = 100


class Questions:
    """Answers, by the dialect and what is kept. `who`, if it is given, says who somebody is, in the
    dialect's place."""

    def __init__(self, dialect: Dialect, lookup: Lookup, who: Identifier | None = None) -> None:
        self._dialect = dialect
        self._who: Identifier = who or dialect
        self._lookup = lookup

    async def identify(self, asked: clinical.PatientQuestion) -> clinical.PatientAnswer:
        """Say who it is. Raises RequestFailed, Retry, Reject or Untold."""
        if wrong := problem(asked):
            raise RequestFailed(Code.BAD_MESSAGE, wrong)
        load = partial(self._ask, asked)
        found = await self._lookup.get(PATIENTS, question_of(asked), load)
        return found or clinical.PatientAnswer(outcome="not_found")

    async def _ask(self, asked: clinical.PatientQuestion) -> clinical.PatientAnswer | None:
        answer = await self._who.identify(asked)
        count = len(answer.patients)
        fits = {"found": count == 1, "ambiguous": count > 1, "not_found": count == 0}
        if not fits[answer.outcome]:
            raise Retry("the answer contradicts itself")
        return answer if answer.patients else None

    async def summary(self, asked: clinical.SummaryQuestion) -> clinical.PatientSummary:
        """Say what a brigade must know. Raises Retry, Reject or Untold."""
        load = partial(self._extract, asked.patient)
        found = await self._lookup.get(SUMMARY, (asked.patient,), load)
        return found or clinical.PatientSummary(patient=asked.patient, known=False)

    async def _extract(self, patient: str) -> clinical.PatientSummary:
        return bounded(await self._dialect.summary(patient))

    async def hospitals(self, asked: clinical.HospitalQuestion) -> clinical.HospitalAnswer:
        """Say where beds are free. Raises Retry, Reject or Untold."""
        return await self._dialect.hospitals(asked.profile)


def bounded(summary: clinical.PatientSummary) -> clinical.PatientSummary:
    """Return the beginning of a long extract, with the latest stays in hospital; the last of the
    warnings says that it is cut."""
    stays = sorted(summary.discharges, key=lambda stay: stay.ends, reverse=True)
    lists = (summary.allergies, summary.diagnoses, stays, summary.warnings)
    if all(len(one) <= SHOWN_MAX for one in lists):
        return summary
    return msgspec.structs.replace(
        summary,
        allergies=summary.allergies[:SHOWN_MAX],
        diagnoses=summary.diagnoses[:SHOWN_MAX],
        discharges=stays[:SHOWN_MAX],
        warnings=[*summary.warnings[: SHOWN_MAX - 1], text("rmis.extract_cut", count=SHOWN_MAX)],
    )


def problem(asked: clinical.PatientQuestion) -> str | None:
    """Return what makes a question senseless: the field and the rule, never the value."""
    if asked.enp and (rule := checks.enp_problem(asked.enp, asked.birth_date)):
        return f"enp: {rule}"
    if asked.snils and (rule := checks.snils_problem(asked.snils)):
        return f"snils: {rule}"
    by_number = asked.enp or asked.policy_number or asked.snils or asked.document
    named = asked.family and asked.given
    at_home = asked.age_years is not None and asked.street and asked.house
    if not (by_number or (named and (asked.birth_date or at_home))):
        return (
            "name enp, policy_number, snils or document; or family, given and birth_date; or"
            " family, given, age_years, street and house"
        )
    return None


def question_of(asked: clinical.PatientQuestion) -> tuple[str, ...]:
    """Return a question in the one spelling under which its answer is kept."""
    document = asked.document
    parts = (
        asked.enp, asked.policy_series, asked.policy_number, asked.snils,
        f"{document.type}/{document.series or ''}/{document.number}" if document else None,
        asked.family, asked.given, asked.middle, asked.birth_date,
        asked.age_years, asked.street, asked.house, asked.flat,
    )  # fmt: skip
    return tuple(spelt(part) for part in parts)
