"""One case to be billed, as the ambulance system tells it, and what is wrong with it."""

from collections.abc import Iterator
from datetime import date
from decimal import Decimal
from typing import Annotated, Final, Literal

import msgspec

from connectors.billing.profile import Tables
from connectors.runtime import checks
from proto.pattern import exactly

Text36 = Annotated[str, msgspec.Meta(min_length=1, max_length=36)]
Name = Annotated[str, msgspec.Meta(min_length=1, max_length=40)]
MONEY_MAX: Final = Decimal(10**13)
POLICY_ENP = 3  # VPOLIS, F008: a policy with one number for all of Russia


class Patient(msgspec.Struct, frozen=True, kw_only=True):
    """Whom it was done for. Somebody unknown has no names; the territory's rules say what then."""

    id: Text36
    family: Name | None = None
    given: Name | None = None
    middle: Name | None = None
    sex: Literal["male", "female"]
    birth_date: date
    phone: Annotated[str, msgspec.Meta(pattern=exactly(r"[0-9]{10}"))] | None = None
    snils: str | None = None
    document_type: Annotated[int, msgspec.Meta(ge=1, le=99)] | None = None  # F011
    document_series: Annotated[str, msgspec.Meta(max_length=10)] | None = None
    document_number: Annotated[str, msgspec.Meta(max_length=20)] | None = None
    okato_registered: str | None = None
    okato_lives: str | None = None
    newborn: Annotated[str, msgspec.Meta(max_length=9)] = "0"


class Policy(msgspec.Struct, frozen=True, kw_only=True):
    """By which policy; `kind` is F008: 1 old, 2 temporary, 3 with an ЕНП."""

    kind: Literal[1, 2, 3]
    series: Annotated[str, msgspec.Meta(max_length=10)] | None = None
    number: Annotated[str, msgspec.Meta(min_length=1, max_length=20)]
    okato: str | None = None
    insurer: Annotated[str, msgspec.Meta(max_length=5)] | None = None
    insurer_ogrn: str | None = None


class Case(msgspec.Struct, frozen=True, kw_only=True):
    """A call card that is to be paid for; `extra` are a territory's own elements of SL. The bus
    hears of the fund's answer if the call and its `subject` are given."""

    card_id: Text36
    number: Annotated[str, msgspec.Meta(min_length=1, max_length=50)]
    patient: Patient
    policy: Policy
    form: str
    result: str
    outcome: Annotated[int, msgspec.Meta(ge=401, le=403)]
    diagnosis: str
    begins: date
    ends: date
    speciality: Annotated[int, msgspec.Meta(ge=1, le=9999)]
    doctor: Annotated[str, msgspec.Meta(min_length=1, max_length=16)]
    substation: Annotated[str, msgspec.Meta(min_length=1, max_length=8)] | None = None
    child: bool = False
    tariff: Decimal | None = None
    total: Decimal
    extra: dict[str, str] = {}
    call_id: Annotated[str, msgspec.Meta(max_length=200)] = ""
    subject: Annotated[str, msgspec.Meta(max_length=256)] = ""


class Problem(msgspec.Struct, frozen=True):
    """A rule that a case breaks: where, and which; never the value. `about` is its card."""

    path: str
    rule: str
    about: str = ""


def money_problem(value: Decimal) -> str | None:
    """Return what is wrong with a sum in roubles."""
    if not value.is_finite() or not 0 <= value < MONEY_MAX:
        return "is no sum of money"
    return None if value == round(value, 2) else "has parts of a kopeck"


def problems(case: Case, tables: Tables) -> Iterator[Problem]:
    """Yield what would make the fund refuse a case."""
    patient, policy = case.patient, case.policy
    found = [
        ("diagnosis", checks.icd_problem(case.diagnosis)),
        ("patient.snils", patient.snils and checks.snils_problem(patient.snils)),
        ("patient.okato_registered",
         patient.okato_registered and checks.okato_problem(patient.okato_registered)),
        ("patient.okato_lives", patient.okato_lives and checks.okato_problem(patient.okato_lives)),
        ("policy.okato", policy.okato and checks.territory_problem(policy.okato)),
        ("policy.insurer_ogrn", policy.insurer_ogrn and checks.ogrn_problem(policy.insurer_ogrn)),
        ("total", money_problem(case.total)),
        ("tariff", None if case.tariff is None else money_problem(case.tariff)),
        ("result", None if case.result in tables.results else "is not in the table of results"),
        ("form", None if case.form in tables.forms else "is not in the table of forms"),
        ("ends", "is before it begins" if case.ends < case.begins else None),
        ("patient.birth_date", "is after the case" if patient.birth_date > case.ends else None),
    ]  # fmt: skip
    if policy.kind == POLICY_ENP:
        rule = checks.enp_problem(policy.number, patient.birth_date, patient.sex)
        found.append(("policy.number", rule))
    for path, rule in found:
        if rule:
            yield Problem(path, rule)
