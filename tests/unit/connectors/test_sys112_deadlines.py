"""The watch over a dispatcher's 30 seconds, on a clock of the test: no alarm too many or few."""

import asyncio
import logging
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.partners.sys112.deadlines import GRACE_S, Deadlines
from connectors.partners.sys112.memory import Memory, at
from connectors.partners.sys112.words import Words
from connectors.runtime.bus.ingress import NotAccepted
from connectors.runtime.partner.window import Window
from proto import catalogue, schemas
from proto.client import Reject, Retry
from proto.message import Message

T0 = 1_795_000_000.0
WORDS = Words()
CARD = catalogue.entry("incident.card.v1").example
STATUS = catalogue.entry("call.status.v1").example
ENDED = catalogue.entry("incident.cancelled.v1").example


class Scene:
    """A watch, its clock, and what it published: by id, as the router drops what it knows."""

    def __init__(self, file: Path | None = None, now: float = T0, **settings: Any) -> None:
        self.now = now
        self.sent: dict[str, Message] = {}
        self.away = False
        self.memory = Memory(file, self.clock)
        self.settings = settings
        self.watch = self._start()
        self.now += GRACE_S

    def _start(self) -> Deadlines:
        settings: dict[str, Any] = {"within_s": 30.0, "clock": self.clock} | self.settings
        return Deadlines(
            "sys112",
            self.publish,
            self.memory,
            WORDS,
            **settings,
        )

    def clock(self) -> float:
        return self.now

    async def publish(self, messages: Sequence[Message]) -> None:
        if self.away:
            raise NotAccepted("not_connected", "away", 3, temporary=True)
        for message in messages:
            self.sent.setdefault(message.id, message)

    def take(self, type: str, body: dict[str, Any], time_s: float | None = None) -> str | None:
        message = Message.new(type, "x", body)
        made = int((self.now if time_s is None else time_s) * 1000)
        return asyncio.run(self.watch.take(msgspec.structs.replace(message, time=made)))

    def card(self, id112: str = "1", **changes: Any) -> str | None:
        return self.take("incident.card.v1", CARD | {"id112": id112} | changes)

    def status(self, code: str = "received", id112: str = "1", ago_s: float = 0.0) -> str | None:
        moment = at(self.now - ago_s).isoformat()
        told = {"code": code, "id112": id112, "occurred_at": moment, "recorded_at": moment}
        return self.take("call.status.v1", STATUS | told)

    def ring(self) -> list[str]:
        """Deliver every timer whose time has come, once; return the cards of new alarms."""
        before = set(self.alarms)
        for message in [one for one in self.sent.values() if one.type == "deadline.timer.v1"]:
            assert message.not_before is not None
            if message.not_before <= self.now * 1000:
                asyncio.run(self.watch.take(message))
        return sorted(set(self.alarms) - before)

    @property
    def alarms(self) -> list[str]:
        missed = [one for one in self.sent.values() if one.type == "deadline.missed.v1"]
        return [msgspec.json.decode(one.body, type=schemas.DeadlineMissed).id112 for one in missed]

    def figures(self) -> dict[str, Any]:
        return self.watch.figures()


def test_a_card_that_nobody_confirms_is_told_once(caplog: pytest.LogCaptureFixture) -> None:
    scene = Scene()
    scene.card()
    scene.now += 30 + GRACE_S - 0.1
    assert scene.ring() == []
    scene.now += 0.2
    with caplog.at_level(logging.ERROR):
        assert scene.ring() == ["1"]
    (line,) = [record.getMessage() for record in caplog.records]
    assert "112-1 не подтверждена диспетчером скорой за 30 с" in line
    assert CARD["address"]["street"] not in line
    assert scene.ring() == []  # the timer once more, after a kill
    (message,) = [one for one in scene.sent.values() if one.type == "deadline.missed.v1"]
    assert message.subject == "112-1"
    missed = msgspec.json.decode(message.body, type=schemas.DeadlineMissed)
    assert missed.due_at.timestamp() == T0 + GRACE_S + 30
    assert scene.figures()["watched"] == 1


