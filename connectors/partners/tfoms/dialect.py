"""What every dialect of the fund's question can do: say whose policy it is on a date."""

from typing import Final, Literal, Protocol

from connectors.runtime import checks
from connectors.runtime.partner.partner import BadReply
from proto import schemas
from proto.note import coded

# A policy's kind as a register tells it (F008: 1 old, 2 temporary, 3 with an ЕНП) by the letter or
# number that the registers of the insured have; what is unknown here has an ЕНП.
KINDS: Final[dict[str, Literal[1, 2, 3]]] = {
    "1": 1, "2": 2, "3": 3,
    "С": 1, "В": 2, "П": 3, "Э": 3, "К": 3, "Х": 3, "Ц": 3,
}  # fmt: skip
PERSONS_MAX: Final = 20  # more who fit help nobody: the question is to be narrower


class Dialect(Protocol):
    """One contract with the fund."""

    async def insured(self, asked: schemas.InsuranceQuestion) -> schemas.InsuranceAnswer:
        """Ask whose policy it is. Raises Retry when the fund does not answer, Reject when it
        refuses the question."""

    async def close(self) -> None:
        """Let go of what the dialect holds besides the partner."""


def sound(answer: schemas.InsuranceAnswer, status: int = 200) -> schemas.InsuranceAnswer:
    """Return an answer of HTTP status `status`. Raises BadReply for one that contradicts itself, or
    that names an ЕНП with a wrong digit."""
    count = len(answer.persons)
    fits = {"found": count == 1, "ambiguous": count > 1, "not_found": count == 0}
    known = all(checks.enp_problem(one.enp) is None for one in answer.persons)
    if not fits[answer.outcome] or not known:
        raise BadReply(coded("connector.bad_reply", status=status))
    return answer


def answer_of(persons: list[schemas.InsuredPerson]) -> schemas.InsuranceAnswer:
    """Return the answer that these persons make."""
    outcome: Literal["found", "ambiguous", "not_found"] = "found"
    if len(persons) != 1:
        outcome = "ambiguous" if persons else "not_found"
    return schemas.InsuranceAnswer(outcome=outcome, persons=persons)
