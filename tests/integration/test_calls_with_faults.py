"""Calls while six partners have faults: each ends whole, or with an explained dead letter.

`make test` plays a few of them, `make calls` three hundred.
"""

import os
import time
from collections.abc import Iterator
from random import Random
from typing import Any, Final

import pytest

from tests.integration.house import (
    FEDERAL,
    House,
    check_calls,
    check_care,
    check_documents,
    check_reactions,
    without_cancels,
)

CALLS: Final = int(os.environ.get("CALLS", "24"))
ROUNDS: Final = 9 + CALLS // 30
SEED: Final = 31
PARTNERS: Final = ("sys112", "smp", "rmis", "remd", "vimis", "tfoms")
TROUBLE: Final[tuple[dict[str, Any], ...]] = (
    {"down": True},
    {"fail": 0.4},
    {"delay_s": 0.3},
    {"spoil": "any"},
)
WELL: Final = {"down": False, "fail": 0.0, "delay_s": 0.0, "spoil": "", "refuse": 0.0}


@pytest.fixture
def house() -> Iterator[House]:
    built = House(*FEDERAL)
    yield built
    built.close()


def test_calls_end_whole_whatever_the_partners_do(house: House) -> None:
    house.start_all()
    random = Random(SEED)
    day = without_cancels(SEED, CALLS)
    for number in range(ROUNDS):
        first, last = (len(day) * at // ROUNDS for at in (number, number + 1))
        house.drive(day[first:last])
        partner = PARTNERS[number % len(PARTNERS)]
        house.faults(partner, seed=number, **random.choice(TROUBLE))
        time.sleep(random.uniform(1.0, 2.0))
        house.faults(partner, **WELL)
    house.settle()
    check_calls(house, day)
    check_reactions(house)
    check_care(house)
    check_documents(house)
    counters = house.ops("status")["counters"]
    assert counters["dead"] == 0
    assert counters["retried"] > 10  # there was trouble


def test_what_a_partner_refuses_is_a_dead_letter_that_says_why(house: House) -> None:
    house.start_all()
    house.faults("rmis", refuse=0.2, seed=SEED)
    day = without_cancels(SEED + 1, 12)
    house.drive(day)
    house.settle()
    check_calls(house, day)
    check_reactions(house)  # what the hospitals refuse is nothing to System-112
    letters = house.ops("dead", destination="rmis")["letters"]
    assert len(letters) >= 10
    assert {letter["reason"] for letter in letters} == {"HTTP 422"}
    house.faults("rmis", **WELL)
    house.ops("replay", destination="rmis", reason="the hospitals' system was mended")
    house.settle()
    assert house.ops("status")["counters"]["dead"] == len(letters)
    check_care(house)