@pytest.mark.parametrize("code", ["received", "assigned", "cancelled", "refused", "duplicate"])
def test_any_status_of_the_call_confirms(code: str) -> None:
    scene = Scene()
    scene.card()
    scene.now += 29
    scene.status(code)
    scene.now += 60
    assert scene.ring() == []
    figures = scene.figures()
    assert (figures["confirmed"], figures["max_s"], figures["over"]) == (1, 29.0, 0)


def test_a_status_that_the_ambulance_sends_by_itself_confirms_nothing() -> None:
    scene = Scene(ignored=["received"])
    scene.card("1")
    scene.card("2")
    scene.status("received", "1")
    scene.status("received", "2")
    scene.now += 20
    scene.status("assigned", "2")
    scene.now += 60
    assert scene.ring() == ["1"]


def test_where_nobody_watches_the_queue_is_emptied_all_the_same() -> None:
    scene = Scene(within_s=0.0)
    scene.card()
    scene.status("departed")
    scene.now += 1000
    assert scene.sent == {}
    call = STATUS["call_id"]
    assert scene.memory.last_told(call, at(scene.now)).code == "departed"  # type: ignore[union-attr]


def test_a_status_before_its_card_out_of_order_or_late_raises_no_false_alarm() -> None:
    scene = Scene()
    scene.status("assigned", "before")
    for id112 in ("before", "order", "late", "behind"):
        scene.card(id112)
    scene.now += 20
    scene.status("departed", "order")
    scene.status("received", "order", ago_s=15)
    scene.now += 10 + GRACE_S - 0.5
    scene.status("received", "late", ago_s=10)  # happened in time, came after it
    scene.status("received", "behind", ago_s=-3600)  # a clock that is ahead
    scene.now += 1
    assert scene.ring() == ["behind"]  # came after the time was over, and says no earlier moment
    assert scene.figures()["confirmed"] == 3


def test_a_confirmation_that_is_late_is_told_as_missed() -> None:
    scene = Scene()
    scene.card()
    scene.now += 33
    scene.status("received")
    scene.now += 10
    assert scene.ring() == ["1"]
    figures = scene.figures()
    assert (figures["late"], figures["missed"], figures["over"]) == (1, 0, 1)


@pytest.mark.parametrize("first", ["card", "end"])
def test_a_cancelled_card_needs_no_confirmation(first: str) -> None:
    scene = Scene()
    steps: list[Callable[[], object]] = [
        lambda: scene.card(),
        lambda: scene.take("incident.cancelled.v1", ENDED | {"id112": "1"}),
    ]
    for step in steps if first == "card" else reversed(steps):
        step()
    scene.card("2", state="closed")
    scene.now += 60
    assert scene.ring() == []
    assert scene.figures()["not_needed"] == 1


def test_a_correction_does_not_give_more_time() -> None:
    scene = Scene()
    scene.card()
    scene.now += 25
    scene.card(changed_at="2026-11-23T10:00:00+03:00")
    scene.now += 5 + GRACE_S + 1
    assert scene.ring() == ["1"]
    assert scene.figures()["watched"] == 1


def test_a_repeat_call_is_confirmed_with_the_card_that_it_repeats() -> None:
    scene = Scene()
    scene.card("1")
    scene.status("received", "1")
    scene.now += 600
    scene.card("1-R", repeat_of="1")  # the brigade is on its way: no status for a while
    scene.card("lone", repeat_of="elsewhere")
    scene.now += 60
    assert scene.ring() == ["lone"]


def test_after_a_restart_nothing_is_forgotten_and_statuses_come_first(tmp_path: Path) -> None:
    file = tmp_path / "cards.db"
    scene = Scene(file)
    scene.card("1")
    scene.card("2")
    scene.card("3")
    scene.status("received", "1")
    timers = scene.sent
    scene.memory.close()
    again = Scene(file, now=scene.now + 300)  # down for five minutes
    again.sent = dict(timers)
    again.now -= GRACE_S
    with pytest.raises(Retry) as waking:
        again.ring()
    assert waking.value.after_s == pytest.approx(GRACE_S)
    again.status("received", "2", ago_s=290)  # waited in the queue
    again.now += GRACE_S
    assert again.ring() == ["3"]
    assert again.figures()["confirmed"] == 2


