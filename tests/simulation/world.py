"""A world around the real core: peers, a disk, clocks, operators and crashes.

`World.step` carries out one action of a plan; everything the core says meanwhile is held against
the model. `World.finish` ends all faults and lets everything drain.
"""

from random import Random
from typing import Any, Final

import msgspec

from proto import frames
from proto.message import Message, decode_message, encode_message
from router.core.core import Core, Now
from router.core.output import Batch, OpenDelivery
from router.settings import Destination
from tests.simulation import plan, scene
from tests.simulation.disk import Disk, DiskError
from tests.simulation.item import Item
from tests.simulation.lines import LANES
from tests.simulation.model import Model
from tests.simulation.plan import Action, Setup
from tests.simulation.promise import broken
from tests.simulation.questions import FORGED, HONEST, Questions

DEPTH_MAX: Final = 2  # batches in the store's hands, as in the daemon
FINISH_ROUNDS: Final = 400
REFUSED_MAX: Final = 8
TYPES: Final = ("test.a.v1", "solo.a.v1", "alarm.a.v1", "lost.a.v1", "deny.a.v1", "undotted")
TEMPORARY: Final = ("queue_full", "store_full")
WALL_MS: Final = 1_800_000_000_000
_read_deliver = msgspec.msgpack.Decoder(frames.DeliverRaw).decode
_read_request = msgspec.msgpack.Decoder(frames.RequestRaw).decode


