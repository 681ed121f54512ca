"""From a call card to a case: the codes, the person, the policy; and the store between them."""

import multiprocessing
import tomllib
from datetime import date, timedelta
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.billing.case import Case, Problem, problems
from connectors.billing.draft import Draft, case_of, draft_of, question_about
from connectors.billing.profile import Tables, Tariff, load
from connectors.billing.store import Checked, Store
from connectors.runtime.checks import enp_owner, make_enp
from proto import catalogue, clinical, schemas
from proto.configuration.find import find_table
from proto.exits import StartError

EXAMPLE = catalogue.entry("call.card.v1").example
PERSON = EXAMPLE["patients"][0]
TABLES = msgspec.structs.replace(
    load("federal"), tariffs=(Tariff(date(2026, 1, 1), Decimal("3512.40")),)
)
ENP = make_enp("99", date(1984, 5, 27), "male", 1)
INSURED = schemas.InsuredPerson(
    enp=ENP, policy_kind=3, policy_number=ENP, insurer="99001", region="99000"
)
DAYS = st.dates(date(1930, 1, 1), date(2026, 11, 1))


def draft(**changes: Any) -> Draft:
    patients = changes.pop("patient", PERSON | {"enp": ENP})
    card = EXAMPLE | {"patients": [patients]} | changes
    return draft_of(msgspec.convert(card, clinical.CallCard))


def case(tables: Tables = TABLES, insured: schemas.InsuredPerson = INSURED, **changes: Any) -> Case:
    made = case_of(draft(**changes), "112-1", insured, tables)
    assert isinstance(made, Case), made
    assert list(problems(made, tables)) == []
    return made


def refused(tables: Tables = TABLES, **changes: Any) -> tuple[str, str]:
    made = case_of(draft(**changes), "112-1", INSURED, tables)
    assert isinstance(made, Problem), made
    assert made.about == EXAMPLE["card_id"]
    return made.path, made.rule


def coded(system: str, code: str) -> dict[str, str]:
    return {"system": system, "code": code}


