"""Check digits: those that are right pass, and one wrong digit never does."""

from datetime import date

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.runtime import checks

BORN = st.dates(date(1901, 1, 1), date(2026, 11, 23))
SEX = st.sampled_from(["male", "female"])
DIGIT = st.integers(0, 9)


def test_known_numbers() -> None:
    assert checks.snils_problem("11223344595") is None
    assert checks.snils_problem("11223344596") == "has a wrong check digit"
    assert checks.snils_problem("00000000017") is None  # too low to have check digits
    assert checks.enp_problem("6654510822123455", date(1984, 5, 27), "female") is None
    assert checks.ogrn_problem("1027700132195") is None
    assert checks.ogrn_problem("304500116000157") is None


@given(st.sampled_from(["66", "99"]), BORN, SEX, st.integers(0, 99_999))
def test_an_enp_says_whose_it_is(region: str, born: date, sex: checks.Sex, serial: int) -> None:
    enp = checks.make_enp(region, born, sex, serial)
    assert checks.enp_problem(enp, born, sex) is None
    assert checks.enp_owner(enp) == (born, sex)
    other: checks.Sex = "male" if sex == "female" else "female"
    assert checks.enp_problem(enp, born, other) == "is of another sex"
    assert checks.enp_problem(enp, date(1900, 1, 1)) == "is of another date of birth"


@given(BORN, SEX, st.integers(0, 99_999), st.integers(0, 15), st.integers(1, 9))
def test_one_wrong_digit_of_an_enp_is_seen(
    born: date, sex: checks.Sex, serial: int, at: int, by: int
) -> None:
    enp = checks.make_enp("99", born, sex, serial)
    wrong = f"{enp[:at]}{(int(enp[at]) + by) % 10}{enp[at + 1 :]}"
    assert checks.enp_problem(wrong) == "has a wrong check digit"


@given(st.integers(checks.SNILS_CHECKED_FROM + 1, 999_999_999))
def test_one_snils_of_a_hundred_is_right(number: int) -> None:
    right = [n for n in range(100) if checks.snils_problem(f"{number:09}{n:02}") is None]
    assert len(right) == 1


@given(st.text(max_size=20))
def test_anything_else_is_refused_and_raises_nothing(text: str) -> None:
    for problem in (checks.snils_problem, checks.enp_problem, checks.ogrn_problem,
                    checks.okato_problem, checks.icd_problem):  # fmt: skip
        said = problem(text)
        assert said is None or said.startswith(
            ("is not ", "is no ", "is of no ", "has a wrong", "holds no")
        )


@pytest.mark.parametrize(
    ("okato", "whole", "territory"),
    [("45000", True, True), ("45286590", True, False), ("45286590001", True, False),
     ("00000", False, False), ("4500", False, False), ("4528659", False, False),
     ("45000 ", False, False), ("", False, False)],
)  # fmt: skip
def test_territories(okato: str, whole: bool, territory: bool) -> None:
    assert (checks.okato_problem(okato) is None) == whole
    assert (checks.territory_problem(okato) is None) == territory


@pytest.mark.parametrize(("code", "good"), [("I21.0", True), ("I21", True), ("I21.", False),
                                            ("i21", False), ("I21.012", False)])  # fmt: skip
def test_diagnoses(code: str, good: bool) -> None:
    assert (checks.icd_problem(code) is None) == good