class World:
    """One life of a router and all who deal with it."""

    def __init__(self, setup: Setup) -> None:
        self.setup = setup
        self.disk = Disk()
        self.messages: dict[tuple[str, str], Message] = {}
        self.model = Model(self.disk, self.messages)
        self.wall_ms, self.mono_ms = WALL_MS, 1_000
        self.true_ms = WALL_MS  # what the wall clock should show
        self.variant = 0
        self.names = {key: name for name, key in scene.KEYS.items()}
        self.full = False
        self.sequence = self.batch_number = self.question_number = 0
        self.crashes = self.steps = self.lives = 0
        self.ending = False  # no faults any more
        self.history: dict[str, list[Message]] = {"north": [], "south": []}
        self.unaccepted: dict[bytes, dict[int, list[Message]]] = {p: {} for p in scene.PRODUCERS}
        self.refused: dict[bytes, list[Message]] = {p: [] for p in scene.PRODUCERS}
        self.replies: list[tuple[bytes, Any]] = []  # the last call's, without what has a check
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
        self.written: list[tuple[dict[int, int], list[list[OpenDelivery]]]] = []
        self.heard: dict[bytes, int] = {}  # live sessions, and when they last said something
        self.clogged: set[bytes] = set()
        self.lost: list[tuple[bytes, str]] = []  # who just lost the right to which destination
        self.questions = Questions()
        self.core = core = Core(settings, "bus", disk.epoch, Random(disk.epoch))
        core.know(dict(self.names), self.now)
        core.store_full = self.full
        core.frontier_lag_max = scene.LAGS[self.setup.lag]
        core.slice_length = scene.SLICES[disk.epoch % len(scene.SLICES)]
        core.observed = bool(self.setup.observed)
        for name, totals in disk.totals.items():
            self._queue(name).totals.update(totals)
        for name, reason in disk.holds.items():
            self._queue(name).hold = reason
        core.restore(disk.filed(), list(disk.recent()), *disk.next_numbers(), self.now,
                     disk.newest_ms())  # fmt: skip
        put_out = {row[2] for row in core.out.batch.filed if row[1] < LANES}
        self.model.true_ms = self.true_ms
        self.model.start(self.variant, self.setup.open_max, put_out, self.now)
        self._check_taken_up()
        self._tick()  # the daemon's timer fires before it hears anybody
        for peer in scene.PRODUCERS:
            if self._greet(peer):
                self._repeat(peer)

    def _queue(self, name: str) -> Any:
        return self.core.queues.get(name) or self.core.add_queue(name, Destination())

    def _check_taken_up(self) -> None:
        found = {*self.core.open, *self.core.backlog}
        items = self.model.items.items()
        expected = {id for id, item in items if not item.unread and item.asleep is None}
        expected -= self.model.due.keys()  # what ran out meanwhile
        lost = expected - found
        if lost:
            broken("nothing is lost", f"a start does not find delivery {min(lost)}")
        if found != expected:
            extra = found - expected
            broken("ends once", f"a start finds delivery {min(extra)}, which has ended")

    def _crash(self, kept: int, jump: int = 0) -> None:
        """kill -9: batches that were being written are on the disk or not, in order. The clock may
        be another when the router starts again."""
        for batch in self.writing[len(self.written) :][:kept]:
            self.disk.write(batch)
        self.crashes += 1
        self.mono_ms = 1_000
        self._jump(jump)
        self._start()

    # -- the core's output ------------------------------------------------------------------------

    def _carry_out(self, single: bool = True, loose: bool = False, whole: bool = True) -> None:
        """Check and carry out what the core wants.

        `single`: it looked at each queue once; `loose`: see Model.read; `whole`: all that it sent
        is still there.
        """
        out = self.core.out
        self.model.read(out.batch, self.now, loose)
        sends, out.sends = out.sends, []
        went: dict[str, dict[bytes, list[Item]]] = {}
        clogged: dict[bytes, list[list[bytes]]] = {}
        for peer, (verb, payload) in sends:
            if peer in self.clogged and peer in self.heard:
                clogged.setdefault(peer, []).append([verb, payload])
            self._send(peer, verb, payload, went)
        if not whole:
            return
        for name, by_peer in went.items():
            self.model.queues[name].went(by_peer, single)
        for queue in self.model.queues.values():
            queue.check_nothing_idles()
            queue.begin()
        self.model.check_acknowledged()
        for peer, lost in clogged.items():
            if peer in self.heard:
                never_came = [
                    one.delivery
                    for verb, payload in lost
                    if verb == frames.DELIVER
                    for one in _read_deliver(payload).deliveries
                ]
                self._over(peer, died=True, spared=frozenset(never_came))
                self.core.unsent(peer, lost, self.now)
                self._carry_out()
        if out.events:
            out.events = []

    def _send(
        self, peer: bytes, verb: bytes, payload: bytes, went: dict[str, dict[bytes, list[Item]]]
    ) -> None:
        if verb == frames.ACCEPTED:
            numbers = frames.PEER_READS[verb].decode(payload).batches
            self.model.acknowledged(peer, numbers)
            if peer in self.heard:
                for number in numbers:
                    self.unaccepted[peer].pop(number, None)
        elif verb == frames.DELIVER:
            deliver = _read_deliver(payload)
            if peer in self.heard and (peer, deliver.destination) not in self.lost:
                items = self.model.delivered(peer, deliver.destination, deliver, self.now)
            else:
                broken("rights are kept", f"{peer!r} is handed {deliver.destination} and ends")
            went.setdefault(deliver.destination, {}).setdefault(peer, []).extend(items)
        elif verb == frames.REQUEST:
            request = _read_request(payload)
            serves = peer in self.model.servers(request.destination)
            self.questions.forwarded(peer, request, serves or peer not in self.heard)
        elif verb == frames.REPLY and peer in self.heard:
            self.questions.answered(peer, frames.PEER_READS[verb].decode(payload), self.mono_ms)
        else:
            self.replies.append((peer, frames.PEER_READS[verb].decode(payload)))

    def _say(self, peer: bytes, verb: bytes, payload: object, key: bytes | None = None) -> None:
        if peer in self.heard and verb != frames.HELLO:
            self.heard[peer] = self.mono_ms
        self.replies = []
        key = scene.KEYS[scene.NAMES[peer]] if key is None else key
        raw = payload if isinstance(payload, bytes) else frames.encode(payload)
        self.core.receive(peer, key, [verb, raw], self.now)

    def _begin(self, peer: bytes, verb: bytes, payload: object) -> bool:
        self.heard[peer] = self.mono_ms
        self.replies = []
        key, raw = scene.KEYS[scene.NAMES[peer]], frames.encode(payload)
        return self.core.begin(peer, key, [verb, raw], self.now)

    def _expect(self, peer: bytes, code: str | None) -> None:
        """The peer must have heard this error, or none."""
        codes = [
            one.code for who, one in self.replies if who == peer and isinstance(one, frames.Error)
        ]
        if codes != ([] if code is None else [code]):
            broken("errors have a reason", f"{peer!r} heard {codes}, expected {code}")

    # -- sessions ---------------------------------------------------------------------------------

    def _live(self, peer: bytes) -> bool:
        """Whether a peer has a session, after trying to get one."""
        return peer in self.heard or self._greet(peer)

    def _greet(self, peer: bytes) -> bool:
        name = scene.NAMES[peer]
        known = self.names.get(scene.KEYS[name]) == name
        configured = name in scene.settings_of(self.variant, 0).permissions
        if known and configured and peer in self.heard:
            self._over(peer)
        own = sum(scene.NAMES[other] == name for other in self.heard)
        room = len(self.heard) < scene.BUS.sessions_max and own < scene.NAME_MAX
        self._say(peer, frames.HELLO, frames.Hello([1], name))
        welcome = known and configured and room
        if welcome:
            self.heard[peer] = self.mono_ms
            self.model.greeted(peer)
        self._carry_out()
        heard = [one for who, one in self.replies if who == peer]
        if welcome != any(isinstance(one, frames.Welcome) for one in heard):
            broken("names come from keys", f"{peer!r} heard {heard}")
        return welcome

    def _over(self, peer: bytes, died: bool = False, spared: frozenset[int] = frozenset()) -> None:
        """The model's part of a session that ends."""
        self.model.gone(peer, self.now, self.heard[peer] if died else None, spared)
        del self.heard[peer]
        self.clogged.discard(peer)
        self.questions.gone(peer)

    def _lose(self, peer: bytes, reason: str) -> None:
        self._over(peer, died=True)
        self.core.gone(peer, self.now, reason)
        self._carry_out()

    def _do_greet(self, number: int) -> None:
        self._greet(scene.PEERS[number])

    def _do_vanish(self, number: int) -> None:
        if scene.PEERS[number] in self.heard:
            self._lose(scene.PEERS[number], "vanished")

    def _do_bye(self, number: int) -> None:
        peer = scene.PEERS[number]
        if peer in self.heard:
            self._over(peer)
            self._say(peer, frames.BYE, frames.Bye("bye"))
            self._carry_out()

    def _do_clog(self, number: int) -> None:
        if scene.PEERS[number] in self.heard:
            self.clogged.add(scene.PEERS[number])

    def _do_beat(self, mask: int) -> None:
        least = scene.SESSION_TIMEOUT_MS
        silent = [peer for peer, at in self.heard.items() if self.mono_ms - at >= least]
        self.model.tick(self.now)
        for peer in silent:
            self._over(peer, died=True)
        trials = any(queue.trials or queue.suspects for queue in self.model.queues.values())
        self.model.beat(self.now)
        self.replies = []
        self.core.beat(self.now)
        self._carry_out(single=not trials and len(silent) < 2, loose=len(silent) > 1)
        pinged = [peer for peer, one in self.replies if isinstance(one, frames.Ping)]
        for peer in pinged:
            if mask >> scene.PEERS.index(peer) & 1:
                self._say(peer, frames.PONG, frames.Ping())
                self._carry_out()

    def _do_keys(self, revoked: int) -> None:
        valid = [name for number, name in enumerate(scene.PEOPLE) if not revoked >> number & 1]
        self.names = {scene.KEYS[name]: name for name in valid}
        ended = [peer for peer in self.heard if scene.NAMES[peer] not in valid]
        for peer in ended:
            self._over(peer)
        self.replies = []
        self.core.know(dict(self.names), self.now)
        self._carry_out(single=len(ended) < 2, loose=len(ended) > 1)
        for peer in ended:
            self._expect(peer, "revoked")

    def _do_garbage(self, number: int, kind: int) -> None:
        peer = scene.PEERS[number]
        live = peer in self.heard
        word = plan.GARBAGE[kind]
        if word == "no payload":
            self.core.receive(peer, b"", [frames.PING], self.now)
            self.replies = []
            if live:
                self.heard[peer] = self.mono_ms
            code: str | None = "bad_frame"
        elif word == "unknown verb":
            self._say(peer, b"SHOUT", b"\x90")
            code = "unknown_verb"
        elif word == "bad payload":
            self._say(peer, frames.SETTLE, b"\x93\x01\x02\x03")
            code = "bad_frame"
        elif word == "another key":
            if live:
                self._over(peer)
            self._say(peer, frames.CREDIT, frames.Credit("first", 9), key=b"stolen")
            code = "revoked" if live else "hello_required"
        elif word == "old version":
            self._say(peer, frames.HELLO, frames.Hello([0, 7], scene.NAMES[peer]))
            code = "bad_version"
        elif word == "another name":
            self._say(peer, frames.HELLO, frames.Hello([1], "somebody"))
            known = scene.KEYS[scene.NAMES[peer]] in self.names
            code = "name_mismatch" if known else "revoked"
        elif word == "no such destination":
            self._say(peer, frames.CREDIT, frames.Credit("nowhere", 5))
            code = "unknown_destination" if live else "hello_required"
        else:
            self._say(peer, frames.PING, frames.Ping(number))
            code = None if live else "hello_required"
        self._carry_out()
        self._expect(peer, code)

    # -- publishing -------------------------------------------------------------------------------

    def _do_publish(self, number: int, *codes: int) -> None:
        peer = scene.PRODUCERS[number]
        if self._live(peer):
            step = plan.MESSAGE_NUMBERS
            groups = [codes[at : at + step] for at in range(0, len(codes), step)]
            self._submit(peer, [self._message(peer, *group) for group in groups])

    def _message(
        self, peer: bytes, subject: int, priority: int, kind: int, timing: int
    ) -> Message | None:
        """Make a new message; None is bytes that are not one."""
        word = plan.KINDS[kind]
        if word == "broken":
            return None
        self.sequence += 1
        name, wall = scene.NAMES[peer], self.wall_ms
        wall = self.true_ms if timing % 2 else wall  # senders may have a clock that is right
        not_before, expires = {
            "now": (None, None), "after 300": (wall + 300, None), "after 2000": (wall + 2000, None),
            "until 400": (None, wall + 400), "until 2500": (None, wall + 2500),
            "300 to 700": (wall + 300, wall + 700), "past": (None, wall),
        }[plan.TIMINGS[timing]]  # fmt: skip
        message = Message(
            # Two senders use the same ids: only with its source is an id unique.
            id=f"f{self.sequence}" if word == "foreign" else f"m{len(self.history[name])}",
            type=TYPES[kind] if kind < len(TYPES) else TYPES[0],
            source="guest" if word == "foreign" else name,
            subject=f"112-{'abcd'[subject - 1]}" if subject else "", time=WALL_MS,
            priority=priority, not_before=not_before, expires=expires,
            body=bytes(scene.BODY_BYTES_MAX + 1) if word == "large" else b"",
        )  # fmt: skip
        self.messages[message.source, message.id] = message
        if word != "foreign":
            self.history[name].append(message)
        return message

    def _submit(
        self, peer: bytes, messages: list[Message | None], number: int | None = None
    ) -> None:
        if number is None:
            self.batch_number = number = self.batch_number + 1
        sent = [(encode_message(one) if one else b"\x92\x01\x02", one) for one in messages]
        payload = frames.PublishRaw(number, [msgspec.Raw(raw) for raw, _ in sent])
        more = self._begin(peer, frames.PUBLISH, payload)
        begin, early = 0, dict[int, str]()
        while more:
            unfinished = self.core.sessions[peer].unfinished
            assert unfinished is not None
            early = {one.index: one.code for one in unfinished.refusals}
            slice = range(begin, unfinished.at)
            batch = self.core.out.batch
            self.model.published(peer, number, sent, early, self.full, batch, self.now, slice)
            begin = unfinished.at
            self.unaccepted[peer][number] = [one for one in messages if one]
            if self._meanwhile(number + begin):
                return
            if peer not in self.heard:  # gone meanwhile, and nobody is told what became of it
                return
            more = self.core.proceed(peer, self.now)
        refused = self._take_refusals(peer, number)
        if not early.items() <= refused.items():
            broken("refused for a reason", f"{early} is not told in {refused}")
        slice, out = range(begin, len(sent)), self.core.out
        self.model.published(peer, number, sent, refused, self.full, out.batch, self.now, slice)
        pool = self.refused[peer]
        pool += [
            one for index, one in enumerate(messages) if one and refused.get(index) in TEMPORARY
        ]
        del pool[:-REFUSED_MAX]
        left = [one for index, one in enumerate(messages) if one and index not in refused]
        self.unaccepted[peer].pop(number, None)
        if left:
            self.unaccepted[peer][number] = left
        self._carry_out()

    def _meanwhile(self, number: int) -> bool:
        """Something happens between two slices of a PUBLISH. Return whether it was a crash."""
        what = number % 12
        if what in (1, 2, 3):
            self._do_take()
        if what in (2, 3):
            self._do_write()
        if what in (3, 4):
            self._do_tell()
        if what == 5 and not self.ending:
            self._do_crash(number % 2, 2, 0)
            return True
        return False

    def _take_refusals(self, peer: bytes, number: int) -> dict[int, str]:
        refused: dict[int, str] = {}
        others = []
        for to, (verb, payload) in self.core.out.sends:
            if verb != frames.REFUSED:
                others.append((to, [verb, payload]))
                continue
            said = frames.PEER_READS[verb].decode(payload)
            if (to, said.batch) != (peer, number):
                broken("refused for a reason", f"REFUSED for batch {said.batch} to {to!r}")
            refused |= {one.index: one.code for one in said.refusals}
        self.core.out.sends = others
        return refused

    def _repeat(self, peer: bytes) -> None:
        for number, messages in list(self.unaccepted[peer].items()):
            self._submit(peer, list(messages), number)

    def _do_repeat(self, number: int) -> None:
        if self._live(scene.PRODUCERS[number]):
            self._repeat(scene.PRODUCERS[number])

    def _do_again(self, number: int, back: int, fresh: int) -> None:
        peer = scene.PRODUCERS[number]
        history = self.history[scene.NAMES[peer]]
        if history and self._live(peer):
            old = history[-1 - back % len(history)]
            with_it = ([], [self._message(peer, 1, 2, 0, 0)], [old])[fresh]
            self._submit(peer, [old, *with_it])

    def _do_resend(self, number: int) -> None:
        peer = scene.PRODUCERS[number]
        if self.refused[peer] and self._live(peer):
            messages, self.refused[peer] = self.refused[peer], []
            self._submit(peer, list(messages))

    def _do_storm(self, number: int, queue: int, count: int, deaths: int, hands: int) -> None:
        """Emergencies come, now and then many at once, and are settled, and while they flow their
        consumers die in turn: what these die of has to find its turn among the others."""
        for at in range(count):
            for consumer in range(1 + hands):
                if not at or scene.CONSUMERS[consumer] not in self.heard:
                    self._do_credit(consumer, queue, plan.STORM_WINDOW)
            self._do_publish(number, *plan.EMERGENCY * (plan.STORM_MANY if at % 3 == 2 else 1))
            self._do_flush()
            consumer = at % (1 + hands)
            if 0 < at <= deaths:
                self._do_vanish(scene.PEERS.index(scene.CONSUMERS[consumer]))
            elif at > deaths:
                self._do_settle(consumer, plan.STORM_SETTLES, frames.ACK, 0)

    # -- the disk ---------------------------------------------------------------------------------

    def _do_take(self) -> None:
        if len(self.writing) < DEPTH_MAX and self.core.out.batch:
            self.writing.append(self.core.take_batch())
            self.model.taken()

    def _do_write(self) -> None:
        if len(self.written) < len(self.writing):
            batch = self.writing[len(self.written)]
            duplicates = self.disk.write(batch)
            self.written.append((duplicates, [self.disk.load(load) for load in batch.loads]))

    def _do_tell(self) -> None:
        if self.written:
            self._persist()
            self._carry_out()

    def _persist(self) -> None:
        batch, (duplicates, loaded) = self.writing.pop(0), self.written.pop(0)
        self.model.told(duplicates, list(zip(batch.loads, loaded, strict=True)), self.now)
        self.core.persisted(batch, duplicates, self.now, loaded)

    def _do_flush(self) -> None:
        self._do_take()
        while self.writing:
            self._do_write()
            self._do_tell()

    def _do_fail(self, kept: int) -> None:
        self._do_take()
        if len(self.written) < len(self.writing):
            self.disk.failing = bool(kept)
            try:
                self._do_write()
            except DiskError:  # the daemon's writer ends the process
                self._crash(0)

    def _do_crash(self, kept: int, stage: int, sent: int, jump: int = 0) -> None:
        if stage >= 1:
            self._do_take()
        if stage >= 2:
            while len(self.written) < len(self.writing):
                self._do_write()
        if stage >= 3 and self.written:
            self._persist()
            del self.core.out.sends[sent:]
            self._carry_out(whole=False)
        self._crash(kept, jump)

    def _do_stop(self) -> None:
        while self.writing or self.core.out.batch:
            self._do_flush()
        self.replies = []
        here = set(self.heard)
        self.core.farewell()
        self._carry_out()
        if {peer for peer, one in self.replies if isinstance(one, frames.Bye)} != here:
            broken("sessions", "not everybody heard BYE")
        self._start()

    # -- consumers --------------------------------------------------------------------------------

    def _do_credit(self, consumer: int, queue: int, window: int) -> None:
        peer, name = scene.CONSUMERS[consumer], scene.QUEUES[queue]
        if self._live(peer):
            serves = (None, True, False)[window % 3]
            self.model.serves(peer, name, serves)
            code = self.model.credit(peer, name, plan.WINDOWS[window])
            self._say(peer, frames.CREDIT, frames.Credit(name, plan.WINDOWS[window], serves))
            self._carry_out()
            self._expect(peer, code)

    def _do_settle(self, consumer: int, mask: int, outcome: int, after: int) -> None:
        peer = scene.CONSUMERS[consumer]
        held = [id for at, id in enumerate(self.model.hands.get(peer, ())) if mask >> at % 8 & 1]
        if held:
            after_ms = plan.AFTERS_MS[after] if outcome == frames.RETRY else None
            self._settle(peer, [frames.Settlement(id, outcome, after_ms, "why") for id in held])

    def _do_late(self, consumer: int, back: int, outcome: int) -> None:
        """Settle what may be held, another's, open, ended or not there, acks twice over."""
        peer = scene.CONSUMERS[consumer]
        ids = list(self.model.items if back % 2 else self.disk.deliveries)
        if ids and peer in self.heard:
            one = frames.Settlement(ids[-1 - back % len(ids)], outcome, 100, None)
            self._settle(peer, [one, one] if outcome == frames.ACK else [one])

    def _settle(self, peer: bytes, settlements: list[frames.Settlement]) -> None:
        foreign = self.model.settle(peer, settlements, self.now)
        self._say(peer, frames.SETTLE, frames.Settle(settlements))
        self._carry_out()
        self._expect(peer, "not_yours" if foreign else None)

    def _do_ask(self, number: int, queue: int, timeout: int, how: int) -> None:
        peer, name = scene.PRODUCERS[number], scene.QUEUES[queue]
        if not self._live(peer):
            return
        self.question_number += 1
        asked, source = self.question_number, scene.NAMES[peer]
        word = plan.ASKED[how]
        raw = b"\x91\x01" if word == "broken" else encode_message(
            Message(f"q{asked}", "ask.a.v1", "guest" if word == "foreign" else source, "", WALL_MS,
                    body=bytes(scene.BODY_BYTES_MAX + 1) if word == "large" else b"")
        )  # fmt: skip
        timeout_ms = plan.TIMEOUTS_MS[timeout]
        self.questions.ask(peer, asked, timeout_ms, raw, self.mono_ms)
        self._say(peer, frames.REQUEST,
                  frames.RequestRaw(asked, name, timeout_ms, msgspec.Raw(raw)))  # fmt: skip
        served = word == "fair" and scene.may(self.variant, source, "ask", name)
        served = served and bool(self.model.servers(name))
        sure = not self.clogged
        self._carry_out()
        if sure and ((peer, asked) in self.questions.pending) != served:
            broken("questions", f"{source} asks {name}: it must be {'' if served else 'not '}asked")

    def _do_answer(self, consumer: int, back: int, how: int) -> None:
        server = scene.CONSUMERS[consumer]
        numbers = self.questions.received.get(server)
        if not numbers or server not in self.heard:
            return
        number = numbers[-1 - back % len(numbers)]
        speaker, body = server, HONEST
        if how == 1:
            others = [peer for peer in self.heard if peer != server]
            if not others:
                return
            speaker, body = others[number % len(others)], FORGED
        for _ in range(2 if how == 2 else 1):
            if speaker in self.heard:
                self._say(speaker, frames.REPLY, frames.Reply(number, body=body))
                self._carry_out()

    # -- time and operators -----------------------------------------------------------------------

    def _do_time(self, wait: int, jump: int) -> None:
        self._pass(plan.WAITS_MS[wait], jump)

    def _pass(self, passed: int, jump: int) -> None:
        self.mono_ms += passed
        self.wall_ms += passed
        self.true_ms += passed
        self.model.true_ms = self.true_ms
        self._jump(jump)
        self._tick()

    def _jump(self, jump: int) -> None:
        self.wall_ms = self.true_ms if jump == plan.SET_RIGHT else self.wall_ms + jump

    def _tick(self) -> None:
        self.model.tick(self.now)
        self.core.tick(self.now)
        self._carry_out()
        self.questions.check(self.mono_ms)

    def _do_reload(self, variant: int) -> None:
        self.variant = variant
        settings = scene.settings_of(variant, self.setup.open_max)
        ended = [peer for peer in self.heard if scene.NAMES[peer] not in settings.permissions]
        for peer in ended:
            self._over(peer)
        self.replies = []
        self.lost = self.model.configure(variant, self.now)
        self.core.configure(settings, self.now)
        many = len(ended) + len(self.lost) > 1
        self._carry_out(single=False, loose=many)
        for peer in ended:
            self._expect(peer, "unknown_name")
        for peer in {peer for peer, _ in self.lost}:
            codes = [one.code for who, one in self.replies if who == peer]
            if codes != ["not_permitted"] * sum(one[0] == peer for one in self.lost):
                broken("errors have a reason", f"{peer!r} heard {codes} at a reload")
        self.lost = []

    def _do_full(self, full: int) -> None:
        self.full = self.core.store_full = bool(full)

    def _do_hold(self, queue: int, held: int) -> None:
        name = scene.QUEUES[queue]
        lines = self.model.queues.get(name)
        if lines is not None:
            lines.held_back = bool(held)
        obeyed = self.core.hold(name, "why" if held else None, self.now)
        self._carry_out()
        if obeyed != (lines is not None):
            broken("held back", f"{name}: the operator heard {obeyed}")

    def _do_hurry(self, queue: int, subject: int) -> None:
        name, wanted = scene.QUEUES[queue], f"112-{'abcd'[subject - 1]}" if subject else None
        expected = self.model.try_now(name, wanted) if name in self.model.queues else None
        if self.core.try_now(name, wanted, self.now) != expected:
            broken("retried when asked", f"{name}: the operator did not hear {expected}")
        self._carry_out()

    def _dead(self, queue: int, count: int) -> tuple[list[Any], list[Any]]:
        """What an operator finds on the disk, and what of it no other has asked for meanwhile."""
        batches = (*self.writing[len(self.written) :], self.core.out.batch)
        asked = {row[0] for batch in batches for row in (*batch.reopened, *batch.dropped)}
        found = self.disk.dead(scene.QUEUES[queue])[: count + 1]
        free = [row for row in found if row.delivery not in asked]
        return found, free

    def _do_replay(self, queue: int, count: int) -> None:
        found, free = self._dead(queue, count)
        self.model.replay(free, self.now)
        self._obeyed(self.core.replay(found, "why", self.now), len(free))

    def _do_drop(self, queue: int, count: int) -> None:
        found, free = self._dead(queue, count)
        self.model.drop([(row.delivery, row.destination) for row in free])
        letters = [(row.delivery, row.destination) for row in found]
        self._obeyed(self.core.drop(letters, "why"), len(free))

    def _obeyed(self, count: int, expected: int) -> None:
        if count != expected:
            broken("replay", f"the operator heard {count}, expected {expected}")
        self._carry_out()

    # -- what holds at every instant, and in the end ----------------------------------------------

    def _check(self) -> None:
        if self.core.sessions.keys() != self.heard.keys():
            broken("sessions", f"{[*self.core.sessions]}, expected {[*self.heard]}")
        self.model.check_books(self.core)

    def finish(self) -> None:
        """All faults end: everything that was accepted must come to its end."""
        self.ending = True
        self.full = self.core.store_full = False
        self._do_keys(0)
        self._do_reload(0)
        for number in range(len(scene.PEERS)):
            self._do_vanish(number)
        for number in range(len(scene.QUEUES)):
            self._do_hold(number, 0)
            for consumer in (0, 1):
                self._do_credit(consumer, number, len(plan.WINDOWS) - 1)
        for number in range(len(scene.PRODUCERS)):
            self._do_repeat(number)
        self._do_flush()
        self._outwait_all()
        for _ in range(FINISH_ROUNDS):
            self._do_flush()
            for number in range(len(scene.PRODUCERS)):
                self._do_resend(number)
            for consumer in (0, 1):
                self._do_settle(consumer, 255, frames.ACK, 0)
            self._do_time(4, 0)
            self._check()
            if self._drained():
                break
        else:
            broken("everything drains", f"{len(self.model.items)} deliveries never ended")
        self._check_end()

    def _outwait_all(self) -> None:
        """The clock is right, and the time of everything comes, also of what a wrong one set."""
        last = max((one.not_before or 0 for one in self.messages.values()), default=0)
        self._pass(max(0, last - self.true_ms), plan.SET_RIGHT)

    def _drained(self) -> bool:
        waiting = any((*self.unaccepted.values(), *self.refused.values()))
        return not (waiting or self.model.items or self.core.out.batch or self.writing)

    def _check_end(self) -> None:
        disk = self.disk
        lost = self.model.accepted - disk.names.keys()
        if lost:
            broken("nothing is lost", f"{sorted(lost)} were accepted")
        if disk.deliveries.keys() != disk.ended.keys():
            broken("nothing is lost", "a delivery on disk has no end")
        for n, (_, raw) in disk.messages.items():
            if decode_message(raw) != self.messages[disk.keys[n]]:
                broken("nothing is lost", f"message {n} is not what was sent")
        self._crash(0)
        self._check()

    _acts: Final[dict[str, Any]] = {}


World._acts.update((name, getattr(World, f"_do_{name}")) for name in plan.WEIGHTS)