class TestCase:
    def test_a_card_becomes_a_case(self) -> None:
        made = case()
        assert (made.card_id, made.call_id, made.subject) == ("kv-2026-4711", "2026-4711", "112-1")
        assert (made.form, made.result, made.outcome) == ("emergency", "3", 401)
        assert (made.speciality, made.doctor, made.child) == (206, "99-000017", False)
        assert (made.policy.kind, made.policy.number, made.policy.insurer) == (3, ENP, "99001")
        assert made.begins == made.ends == draft().day
        assert made.total == Decimal("3512.40")

    def test_the_form_of_care_is_read_by_its_own_list(self) -> None:
        ministry, fund = "1.2.643.5.1.13.13.11.1551", "V014"
        for code, form in (("1", "planned"), ("2", "emergency"), ("3", "urgent")):
            assert case(form_of_care=coded(ministry, code)).form == form
        for code, form in (("1", "emergency"), ("2", "urgent"), ("3", "planned")):
            assert case(form_of_care=coded(fund, code)).form == form
        assert refused(form_of_care=coded("V000", "1"))[0] == "form_of_care"
        assert refused(form_of_care=coded(fund, "9"))[0] == "form_of_care"
        assert refused(form_of_care=None) == ("form_of_care", "is missing")

    def test_results_of_the_fund_read_as_themselves(self) -> None:
        for code in TABLES.card.result["V009"]:
            key = case(result=coded("V009", code)).result
            assert TABLES.results[key] == int(code)

    @given(born=DAYS, sex=st.sampled_from(["male", "female"]))
    def test_what_the_brigade_did_not_learn_the_policy_says(
        self, born: date, sex: schemas.Sex
    ) -> None:
        assert sex != "unknown"
        enp = make_enp("99", born, sex, 7)
        insured = msgspec.structs.replace(INSURED, enp=enp, policy_number=enp)
        made = case(insured=insured, patient={"sex": "unknown", "enp": enp})
        assert enp_owner(enp) == (made.patient.birth_date, made.patient.sex)
        years = draft().day.year - born.year
        assert made.child or years >= 18
        assert not made.child or years <= 18

    def test_a_policy_of_another_sex_or_birth_date_is_seen(self) -> None:
        for change in ({"sex": "female"}, {"birth_date": "1984-05-28"}):
            made = case_of(draft(patient=PERSON | change), "", INSURED, TABLES)
            assert isinstance(made, Case)
            assert [one.path for one in problems(made, TABLES)] == ["policy.number"]

    def test_the_territory_of_a_policy_is_five_digits_however_many_the_fund_tells(self) -> None:
        told = msgspec.structs.replace(INSURED, region="45286590001")
        assert case(insured=told).policy.okato == "45286"
        made = case_of(draft(), "", msgspec.structs.replace(INSURED, region="00"), TABLES)
        assert isinstance(made, Case)
        assert [one.path for one in problems(made, TABLES)] == ["policy.okato"]

    def test_what_is_lacking_is_named(self) -> None:
        assert refused(crew=[])[0] == "crew"
        assert refused(load("federal"))[0] == "tariff"
        assert refused(received_at="2025-12-31T12:00:00+00:00")[0] == "tariff"
        assert refused(card_id=EXAMPLE["card_id"], station="x" * 9)[0] == "substation"

    def test_the_tariff_is_the_newest_that_fits(self) -> None:
        tariffs = (
            Tariff(date(2026, 1, 1), Decimal(1)),
            Tariff(date(2026, 6, 1), Decimal(2)),
            Tariff(date(2027, 1, 1), Decimal(3)),
            Tariff(date(2026, 2, 1), Decimal(4), speciality=25),
        )
        tables = msgspec.structs.replace(TABLES, tariffs=tariffs)
        assert tables.tariff(206, date(2026, 5, 31)) == 1
        assert tables.tariff(206, date(2026, 6, 1)) == 2
        assert tables.tariff(25, date(2026, 6, 1)) == 4
        assert tables.tariff(25, date(2026, 1, 31)) == 1
        assert tables.tariff(206, date(2025, 12, 31)) is None

    def test_no_tariff_is_shipped(self) -> None:
        # One that is nobody's would be billed for months before somebody noticed.
        assert "tariffs" not in tomllib.loads(find_table("tfoms.toml").read_text(encoding="utf-8"))


class TestQuestion:
    def test_the_surest_number_is_asked_by(self) -> None:
        born = date(1984, 5, 27)
        asked = question_about(draft())
        assert asked is not None
        assert (asked.enp, asked.birth_date, asked.on_date) == (ENP, born, draft().day)
        wrong = ENP[:-1] + str((int(ENP[-1]) + 1) % 10)
        snils = question_about(draft(patient=PERSON | {"enp": wrong, "snils": "112-233-445 95"}))
        assert snils is not None
        assert (snils.enp, snils.snils) == (None, "11223344595")
        paper = {"type": 14, "series": "99 00", "number": "000017"}
        document = question_about(draft(patient={"document": paper}))
        assert document is not None
        assert document.document == schemas.IdentityDocument(
            type=14, series="99 00", number="000017"
        )
        names = question_about(draft(patient={**PERSON, "enp": None}))
        assert names is not None
        assert (names.family, names.birth_date) == (PERSON["family"], born)

    @pytest.mark.parametrize("patient", [{}, {"sex": "male"}, {"family": "Вымышленный"}])
    def test_there_is_nobody_to_ask_about(self, patient: dict[str, Any]) -> None:
        assert question_about(draft(patient=patient)) is None
        assert (
            question_about(draft_of(msgspec.convert(EXAMPLE | {"patients": []}, clinical.CallCard)))
            is None
        )


FOUND = Checked("", INSURED)
SILENT = Checked("silent", ask_at=1)
NOVEMBER = (date(2026, 11, 1), date(2026, 11, 30))


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "cards.db"


def put(store: Store, number: int, version: int = 1, checked: Checked = FOUND) -> str:
    one = draft(card_id=f"kv-{number}", version=version)
    came = store.came(one)
    store.keep(one, f"112-{number}", checked)
    return came


