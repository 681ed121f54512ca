"""What a call that is handed in must say beyond its shape. Pure: the caller gives the time."""

from datetime import datetime, timedelta
from typing import Final

from connectors.runtime.checks import enp_problem, snils_problem
from connectors.runtime.door.body import BadInput
from proto.external import HandIn
from proto.schemas import Person

CLOCKS_DIFFER: Final = timedelta(minutes=5)


def check(call: HandIn, now: datetime) -> None:
    """Raise BadInput for the first rule that is broken: a brigade must know where to go and why,
    and numbers of persons must be possible ones."""
    if call.received_at > now + CLOCKS_DIFFER:
        raise BadInput("received_at", "is in the future")
    if not call.address.text.strip() and call.address.geo is None:
        raise BadInput("address.text", "is empty, and address.geo is missing: where to?")
    if not (call.reason.code.strip() or (call.reason.text or "").strip()):
        raise BadInput("reason.code", "is empty, and reason.text too: why?")
    for index, person in enumerate(call.patients):
        for field, problem in _problems(person, now):
            raise BadInput(f"patients[{index}].{field}", problem)


def _problems(person: Person, now: datetime) -> list[tuple[str, str]]:
    found = []
    if person.snils is not None and (problem := snils_problem(person.snils)):
        found.append(("snils", problem))
    if person.enp is not None and (problem := enp_problem(person.enp, person.birth_date)):
        found.append(("enp", problem))
    if person.birth_date is not None and person.birth_date > (now + timedelta(days=1)).date():
        found.append(("birth_date", "is in the future"))
    return found
