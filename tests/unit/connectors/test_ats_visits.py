"""What is told of visits that a model of the exchange lives, woven together in any order, with and
without gaps: always the truth, or that it is not known."""

from collections import Counter
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from connectors.partners.ats.ami import Packet
from connectors.partners.ats.calls import CallBook, CallEvent
from connectors.partners.ats.gap import catch_up
from connectors.partners.ats.groups import GroupBook
from tests.unit.connectors.ats_switch import LIVES, Life, Switch, Truth

SEEDS = st.integers(0, 10**6)
CHOSEN = st.lists(st.sampled_from(LIVES), min_size=1, max_size=6)


class House:
    """The model, and the books that hear it."""

    def __init__(self, seed: int, lives: list[Life]) -> None:
        self.random = Random(seed)
        self.calls = CallBook(["from-trunk"])
        self.groups = GroupBook(20.0, self.calls)
        self.events: list[CallEvent] = []
        self.is_deaf = False
        self.heard = 0.0
        self.switch = Switch(self.random, self._hear)
        self.truths = [Truth("", "") for _ in lives]
        self._going: list[tuple[Iterator[None], Truth]] = []
        for number, (life, truth) in enumerate(zip(lives, self.truths, strict=True)):
            phones = [str(200 + 3 * number + which) for which in range(3)]
            self._going.append((life(self.switch, phones, truth), truth))

    def _hear(self, packet: Packet) -> None:
        if not self.is_deaf:
            self.heard = self.switch.now
            self.groups.apply(packet, _at(self.switch.now))
            self.events += self.calls.apply(packet, _at(self.switch.now))

    def step(self) -> bool:
        """Let time pass and somebody live on; returns whether anybody still does."""
        self.switch.now += self.random.uniform(2.0, 6.0)
        if self._going:
            life, truth = self.random.choice(self._going)
            if next(life, "over") == "over":
                truth.is_over = True
                self._going.remove((life, truth))
        return bool(self._going)

    def come_back(self) -> None:
        """Hear again, after what the exchange lists."""
        self.is_deaf = False
        at = _at(self.switch.now)
        self.groups.resync(self.switch.entries(), at)
        heard = _at(self.heard) if self.heard else None
        self.events += catch_up(self.calls, self.switch.listed(), at, heard)


def _at(moment: float) -> datetime:
    return datetime.fromtimestamp(moment, UTC)


def check_sound(events: list[CallEvent]) -> None:
    """What has to hold, whatever was heard and missed."""
    counts = Counter((one.call.id, one.kind) for one in events)
    begun = {id for id, kind in counts if kind == "started"}
    assert begun == {id for id, kind in counts if kind == "ended"}
    assert all(
        n == 1 for (_, kind), n in counts.items() if kind in ("started", "answered", "ended")
    )
    told = [(one.call.id, one.kind, one.mark) for one in events]
    assert len(set(told)) == len(told), "two events of one identity"
    for call in {id(one.call): one.call for one in events}.values():
        ended = next(one for one in events if one.call is call and one.kind == "ended")
        assert not call.talks or call.answered_at, "talk without an answer"
        for talk in call.talks:
            assert not talk.goes_on
            assert talk.since is None or call.started_at <= talk.since
            assert talk.until is None or talk.until <= ended.at
            assert talk.since is None or talk.until is None or talk.since <= talk.until


def story(house: House, truth: Truth) -> list[CallEvent]:
    return [one for one in house.events if one.call.id == truth.call]


def check_true(house: House, truth: Truth) -> None:
    """What has to hold of a visit that was heard from its beginning to its end."""
    events = story(house, truth)
    call = events[0].call
    assert call.direction == truth.direction
    assert [talk.operator for talk in call.talks] == truth.talked
    assert events[-1].operator == (truth.talked[-1:] or [call.caller])[0]
    assert sum(one.kind == "transferred" for one in events) == truth.transfers
    told = [one.operator for one in events if one.kind in ("answered", "bridged")]
    assert told == truth.talked
    rung = [one.operator for one in events if one.kind == "ringing"]
    assert not call.number_from.startswith("<")
    assert all(rung)
    for id in truth.merged:
        (end,) = [one for one in house.events if one.call.id == id and one.kind == "ended"]
        assert end.cause == "merged"


@pytest.mark.parametrize("life", LIVES, ids=lambda life: life.__name__)
def test_each_kind_of_visit_alone_is_told_as_it_was(life: Life) -> None:
    for seed in range(20):
        house = House(seed, [life])
        while house.step():
            pass
        check_sound(house.events)
        check_true(house, house.truths[0])
        assert house.calls.calls == {}
        assert house.calls.legs.all == {}


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(SEEDS, CHOSEN)
def test_visits_that_are_woven_together_are_told_as_they_were(seed: int, lives: list[Life]) -> None:
    house = House(seed, lives)
    while house.step():
        pass
    check_sound(house.events)
    for truth in house.truths:
        check_true(house, truth)
    assert house.calls.calls == {}
    assert house.calls.legs.all == {}
    counted = {group: there.figures for group, there in house.groups.take().items()}
    for truth in house.truths:
        for group, outcome in truth.outcomes:
            assert getattr(counted[group], outcome) == 1
    assert sum(one.offered for one in counted.values()) == sum(
        len(truth.outcomes) for truth in house.truths
    )


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(SEEDS, CHOSEN, st.lists(st.tuples(st.integers(0, 8), st.integers(1, 8)), max_size=3))
def test_after_gaps_nothing_is_lost_invented_or_left_open(
    seed: int, lives: list[Life], gaps: list[tuple[int, int]]
) -> None:
    house = House(seed, lives)
    for heard, missed in gaps:
        for _ in range(heard):
            house.step()
        house.is_deaf = True
        for _ in range(missed):
            house.step()
        house.come_back()
    before = {truth.call for truth in house.truths if truth.is_over}
    while house.step():
        pass
    check_sound(house.events)
    assert house.calls.calls == {}
    assert house.calls.legs.all == {}
    real = {id for truth in house.truths for id in (truth.call, *truth.merged)}
    conferences = {one.call.id for one in house.events if one.call.number_to == "8000"}
    assert {one.call.id for one in house.events} <= real | conferences, "a call was invented"
    for truth in house.truths:
        events = story(house, truth)
        merged = [one for id in truth.merged for one in house.events if one.call.id == id]
        assert events or merged or truth.call in before, "a call was lost"
        for one in events:
            assert {talk.operator for talk in one.call.talks} <= {*truth.talked, *_names(truth)}


def _names(truth: Truth) -> set[str]:
    """A telephone whose queue's name was not heard is told by its number."""
    return {name.rpartition(" ")[2] for name in truth.talked} | {""}


def test_a_call_that_began_unheard_has_its_real_beginning_and_says_what_is_not_known() -> None:
    house = House(1, [LIVES[0]])
    house.is_deaf = True
    for _ in range(2):
        house.step()
    began = min(one.began for one in house.switch.channels.values())
    house.come_back()
    while house.step():
        pass
    (call,) = {one.call.id: one.call for one in house.events}.values()
    assert abs(call.started_at - _at(began)) < timedelta(seconds=1)
    assert [talk.since for talk in call.talks] == [None]
    assert call.unheard[0].since == call.started_at
    assert call.answered_at == call.unheard[0].until
