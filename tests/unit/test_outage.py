"""A partner that is dead for an hour, in simulated time: what its queue does, and what others see.

Its consumer is alive and gives everything back, as a connector does whose partner does not answer.
"""

from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

import msgspec
import pytest

from proto import frames
from proto.message import Message
from router.core.core import Core, Now
from router.settings import Backoff, BusSettings, Destination, Permission, Route, Settings
from router.store.sqlite import SqliteStore

WAITING = 50_000
SUBJECTS = 500
CREDIT = 64
HOUR_S = 3_600
BACKOFF = Backoff(attempts_max=1_000, first_ms=1_000, factor=2.0, longest_ms=60_000)
# 1 + 2 + 4 + ... + 32 s, then one a minute, each a fifth shorter or longer.
ATTEMPTS_MIN, ATTEMPTS_MAX = 45, 85
SETTINGS = Settings(
    bus=BusSettings(),
    destinations={"dead": Destination(backoff=BACKOFF), "well": Destination()},
    routes=[Route(type="dead.*", to=["dead"]), Route(type="well.*", to=["well"])],
    permissions={
        "producer": Permission(publish=["*"]),
        "dead": Permission(consume=["dead"]),
        "well": Permission(consume=["well"]),
    },
)


class Region:
    """A core, a publisher, and a consumer each for a dead and a living partner."""

    def __init__(self, folder: Path) -> None:
        self.now = Now(1_800_000_000_000, 1_000)
        self.store = SqliteStore(folder)
        self.store.open()
        self.core = Core(SETTINGS, "bus", 1, Random(7))
        self.batch = 0
        self.attempts: Counter[int] = Counter()  # delivery -> how often the dead one refused it
        self.late = 0  # seconds in which the living one did not get all of its messages
        for name in ("producer", "dead", "well"):
            self.say(name, frames.HELLO, frames.Hello([1], name))
        for name in ("dead", "well"):
            self.say(name, frames.CREDIT, frames.Credit(name, CREDIT))

    def say(self, name: str, verb: bytes, payload: object) -> None:
        self.core.receive(name.encode(), b"", [verb, frames.encode(payload)], self.now)

    def publish(self, type: str, numbers: range) -> None:
        messages = [
            Message(f"{type}-{n}", type, "producer", f"call-{n % SUBJECTS}", self.now.wall_ms)
            for n in numbers
        ]
        self.batch += 1
        self.say("producer", frames.PUBLISH, frames.Publish(self.batch, messages))
        self.persist()

    def persist(self) -> None:
        batch = self.core.take_batch()
        duplicates = self.store.write(batch)
        loaded = [self.store.load(load) for load in batch.loads]
        self.core.persisted(batch, duplicates, self.now, loaded)

    def delivered(self) -> Iterator[tuple[str, frames.DeliveredMessage]]:
        """Yield (who, delivery) of all that went out since last asked."""
        sends, self.core.out.sends = self.core.out.sends, []
        for peer, (verb, payload) in sends:
            if verb == frames.DELIVER:
                for one in msgspec.msgpack.decode(payload, type=frames.Deliver).deliveries:
                    yield peer.decode(), one

    def settle(self, name: str, deliveries: list[int], outcome: int) -> None:
        settlements = [frames.Settlement(id, outcome, None, None) for id in deliveries]
        self.say(name, frames.SETTLE, frames.Settle(settlements))

    def pass_a_second(self) -> None:
        self.now = Now(self.now.wall_ms + 1_000, self.now.mono_ms + 1_000)
        for name in ("producer", "dead", "well"):
            self.say(name, frames.PING, frames.Ping())
        self.core.tick(self.now)


@pytest.fixture(scope="module")
def region(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Region]:
    """The region after its hour."""
    region = Region(tmp_path_factory.mktemp("journal"))
    for at in range(0, WAITING, 1_000):
        region.publish("dead.message.v1", range(at, at + 1_000))
    for second in range(HOUR_S):
        region.publish("well.message.v1", range(second * 3, second * 3 + 3))
        refused: list[int] = []
        taken: list[int] = []
        while True:
            out = list(region.delivered())
            refused = [one.delivery for who, one in out if who == "dead"]
            taken += [one.delivery for who, one in out if who == "well"]
            if not refused:
                break
            region.attempts.update(refused)
            region.settle("dead", refused, frames.RETRY)
        region.late += len(taken) != 3
        region.settle("well", taken, frames.ACK)
        region.pass_a_second()
        region.persist()
    yield region
    region.store.close()


def test_others_get_theirs_at_once(region: Region) -> None:
    assert region.late == 0
    assert region.core.queues["well"].totals["settled"] == 3 * HOUR_S


def test_each_subject_is_tried_as_the_policy_says_and_none_beyond_its_head(region: Region) -> None:
    attempts = region.attempts
    assert len(attempts) == SUBJECTS
    assert min(attempts.values()) >= ATTEMPTS_MIN
    assert max(attempts.values()) <= ATTEMPTS_MAX
    assert region.core.queues["dead"].open == WAITING


def test_on_return_it_drains_in_order_and_never_beyond_the_credit(region: Region) -> None:
    last: dict[str, int] = {}
    count, most = 0, 0
    for _ in range(3 * BACKOFF.longest_ms // 1_000):
        region.pass_a_second()
        while out := [one for who, one in region.delivered() if who == "dead"]:
            most = max(most, len(out))
            for one in out:
                n = int(one.message.id.rpartition("-")[2])
                assert last.get(one.message.subject, -1) < n
                last[one.message.subject] = n
            count += len(out)
            region.settle("dead", [one.delivery for one in out], frames.ACK)
        region.persist()
    assert count == WAITING
    assert most <= CREDIT
