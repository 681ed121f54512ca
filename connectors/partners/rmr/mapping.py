"""Words of the register <-> words of the bus, and the rules a record must keep."""

import re
from collections.abc import Callable
from typing import Any, Final

from connectors.partners.rmr import contract
from connectors.runtime.checks import snils_problem
from connectors.runtime.door.body import BadInput, convert
from proto import schemas

POSTS: Final = "1.2.643.5.1.13.13.11.1002"
SPECIALITIES: Final = "1.2.643.5.1.13.13.11.1066"

Name = Callable[[str, str], str | None]


def worker_in(raw: dict[str, Any], name: Name) -> schemas.Worker:
    """Return a record as the bus has it; `name(list, code)` is what people read for a code.

    Raises BadInput with the field and the rule.
    """
    record = convert(raw, contract.Record)

    def coded(system: str, code: str) -> schemas.Coded:
        return schemas.Coded(code=code, system=system, text=name(system, code))

    return schemas.Worker(
        id=record.id,
        snils=snils_of(record.snils),
        family=record.family,
        given=record.given,
        middle=record.middle,
        birth_date=record.birth_date,
        sex=record.sex,
        positions=[
            schemas.Position(
                organisation=one.mo_oid,
                department=one.department,
                post=coded(POSTS, one.position_code),
                rate=one.rate,
                kind=one.type,
                begins=one.begins,
                ends=one.ends,
            )
            for one in record.positions
        ],
        specialities=[_speciality(one, coded) for one in record.specialities],
        dismissed=record.dismissed,
        changed_at=record.changed_at,
    )


def _speciality(
    one: contract.Speciality, coded: Callable[[str, str], schemas.Coded]
) -> schemas.Speciality:
    certificate = one.certificate or contract.Certificate()
    return schemas.Speciality(
        code=coded(SPECIALITIES, one.code),
        certificate=certificate.number,
        begins=certificate.begins,
        ends=certificate.ends,
    )


def snils_of(written: str) -> str:
    """Return the 11 digits of a СНИЛС. Raises BadInput when its check digits are wrong."""
    digits = re.sub(r"[ \-]", "", written)
    if problem := snils_problem(digits):
        raise BadInput("snils", problem)
    return digits
