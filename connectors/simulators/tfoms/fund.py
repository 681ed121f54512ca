"""What the simulated fund knows: made-up people and their policies; two of its registers' controls.

Person number LAPSED has no policy since 2025; number MOVED is insured in another territory.
"""

from datetime import date
from typing import Any, Final, NamedTuple

from connectors.simulators.kit.people import people
from proto import schemas

INSURER, INSURER_OGRN, OKATO = "99001", "1029900000017", "99000"
ELSEWHERE: Final = ("98001", "1029800000016", "98000")
LAPSED, MOVED = 5, 10


class Policy(NamedTuple):
    """A policy, from and to which day it holds."""

    insurer: str
    ogrn: str
    okato: str
    begins: date
    ends: date | None


class Fund:
    """Everybody who was ever insured."""

    def __init__(self, seed: int) -> None:
        self.people = people(seed)

    def insured(self, asked: schemas.InsuranceQuestion) -> list[tuple[dict[str, Any], Policy]]:
        """Return whoever fits the question and has a policy on its date."""
        found = [(one, self.policy(one, asked.on_date)) for one in self.fitting(asked)]
        return [(one, policy) for one, policy in found if policy is not None]

    def fitting(self, asked: schemas.InsuranceQuestion) -> list[dict[str, Any]]:
        """Return whoever fits the question, insured or not."""
        return [one for one in self.people if _fits(one, asked)]

    def policy(self, person: dict[str, Any], day: date) -> Policy | None:
        """Return the policy of a day."""
        number = self.people.index(person)
        ends = date(2024, 12, 31) if number == LAPSED else None
        where = ELSEWHERE if number == MOVED else (INSURER, INSURER_OGRN, OKATO)
        policy = Policy(*where, date(2020, 1, 1), ends)
        return policy if policy.begins <= day <= (ends or date.max) else None


def _fits(person: dict[str, Any], asked: schemas.InsuranceQuestion) -> bool:
    if number := asked.enp or asked.policy_number:
        return bool(person["enp"] == number)
    born = asked.birth_date.isoformat() if asked.birth_date else ""
    named = (person["family"], person["given"], person["birth_date"])
    return named == ((asked.family or "").upper(), (asked.given or "").upper(), born)
