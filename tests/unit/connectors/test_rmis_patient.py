"""What a hospitals' system tells and no message of the bus may hold: it is left out, or the
question fails and says whose fault it is."""

import asyncio
from typing import Any

import pytest

from connectors.partners.rmis.patient import patient_of
from connectors.partners.rmis.questions import Questions
from connectors.partners.rmis.search.client import people
from connectors.partners.rmis.search.contract import Document, Identifiers, Person
from connectors.runtime.bus.taking import answer
from proto import clinical
from proto.errors import Code, RequestFailed
from proto.message import Message

LONG = "9" * 500


def test_a_field_too_long_does_not_take_the_person_along() -> None:
    numbers = Identifiers(person_uniq_id="7", insurance_document=Document(number=LONG))
    (found,) = people([Person(surname="ИВАНОВ", person_identifiers=numbers)])
    assert (found.id, found.family, found.policy_number) == ("7", "ИВАНОВ", None)
    assert patient_of(id="7", given="ИВАН", policy_series=LONG) == clinical.Patient(
        id="7", given="ИВАН"
    )


def test_whoever_has_no_usable_id_is_nobody() -> None:
    assert people([Person(id=LONG, surname="ИВАНОВ")]) == []
    assert patient_of(id="", given="ИВАН") is None


def test_an_answer_that_does_not_fit_is_not_the_fault_of_whoever_asked() -> None:
    class Talkative:
        async def hospitals(self, profile: str) -> clinical.HospitalAnswer:
            one = clinical.Hospital(id="1", name=LONG * 20, ward="2", ward_name="w", beds=1, free=1)
            return clinical.HospitalAnswer(hospitals=[one])

    nothing: Any = None
    dialect: Any = Talkative()
    questions = Questions(dialect, nothing)
    answers = {"hospital.list.v1": (clinical.HospitalQuestion, "hospitals")}
    asked = Message.new("hospital.list.v1", "smp", {"profile": "81"})
    with pytest.raises(RequestFailed) as failed:
        asyncio.run(answer(questions, answers, asked, "the hospitals' system"))
    assert failed.value.code == Code.FAILED
    assert LONG not in str(failed.value)
    asked = Message.new("hospital.list.v1", "smp", {"profile": 81})
    with pytest.raises(RequestFailed) as failed:
        asyncio.run(answer(questions, answers, asked, "the hospitals' system"))
    assert failed.value.code == Code.BAD_MESSAGE
