"""Made-up cases to be billed: nobody of these lives anywhere."""

from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from random import Random
from typing import Any, Literal

import msgspec

from connectors.runtime.checks import make_enp

FAMILIES = ("Примеров", "Образцов", "Тестов", "Выдумкин", "Небылицын")


def cases(count: int, seed: int = 1) -> Iterator[dict[str, Any]]:
    """Yield cases; one person in ten is met twice."""
    random = Random(seed)
    for number in range(1, count + 1):
        person = number - 1 if number % 10 == 0 else number
        chance = Random(person)
        born = date(1930, 1, 1) + timedelta(days=chance.randrange(34_000))
        sexes: list[Literal["male", "female"]] = ["male", "female"]
        sex = chance.choice(sexes)
        day = date(2026, 10, 1 + random.randrange(30))
        yield {
            "card_id": f"2026-{number}", "number": str(number),
            "patient": {
                "id": f"p-{person}", "family": chance.choice(FAMILIES), "given": "Иван",
                "sex": sex, "birth_date": born, "okato_registered": "99000", "okato_lives": "99000",
            },
            "policy": {"kind": 3, "number": make_enp("99", born, sex, person % 100_000),
                       "insurer": "99001"},
            "form": random.choice(["emergency", "urgent"]), "result": random.choice("1237"),
            "outcome": 401, "diagnosis": random.choice(["I21.0", "J06.9", "S52.5"]),
            "begins": day, "ends": day, "speciality": 80, "doctor": "00000000017",
            "substation": "1", "tariff": "3512.40", "total": "3512.40",
            "extra": {"PRVS_R": "80", "TARIF_R": "3512.40"},
        }  # fmt: skip


def write_cases(file: Path, count: int, seed: int = 1) -> Path:
    """Write cases as JSON lines."""
    with file.open("wb") as out:
        for case in cases(count, seed):
            out.write(msgspec.json.encode(case) + b"\n")
    return file
