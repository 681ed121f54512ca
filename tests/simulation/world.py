"""A world around the real core: peers, a disk, clocks, operators and crashes.

`World.step` carries out one action of a plan; everything the core says meanwhile is held against
the model. `World.finish` ends all faults and lets everything drain.
"""

from random import Random
from typing import Any, Final

import msgspec

from proto import frames
from proto.message import Message, decode_message, encode_message
from router.core import queue as lanes
from router.core.core import Core, Now
from router.core.output import Batch
from router.settings import Destination
from tests.simulation import lines, plan, scene
from tests.simulation.disk import Disk, DiskError
from tests.simulation.item import Item
from tests.simulation.model import Model
from tests.simulation.plan import Action, Setup
from tests.simulation.promise import FINER, NOT_YET_KEPT, broken
from tests.simulation.questions import FORGED, HONEST, Questions

DEPTH_MAX: Final = 2  # batches in the store's hands, as in the daemon
FINISH_ROUNDS: Final = 400
REFUSED_MAX: Final = 8
TYPES: Final = ("test.a.v1", "solo.a.v1", "alarm.a.v1", "lost.a.v1", "deny.a.v1")
TEMPORARY: Final = ("queue_full", "store_full")
WALL_MS: Final = 1_800_000_000_000
_read_deliver = msgspec.msgpack.Decoder(frames.DeliverRaw).decode
_read_request = msgspec.msgpack.Decoder(frames.RequestRaw).decode


class World:
    """One life of a router and all who deal with it."""

    def __init__(self, setup: Setup, core: type[Core] = Core,
                 kept: frozenset[str] = FINER - NOT_YET_KEPT) -> None:  # fmt: skip
        self.setup = setup
        self.disk = Disk()
        self.messages: dict[tuple[str, str], Message] = {}
        self.model = Model(self.disk, self.messages, kept)
        self.wall_ms, self.mono_ms = WALL_MS, 1_000
        self.variant = 0
        self.names = {key: name for name, key in scene.KEYS.items()}
        self.full = False
        self.sequence = self.batch_number = self.question_number = 0
        self.crashes = self.steps = self.lives = 0
        self.history: dict[str, list[Message]] = {"north": [], "south": []}
        self.unaccepted: dict[bytes, dict[int, list[Message]]] = {p: {} for p in scene.PRODUCERS}
        self.refused: dict[bytes, list[Message]] = {p: [] for p in scene.PRODUCERS}
        self._core = core
        # The lanes' patience is too long to be met in a short life.
        lanes.PASSED_OVER_MAX = lines.PASSED_OVER_MAX  # type: ignore[misc]
        lanes.EMERGENCIES_MAX = lines.EMERGENCIES_MAX  # type: ignore[misc]
        self._start()

    @property
    def now(self) -> Now:
        """The time."""
        return Now(self.wall_ms, self.mono_ms)

    def step(self, action: Action) -> None:
        """Carry out one action, then check what holds at every instant."""
        self.steps += 1
        name, numbers = action
        self._acts[name](self, *numbers)
        self._check()

    # -- a life of the process --------------------------------------------------------------------

    def _start(self) -> None:
        disk, settings = self.disk, scene.settings_of(self.variant, self.setup.open_max)
        disk.epoch += 1
        disk.failing = None
        disk.audit()
        self.lives += 1
        self.writing: list[Batch] = []
        self.written: list[dict[int, int]] = []
        self.heard: dict[bytes, int] = {}  # live sessions, and when they last said something
        self.clogged: set[bytes] = set()
        self.questions = Questions()
        self.core = core = self._core(settings, "bus", disk.epoch, Random(disk.epoch))
        core.names = dict(self.names)
        core.store_full = self.full
        core.frontier_lag_max = scene.LAGS[self.setup.lag]
        core.observed = bool(self.setup.observed)
        core.restore(list(disk.load_open()), *disk.next_numbers(), self.now)
        for name, totals in disk.totals.items():
            self._queue(name).totals.update(totals)
        for name, reason in disk.holds.items():
            self._queue(name).hold = reason
        self.model.start(self.variant, self.setup.open_max, self.now)
        self._check_taken_up()
        self._tick()  # the daemon's timer fires before it hears anybody
        for peer in scene.PRODUCERS:
            if self._do_greet(peer):
                self._repeat(peer)

    def _queue(self, name: str) -> Any:
        return self.core.queues.get(name) or self.core.add_queue(name, Destination())

    def _check_taken_up(self) -> None:
        found = {*self.core.open, *self.core.backlog}
        lost = self.model.items.keys() - found
        if lost:
            broken("nothing is lost", f"a start does not find delivery {min(lost)}")
        if found != self.model.items.keys():
            extra = found - self.model.items.keys()
            broken("ends once", f"a start finds delivery {min(extra)}, which has ended")

    def _crash(self, kept: int) -> None:
        """kill -9: batches that were being written are on the disk or not, in order."""
        for batch in self.writing[len(self.written) :][:kept]:
            self.disk.write(batch)
        self.crashes += 1
        self.mono_ms = 1_000
        self._start()

    # -- the core's output ------------------------------------------------------------------------

    def _carry_out(self, single: bool = True, loose: bool = False) -> None:
        """Check and carry out what the core wants. `single`: it looked at each queue once."""
        out = self.core.out
        self.model.read(out.batch, self.now, loose)
        sends, out.sends = out.sends, []
        went: dict[str, dict[bytes, list[Item]]] = {}
        clogged = []
        for peer, (verb, payload) in sends:
            if peer in self.clogged and peer in self.heard:
                clogged.append(peer)
            self._send(peer, verb, payload, went)
        for name, by_peer in went.items():
            self.model.queues[name].went(by_peer, single)
        for queue in self.model.queues.values():
            queue.check_nothing_idles()
        for peer in clogged:
            if peer in self.heard:
                self.clogged.discard(peer)
                self._do_vanish(peer)
        if out.events:
            out.events = []

    def _send(
        self, peer: bytes, verb: bytes, payload: bytes, went: dict[str, dict[bytes, list[Item]]]
    ) -> None:
        if verb == frames.ACCEPTED:
            numbers = frames.PEER_READS[verb].decode(payload).batches
            self.model.acknowledged(peer, numbers)
            for number in numbers:
                self.unaccepted[peer].pop(number, None)
        elif verb == frames.DELIVER:
            deliver = _read_deliver(payload)
            live = peer in self.heard
            items = self.model.delivered(peer, deliver.destination, deliver, self.now) if live else [
                item for one in deliver.deliveries if (item := self.model.items.get(one.delivery))
            ]
            went.setdefault(deliver.destination, {}).setdefault(peer, []).extend(items)
        elif verb == frames.REQUEST:
            request = _read_request(payload)
            serves = peer in self.model.queues[request.destination].windows
            self.questions.forwarded(peer, request, serves or peer not in self.heard)
        elif verb == frames.REPLY and peer in self.heard:
            self.questions.answered(peer, frames.PEER_READS[verb].decode(payload), self.mono_ms)
        else:
            self.errors.append((peer, frames.PEER_READS[verb].decode(payload)))

    def _say(self, peer: bytes, verb: bytes, payload: object, key: bytes | None = None) -> None:
        if peer in self.heard:
            self.heard[peer] = self.mono_ms
        self.errors: list[tuple[bytes, Any]] = []
        key = scene.KEYS[scene.NAMES[peer]] if key is None else key
        raw = payload if isinstance(payload, bytes) else frames.encode(payload)
        self.core.receive(peer, key, [verb, raw], self.now)
