"""The words of System-112, from the tables of config/: what it says, and what it hears of a status.

Source of the reactions: docs/domain.md 2.3.
"""

from typing import Any, Final, NamedTuple, get_args

from connectors.partners.sys112 import contract
from connectors.services.vocabulary import Table, load_codes, load_statuses
from proto import schemas

COLUMN: Final = "sys112"
FINISH: Final = "FinishReaction"
LAST: Final = "last"
# Which column of the chain holds for a status: of a brigade whose call ends with it or goes on, or
# of the polyclinic's urgent care.
ENDING: Final = "sys112"
GOING_ON: Final = "sys112_goes_on"
URGENT: Final = "sys112_urgent"


class Reaction(NamedTuple):
    """What System-112 hears: an ActionType of AddReaction, "FinishReaction", or "last" for the last
    one of the call that is doubled; and a remark for an event that brings none."""

    word: str
    remark: str | None = None


class Words:
    """Both ways, for one connector."""

    def __init__(self, codes: dict[str, Table] | None = None, chain: Table | None = None) -> None:
        """Raises StartError when a table is broken, or is not what the protocol has."""
        codes = load_codes() if codes is None else codes
        chain = load_statuses() if chain is None else chain
        self.states = _both(codes["card_state"], get_args(contract.IncidentState))
        self.kinds = _both(codes["contact_kind"], map(str, get_args(contract.IerType)))
        self.sexes = _both(codes["sex"], get_args(contract.Gender))
        self.units = _both(codes["age_unit"], get_args(contract.AgeUnit))
        self.stages = codes["card_state"].words("riams")
        self._reactions = {name: _reactions(chain, name) for name in (ENDING, GOING_ON, URGENT)}

    def reaction(self, status: schemas.StatusEvent) -> Reaction | None:
        """Return what System-112 hears of a status; None: nothing."""
        name = GOING_ON if status.goes_on else ENDING
        if status.service == "urgent_care":
            name = URGENT
        return self._reactions[name].get(status.code)

    def is_told(self, status: schemas.StatusEvent) -> bool:
        """Whether System-112 hears of a status itself, not of another one in its place."""
        reaction = self.reaction(status)
        return reaction is not None and reaction.word != LAST

    def is_over(self, state: schemas.CardState) -> bool:
        """Whether the work on a card is done: there is no way back (docs/domain.md 2.2)."""
        return self.stages.get(state) in ("3", "4")

    def is_at_work(self, state: schemas.CardState) -> bool:
        """Whether a card is new or worked on."""
        return self.stages.get(state) in ("1", "2")


class Both(NamedTuple):
    """One list of codes: their words by ours, ours by theirs."""

    out: dict[str, str]
    back: dict[str, Any]


def _both(table: Table, allowed: Any) -> Both:
    table.check(COLUMN, tuple(allowed), whole=True)
    return Both(table.words(COLUMN), table.meanings(COLUMN))


def _reactions(chain: Table, column: str) -> dict[str, Reaction]:
    allowed = (*get_args(contract.ActionType), FINISH, LAST)
    found = {}
    for code, told in chain.words(column).items():
        word, _, remark = told.partition(":")
        if word not in allowed:
            chain.fail("no_word", code, column, word)
        found[code] = Reaction(word, remark.strip() or None)
    return found
