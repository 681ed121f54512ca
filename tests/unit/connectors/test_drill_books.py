"""What is lost, doubled or out of order, by the books and by the ledger."""

from collections.abc import Sequence
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.simulators.drill.books import Hop, hops, judge, keys_of_bus
from connectors.simulators.drill.report import Course, Report
from proto import wording
from proto.frames import key_of
from proto.note import coded
from proto.wording import LANGUAGES

BUS = "b1"


def hop(number: int, subject: str = "112-1", state: str = "settled", **told: Any) -> Hop:
    fields: dict[str, Any] = {
        "destination": "smp",
        "type": "incident.card.v1",
        "accepted_at": 1000 + number,
    }
    ended_at = None if state == "pending" else 2000 + number
    fields |= {"ended_at": ended_at, "note": "HTTP 200"} | told
    return Hop(subject=subject, number=number, state=state, **fields)


def key(one: Hop) -> str:
    return f"{BUS}-{one.number}"


taken = st.lists(st.integers(1, 500), unique=True, max_size=8).flatmap(
    lambda numbers: st.tuples(
        *(st.builds(hop, st.just(n), st.sampled_from(["112-1", "112-2", "112-3"])) for n in numbers)
    )
)


@given(taken, st.randoms())
def test_all_there_once_in_the_order_of_each_subject_is_good(
    taken: Sequence[Hop], random: Random
) -> None:
    lines: dict[str, list[Hop]] = {}
    for one in sorted(taken, key=lambda one: one.number):
        lines.setdefault(one.subject, []).append(one)
    keys = ["another-bus-1"]
    while lines:  # subjects overtake each other as they like
        subject = random.choice(sorted(lines))
        keys.append(key(lines[subject].pop(0)))
        if not lines[subject]:
            del lines[subject]
    found = judge(BUS, taken, keys)
    assert (found.lost, found.doubled, found.disordered) == (0, 0, 0)
    assert (found.given_up, found.open, found.deliveries) == (0, 0, len(taken))


@given(taken, st.data())
def test_every_missing_and_every_further_one_counts(
    taken: Sequence[Hop], data: st.DataObject
) -> None:
    times = [data.draw(st.integers(0, 3)) for _ in taken]
    keys = [key(one) for one, count in zip(taken, times, strict=True) for _ in range(count)]
    found = judge(BUS, taken, data.draw(st.permutations(keys)))
    assert found.lost == times.count(0)
    assert found.doubled == sum(max(0, count - 1) for count in times)


@given(st.permutations(range(1, 6)))
def test_an_order_is_good_only_as_it_was_accepted(order: list[int]) -> None:
    taken = [hop(number) for number in order]
    found = judge(BUS, taken, [key(one) for one in taken])
    assert (found.disordered == 0) == (order == sorted(order))


def test_what_the_partner_need_not_know_is_not_lost() -> None:
    untold = coded("connector.untold", system="112")
    quiet = [hop(1, note=untold), hop(2, type="telephony.call.v1"), hop(3, state="pending")]
    assert judge(BUS, quiet, []).lost == 0
    assert judge(BUS, [hop(4)], []).lost == 1


@pytest.mark.parametrize("language", LANGUAGES)
def test_a_hospital_that_was_not_told_lost_nothing_in_any_language(
    monkeypatch: pytest.MonkeyPatch, language: str
) -> None:
    """What connector rmis settled without a word was called lost: only the sentence of the
    connector of System-112 was known."""
    monkeypatch.setattr(wording, "_chosen", language)
    untold = coded("rmis.untold", system="Р МИС")
    assert judge(BUS, [hop(1, note=untold)], []).lost == 0
    assert judge(BUS, [hop(1, note=coded("rmis.taken", number="17"))], []).lost == 1


def test_a_ledger_of_the_partners_own_numbers_says_nothing_of_deliveries() -> None:
    """РИАМС knows no idempotency key: all that was delivered to it was called lost."""
    assert keys_of_bus(["4711/2026/1/12", "4712/2026/1/12"]) is None
    assert keys_of_bus([]) == []
    mixed = [key_of(BUS, 1, "g1"), "4711/2026/1/12"]
    assert keys_of_bus(mixed) == mixed
    assert keys_of_bus([key_of(BUS, 1, "")]) == [key_of(BUS, 1, "")]


def test_without_keys_only_the_books_are_judged() -> None:
    words = ("settled", "dead", "expired", "dropped", "pending", "in_flight", "retrying")
    found = judge(BUS, [hop(n, state=word) for n, word in enumerate(words)], None)
    assert (found.given_up, found.open) == (3, 3)
    assert (found.lost, found.doubled, found.disordered) == (None, None, None)


def test_trace_becomes_hops_and_timers_are_left_out() -> None:
    delivery = {
        "destination": "smp",
        "delivery": 7,
        "state": "settled",
        "settled_at": 30,
        "note": None,
        "history": [{"at": 20, "outcome": "retry"}],
    }
    card = {"type": "incident.card.v1", "accepted_at": 10, "deliveries": [delivery]}
    timer = {"type": "document.timer.v1", "accepted_at": 10, "deliveries": [delivery]}
    (only,) = hops("112-1", [card, timer])
    assert only == Hop("smp", "112-1", "incident.card.v1", 7, "settled", 10, 30, "", (20,))


def course(*taken: Hop) -> Course:
    keys = [key(one) for one in taken if one.destination == "smp" and one.state == "settled"]
    return Course("smp", "smp", "down", 1.0, BUS, 1500, 3000, 2, list(taken), keys)


def test_times_are_told_from_the_moment_the_partner_went() -> None:
    told = Report(
        course(
            hop(1, accepted_at=1400, ended_at=1450),
            hop(2, accepted_at=1600, ended_at=3200, retried_at=(1700, 2500)),
            hop(3, accepted_at=3100, ended_at=9000),  # came later: no part of what had gathered
        )
    ).plain()
    assert (told["noticed_s"], told["tries_in_vain"]) == (0.2, 2)
    assert (told["drained_s"], told["oldest_s"], told["broken"]) == (0.2, 5.9, [])
    assert told["queue_peak"] == 2


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(1, 20))))
def test_the_longest_queue_is_of_those_open_at_once(times: list[tuple[int, int]]) -> None:
    taken = [hop(n, accepted_at=at, ended_at=at + took) for n, (at, took) in enumerate(times)]
    at_once = [sum(at <= now < at + took for at, took in times) for now in range(41)]
    assert Report(course(*taken)).peak == max(at_once)


def test_a_slower_neighbour_is_a_broken_promise() -> None:
    def neighbour(meanwhile_ms: int) -> list[Hop]:
        before = [hop(n, destination="rmis", accepted_at=1000, ended_at=1020) for n in range(5)]
        return before + [
            hop(n, destination="rmis", accepted_at=2000, ended_at=2000 + meanwhile_ms)
            for n in range(5, 10)
        ]

    assert Report(course(hop(99), *neighbour(100))).broken == []
    (said,) = Report(course(hop(99), *neighbour(5000))).broken
    assert "rmis" in said


def test_what_is_still_open_and_a_drill_without_deliveries_are_told() -> None:
    waiting = Report(course(hop(1), hop(2, state="retrying", ended_at=None)))
    assert waiting.drained_s is None
    assert len(waiting.broken) == 1
    assert len(Report(course()).broken) == 1
    assert all(isinstance(line, str) for line in waiting.lines())
