"""Check digits and what numbers say about each other. Pure; no number is ever in what is said.

Rules and sources: docs/domain.md 10.
"""

import re
from datetime import date
from typing import Final, Literal

Sex = Literal["male", "female"]
SNILS_CHECKED_FROM: Final = 1_001_998  # lower numbers have no check digits
_DIGITS: Final = re.compile(r"[0-9]+")
_ICD: Final = re.compile(r"[A-Z][0-9]{2}(\.[0-9]{1,2})?")
_OKATO: Final = re.compile(r"[0-9]{5}([0-9]{3}([0-9]{3})?)?")


def snils_problem(snils: str) -> str | None:
    """Return what is wrong with 11 digits of a СНИЛС."""
    if len(snils) != 11 or not _DIGITS.fullmatch(snils):
        return "is not 11 digits"
    number, check = snils[:9], int(snils[9:])
    if int(number) <= SNILS_CHECKED_FROM:
        return None
    total = sum(int(digit) * (9 - at) for at, digit in enumerate(number)) % 101
    return None if check == total % 100 else "has a wrong check digit"


def luhn(digits: str) -> bool:
    """Whether the last digit is Luhn's of those before it."""
    total = 0
    for at, digit in enumerate(reversed(digits)):
        value = int(digit) * (1 + at % 2)
        total += value - 9 * (value > 9)
    return total % 10 == 0


def enp_problem(enp: str, born: date | None = None, sex: Sex | None = None) -> str | None:
    """Return what is wrong with 16 digits of an ЕНП, or in what it differs from its owner."""
    if len(enp) != 16 or not _DIGITS.fullmatch(enp):
        return "is not 16 digits"
    if not luhn(enp):
        return "has a wrong check digit"
    said = enp_owner(enp)
    if said is None:
        return "holds no date of birth"
    if born is not None and said[0] != born:
        return "is of another date of birth"
    if sex is not None and said[1] != sex:
        return "is of another sex"
    return None


def enp_owner(enp: str) -> tuple[date, Sex] | None:
    """Return birth date and sex that an ЕНП says; None if it says no date.

    Digits 3 to 10 are nine less each of the month, the year backwards and the day; 20 or 40 is
    added to the month by the century, 50 to the day of a woman.
    """
    plain = "".join(str(9 - int(digit)) for digit in enp[2:10])
    month, year, day = int(plain[:2]), int(plain[2:6][::-1]), int(plain[6:])
    month -= 20 if year <= 1950 else 40 if year <= 2000 else 0
    sex: Sex = "female" if day > 50 else "male"
    try:
        return date(year, month, day - 50 if day > 50 else day), sex
    except ValueError:
        return None


def make_enp(region: str, born: date, sex: Sex, serial: int) -> str:
    """Return an ЕНП: for made-up people only."""
    month = born.month + (20 if born.year <= 1950 else 40 if born.year <= 2000 else 0)
    day = born.day + (50 if sex == "female" else 0)
    plain = f"{month:02}{str(born.year)[::-1]}{day:02}"
    start = f"{region}{''.join(str(9 - int(digit)) for digit in plain)}{serial:05}"
    return next(f"{start}{digit}" for digit in range(10) if luhn(f"{start}{digit}"))


def ogrn_problem(ogrn: str) -> str | None:
    """Return what is wrong with an ОГРН (13 digits) or ОГРНИП (15)."""
    if len(ogrn) not in (13, 15) or not _DIGITS.fullmatch(ogrn):
        return "is not 13 or 15 digits"
    check = int(ogrn[:-1]) % (len(ogrn) - 2) % 10
    return None if check == int(ogrn[-1]) else "has a wrong check digit"


def okato_problem(okato: str) -> str | None:
    """Return what is wrong with a code of ОКАТО (5, 8 or 11 digits; the first two are a subject of
    the Federation, and none has the number 00)."""
    if not _OKATO.fullmatch(okato):
        return "is not 5, 8 or 11 digits"
    return "is of no territory" if okato.startswith("00") else None


def territory_problem(okato: str) -> str | None:
    """Return what is wrong with the code of a territory as registers have it: 5 digits of ОКАТО."""
    return "is not 5 digits" if len(okato) != 5 else okato_problem(okato)


def icd_problem(code: str) -> str | None:
    """Return what is wrong with a code of МКБ-10."""
    return None if _ICD.fullmatch(code) else "is no code of ICD-10"
