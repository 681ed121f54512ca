"""What a call card says of its bill: no more of it is kept than a register needs.

The codes stay those of the card. They are read when a register is built, so that a table that was
mended, or a tariff that came late, holds for the whole month.
"""

from datetime import date
from typing import Any, Final

import msgspec

from connectors.billing.case import Case, Problem
from connectors.billing.profile import Tables
from connectors.runtime import checks
from proto import clinical, schemas

GROWN_UP: Final = 18


class Head(msgspec.Struct, frozen=True, omit_defaults=True):
    """One of the crew."""

    post: schemas.Coded | None = None
    snils: str | None = None
    worker: str | None = None


class Draft(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """The part of a call card that is billed; `day` is the call's, by this server's clock."""

    card_id: str
    call_id: str
    version: int
    number: str
    day: date
    patient: schemas.Person
    crew: tuple[Head, ...] = ()
    form: schemas.Coded | None = None
    result: schemas.Coded
    outcome: schemas.Coded | None = None
    diagnosis: str | None = None
    station: str | None = None


class Unfit(Exception):
    """No case can be made of it: where, and by which rule."""

    def __init__(self, path: str, rule: str) -> None:
        super().__init__(f"{path}: {rule}")
        self.path = path
        self.rule = rule


def draft_of(card: clinical.CallCard) -> Draft:
    """Return what is billed of a card. A card is of one patient, the first."""
    patient = card.patients[0] if card.patients else schemas.Person()
    main = [one.code for one in card.diagnoses if one.kind == "main"]
    return Draft(
        card_id=card.card_id,
        call_id=card.id,
        version=card.version,
        number=str(card.number_year),
        day=card.received_at.astimezone().date(),
        patient=msgspec.structs.replace(patient, reason=None, can_move=None),
        crew=tuple(Head(one.post, one.snils, one.worker) for one in card.crew),
        form=card.form_of_care,
        result=card.result,
        outcome=card.outcome,
        diagnosis=main[0] if main else None,
        station=card.station,
    )


def question_about(draft: Draft) -> schemas.InsuranceQuestion | None:
    """Return what to ask the fund, by the surest of what is known; None when that is nothing."""
    person = draft.patient
    born = person.birth_date
    if person.enp and checks.enp_problem(person.enp, born) is None:
        return schemas.InsuranceQuestion(on_date=draft.day, enp=person.enp, birth_date=born)
    snils = _digits(person.snils)
    if snils and checks.snils_problem(snils) is None:
        return schemas.InsuranceQuestion(on_date=draft.day, snils=snils, birth_date=born)
    if document := _document(person):
        return schemas.InsuranceQuestion(on_date=draft.day, document=document, birth_date=born)
    if person.family and person.given and born:
        return schemas.InsuranceQuestion(
            on_date=draft.day, family=person.family, given=person.given, middle=person.middle,
            birth_date=born,
        )  # fmt: skip
    return None


def case_of(
    draft: Draft, subject: str, insured: schemas.InsuredPerson, tables: Tables
) -> Case | Problem:
    """Return the case to bill, or what is in its way."""
    try:
        return msgspec.convert(_fields(draft, subject, insured, tables), Case)
    except Unfit as unfit:
        return Problem(unfit.path, unfit.rule, draft.card_id)
    except msgspec.ValidationError as error:
        rule, _, path = str(error).partition(" - at `$.")
        return Problem(path.rstrip("`"), rule.split(",")[0], draft.card_id)


def _fields(
    draft: Draft, subject: str, insured: schemas.InsuredPerson, tables: Tables
) -> dict[str, Any]:
    codes = tables.card
    speciality, doctor = _head(draft, tables)
    tariff = tables.tariff(speciality, draft.day)
    if tariff is None:
        raise Unfit("tariff", "is not in the table of tariffs for this day and speciality")
    patient = _patient(draft, insured)
    by_enp = insured.policy_kind == 3
    return {
        "card_id": draft.card_id, "call_id": draft.call_id, "subject": subject,
        "number": draft.number, "patient": patient,
        "policy": {
            "kind": insured.policy_kind, "insurer": insured.insurer,
            "okato": insured.region and insured.region[:5],  # ST_OKATO is of the territory
            "number": insured.enp if by_enp else insured.policy_number,
        },
        "form": _read("form_of_care", draft.form, codes.form),
        "result": _read("result", draft.result, codes.result),
        "outcome": _read("outcome", draft.outcome, codes.outcome),
        "diagnosis": draft.diagnosis or "",
        "begins": draft.day, "ends": draft.day,
        "speciality": speciality, "doctor": doctor, "substation": draft.station,
        "child": _years(patient["birth_date"], draft.day) < GROWN_UP,
        "tariff": tariff, "total": tariff,
    }  # fmt: skip


def _patient(draft: Draft, insured: schemas.InsuredPerson) -> dict[str, Any]:
    person = draft.patient
    said = checks.enp_owner(insured.enp)  # the fund's word for what the brigade did not learn
    born = person.birth_date or (said and said[0])
    sex = person.sex if person.sex in ("male", "female") else said and said[1]
    if not born or not sex:
        raise Unfit("patient", "has no date of birth or sex")
    document = _document(person)
    return {
        "id": person.id or draft.card_id, "family": person.family, "given": person.given,
        "middle": person.middle, "sex": sex, "birth_date": born, "snils": _digits(person.snils),
        "document_type": document and document.type,
        "document_series": document and document.series,
        "document_number": document and document.number,
    }  # fmt: skip


def _head(draft: Draft, tables: Tables) -> tuple[int, str]:
    """Return the speciality and the code of who answers for the call."""
    for one in draft.crew:
        if one.post is None:
            continue
        speciality = tables.card.speciality.get(one.post.system, {}).get(one.post.code)
        if speciality is not None:
            return speciality, _digits(one.snils) or one.worker or ""
    raise Unfit("crew", "has nobody whose post is in the table of specialities")


def _read(path: str, value: schemas.Coded | None, table: dict[str, dict[str, Any]]) -> Any:
    if value is None:
        raise Unfit(path, "is missing")
    if value.system not in table:
        raise Unfit(path, "is of a code list that is not in the tables")
    if value.code not in table[value.system]:
        raise Unfit(path, "has a code that is not in the tables")
    return table[value.system][value.code]


def _document(person: schemas.Person) -> schemas.IdentityDocument | None:
    """Return the identity document, if it is told as one of the fund's list F011."""
    try:
        return msgspec.convert(person.document, schemas.IdentityDocument, strict=False)
    except msgspec.ValidationError:
        return None


def _digits(number: str | None) -> str | None:
    return "".join(filter(str.isdigit, number or "")) or None


def _years(born: date, day: date) -> int:
    return day.year - born.year - ((day.month, day.day) < (born.month, born.day))