def test_without_a_file_a_restart_raises_no_false_alarm() -> None:
    scene = Scene()
    scene.card()
    scene.status()
    again = Scene(now=scene.now + 20)
    again.sent = scene.sent
    again.now += 60
    assert again.ring() == []


def test_a_timer_that_the_bus_does_not_take_leaves_the_card_for_later() -> None:
    scene = Scene()
    scene.away = True
    with pytest.raises(Retry):
        scene.card()
    scene.away = False
    scene.card()
    scene.now += 60
    scene.away = True
    with pytest.raises(Retry):
        scene.ring()
    scene.away = False
    assert scene.ring() == ["1"]


@pytest.mark.parametrize(("type", "body"), [("call.status.v1", {}), ("odd.type.v1", {})])
def test_what_is_nothing_of_ours_is_rejected(type: str, body: dict[str, Any]) -> None:
    with pytest.raises(Reject):
        Scene().take(type, body)


Step = tuple[str, int, int]
STEPS = st.lists(
    st.tuples(st.sampled_from(["card", "status", "end"]), st.integers(1, 3), st.integers(0, 20)),
    max_size=25,
)


@settings(deadline=None)
@given(STEPS)
def test_an_alarm_is_exactly_what_nobody_confirmed_or_ended_in_time(steps: list[Step]) -> None:
    scene = Scene()
    first: dict[str, float] = {}
    heard: dict[str, float] = {}
    ended: dict[str, float] = {}
    alarms: set[str] = set()
    for what, card, pause in steps:
        scene.now += pause
        alarms.update(scene.ring())
        id112 = str(card)
        if what == "card":
            scene.card(id112)
            first.setdefault(id112, scene.now)
        elif what == "status":
            scene.status("received", id112)
            heard.setdefault(id112, scene.now)
        else:
            scene.take("incident.cancelled.v1", ENDED | {"id112": id112})
            ended.setdefault(id112, scene.now)
    scene.now += 1000
    alarms.update(scene.ring())
    never = T0 * 2
    for id112, began in first.items():
        in_time = heard.get(id112, never) <= began + 30
        # Judged at the first look after the grace; an end that came before that excuses.
        excused = ended.get(id112, never) <= began + 30
        if in_time or excused:
            assert id112 not in alarms
        elif min(heard.get(id112, never), ended.get(id112, never)) > began + 60:
            assert id112 in alarms
    assert alarms <= set(first)
    assert len(scene.alarms) == len(alarms)


@settings(deadline=None)
@given(st.lists(st.floats(0, 100), min_size=1, max_size=300))
def test_a_window_has_the_quantiles_of_the_last_hour(values: list[float]) -> None:
    now = [0.0]
    window = Window(50.0, lambda: now[0])
    window.add(1e6)
    now[0] = 3601.0
    for value in values:
        window.add(value)
    found = window.report()
    assert found["count"] == len(values)
    assert found["over"] == sum(value > 50 for value in values)
    assert found["max_s"] == round(max(values), 3)
    for name, share in (("p50_s", 0.5), ("p99_s", 0.99)):
        under = sum(round(value, 3) <= found[name] for value in values)
        assert under >= share * len(values)
        assert sum(round(value, 3) < found[name] for value in values) < share * len(values)
    assert Window(1.0).report()["p99_s"] is None


@pytest.mark.fault("A3")
def test_a_clock_that_is_set_back_silences_no_alarm() -> None:
    """Started while the clock was three hours ahead, the watch took itself for just begun until the
    clock had come there once more: each timer was put off, and became a dead letter in the end."""
    scene = Scene(now=T0 + 3 * 3600)
    scene.now = T0
    scene.card()
    scene.now += 30 + GRACE_S
    assert scene.ring() == ["1"]


@pytest.mark.fault("A3")
def test_a_file_that_was_made_in_the_future_silences_no_alarm(tmp_path: Path) -> None:
    """The sibling: what was taken before the file was made is not judged, and it said to have been
    made in three hours; also after a restart."""
    first = Scene(tmp_path / "cards.db", now=T0 + 3 * 3600)
    first.memory.close()
    scene = Scene(tmp_path / "cards.db")
    scene.card()
    scene.now += 30 + GRACE_S
    assert scene.ring() == ["1"]
    scene.memory.close()