class TestStore:
    def test_the_newest_version_holds_in_whatever_order_they_come(self, file: Path) -> None:
        store = Store(file)
        assert [put(store, 1, version) for version in (1, 3, 3, 2)] == [
            "kept", "kept", "same", "older",
        ]  # fmt: skip
        ((kept, subject, insured),) = store.of_payer(*NOVEMBER, "99001")
        assert (kept.version, subject, insured) == (3, "112-1", INSURED)
        assert file.stat().st_mode & 0o077 == 0

    def test_a_card_belongs_to_its_payer_and_month(self, file: Path) -> None:
        store = Store(file)
        other = msgspec.structs.replace(INSURED, insurer="98001")
        put(store, 1)
        put(store, 2, checked=Checked("", other))
        put(store, 3, checked=Checked("no_insurer", msgspec.structs.replace(INSURED, insurer=None)))
        put(store, 4, checked=SILENT)
        assert [one[0].card_id for one in store.of_payer(*NOVEMBER, "99001")] == ["kv-1"]
        assert [one[0].card_id for one in store.of_others(*NOVEMBER, ("99001",))] == ["kv-2"]
        assert list(store.of_payer(date(2026, 12, 1), date(2026, 12, 31), "99001")) == []
        assert store.unpaid(*NOVEMBER) == {"no_insurer": 1, "silent": 1}

    def test_a_snapshot_does_not_see_what_comes_meanwhile(self, file: Path) -> None:
        store, other = Store(file), Store(file)
        put(store, 1)
        with store.snapshot():
            first = [one[0].card_id for one in store.of_payer(*NOVEMBER, "99001")]
            put(other, 0)
            put(other, 1, version=2, checked=SILENT)
            assert [one[0].card_id for one in store.of_payer(*NOVEMBER, "99001")] == first
        assert [one[0].card_id for one in store.of_payer(*NOVEMBER, "99001")] == ["kv-0"]

    def test_a_card_is_asked_about_by_one_process_at_a_time(self, file: Path) -> None:
        one, other = Store(file), Store(file)
        for number in range(5):
            put(one, number, checked=SILENT)
        taken, rest = one.take_due(3), other.take_due(9)
        assert (len(taken), len(rest), other.take_due(9)) == (3, 2, [])
        assert len({each.draft.card_id for each in (*taken, *rest)}) == 5

    def test_what_the_fund_says_of_an_old_version_is_not_put_to_the_new(self, file: Path) -> None:
        store = Store(file)
        put(store, 1, checked=SILENT)
        (waiting,) = store.take_due(1)
        put(store, 1, version=2, checked=Checked("nobody"))
        store.checked(waiting.draft, FOUND)
        assert store.counts() == {"nobody": 1}

    def test_several_processes_write_at_once_and_nothing_is_lost(self, file: Path) -> None:
        Store(file).close()
        context = multiprocessing.get_context("fork")
        writers = [context.Process(target=write_many, args=(file, part)) for part in range(3)]
        for writer in writers:
            writer.start()
        for writer in writers:
            writer.join(60)
        assert [writer.exitcode for writer in writers] == [0, 0, 0]
        assert Store(file).counts() == {"": 120}

    def test_old_cards_go_and_young_ones_stay(self, file: Path) -> None:
        store = Store(file)
        put(store, 1)
        store.forget_old(draft().day + timedelta(days=500))
        assert store.counts() == {"": 1}
        store.forget_old(draft().day + timedelta(days=600))
        assert store.counts() == {}

    def test_a_file_that_cannot_be_is_one_sentence(self, tmp_path: Path) -> None:
        with pytest.raises(StartError, match=r"connectors\.tfoms\.store_file"):
            Store(tmp_path)
        with pytest.raises(StartError, match="нет такого файла"):
            Store(tmp_path / "none.db", make=False)


def write_many(file: Path, part: int) -> None:
    """Be one of several processes that keep cards."""
    store = Store(file)
    for number in range(part * 40, part * 40 + 40):
        put(store, number)
