"""Made-up workers: names, numbers and organisations are nobody's."""

import random
from typing import Any, Final

FAMILIES: Final = ("Примеров", "Образцов", "Тестов", "Выдумкин", "Небылицын", "Сказкин")
GIVEN: Final = ("Иван", "Пётр", "Олег", "Игорь")
POSTS: Final = ("98", "196", "207")
CHANGED_AT: Final = "2026-11-01T08:00:00+03:00"


def workers(seed: int, count: int) -> list[dict[str, Any]]:
    """Return `count` records; the same seed gives the same ones."""
    chance = random.Random(seed)
    return [worker(chance, number) for number in range(1, count + 1)]


def worker(chance: random.Random, number: int) -> dict[str, Any]:
    """Return one record. СНИЛС up to 001-001-998 were given out without a check number, and hold
    for nobody who lives."""
    year, month, day = chance.randint(1960, 2002), chance.randint(1, 12), chance.randint(1, 28)
    post = chance.choice(POSTS)
    record: dict[str, Any] = {
        "id": f"99-{number:06}",
        "snils": f"{number:09}{chance.randint(0, 99):02}",
        "family": chance.choice(FAMILIES),
        "given": chance.choice(GIVEN),
        "birth_date": f"{year}-{month:02}-{day:02}",
        "sex": "male",
        "positions": [
            {
                "mo_oid": f"1.2.643.5.1.13.13.12.2.99.{chance.randint(1, 9)}",
                "department": f"Подстанция {chance.randint(1, 12)}",
                "position_code": post,
                "rate": chance.choice((0.5, 1.0)),
                "from": f"{chance.randint(2005, 2025)}-09-01",
            }
        ],
        "changed_at": CHANGED_AT,
    }
    if post != "207":
        certificate = {"number": f"99{number:08}", "from": "2023-05-01", "to": "2028-05-01"}
        record["specialities"] = [{"code": "200", "certificate": certificate}]
    return record
