"""Made-up people, the same for every simulator that is given the same seed.

The fund, the hospitals' system and the ambulance speak of the same persons. Two of them have all
names and the birth date in common: whoever asks by these gets an ambiguous answer.
"""

from datetime import date, timedelta
from random import Random
from typing import Any, Final

from connectors.runtime.checks import make_enp

COUNT: Final = 200
FAMILIES: Final = ("ПРИМЕРОВ", "ОБРАЗЦОВ", "ТЕСТОВ", "ВЫДУМКИН")
STREET: Final = "Вымышленная"


def people(seed: int, count: int = COUNT) -> list[dict[str, Any]]:
    """Return made-up people with `family`, `given`, `birth_date`, `sex`, `enp`, `id` and home."""
    random = Random(seed)
    found: list[dict[str, Any]] = []
    for number in range(count):
        born = date(1940, 1, 1) + timedelta(days=random.randrange(30_000))
        names = {"family": random.choice(FAMILIES), "given": "ИВАН", "birth_date": born.isoformat()}
        if number == count - 1:
            names = {key: found[0][key] for key in names}
            born = date.fromisoformat(names["birth_date"])
        found.append(
            {
                **names,
                "sex": "male",
                "enp": make_enp("99", born, "male", number),
                "id": f"p-{100_000 + number}",
                "street": STREET,
                "house": str(number + 1),
            }
        )
    return found
