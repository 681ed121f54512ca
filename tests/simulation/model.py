"""The reference model: what the router may and must do, told by what it was told.

It sees what any peer and any disk sees: the frames, the rows of the gathering transaction, the
time. Before each call of the core it foresees which rows must come, after it it compares; every
frame is held against the promises. It never asks the core what it thinks.
"""

from typing import Final

from proto import frames
from proto.errors import TEMPORARY
from proto.message import Message
from router.core.core import Core, Now
from router.core.delivery import State
from router.core.output import BacklogRow, Batch, Load, OpenDelivery
from router.settings import Backoff, Destination
from tests.simulation import scene
from tests.simulation.belief import Belief
from tests.simulation.disk import TOTALS, WORDS, Disk
from tests.simulation.item import AWAY, DELAYED, LINED, UNWRITTEN, Item
from tests.simulation.lines import LANES, Lines
from tests.simulation.promise import broken

Due = dict[int, list[frozenset[str]]]
JITTER: Final = 0.2
QUICK: Final = 3  # attempts after which a consumer may ask for any short pause
NOTHING: Final[frozenset[int]] = frozenset()
AGAIN: Final = ("returned", "vanished", "vanished_alone")
QUICK_DEATHS: Final = 2  # of its consumers: so often it goes again at once
RETRIED: Final = frozenset(("retry",))
REPLAYED: Final = frozenset(("replayed",))
SETTLED: Final = frozenset(("settled",))
DEAD: Final = frozenset(("dead",))
EXPIRED: Final = frozenset(("expired",))


class Model:
    """What one life of the router must be like; `start` begins the next life on the same disk."""

    def __init__(self, disk: Disk, messages: dict[tuple[str, str], Message]) -> None:
        self.disk = disk
        self.messages = messages  # (source, id) -> the message, which never changes
        self.accepted: set[tuple[str, str]] = set()
        self.true_ms = 0  # the time of the day, whatever the router's clock shows
        self.born: dict[int, int] = {}  # delivery -> true time when its age began
        self.seen: dict[tuple[str, str, str], int] = {}  # queue, source, id -> delivery
        self.effects: dict[tuple[str, str], int] = {}  # queue, subject -> n of the latest first one
        self.effective: set[int] = set()  # deliveries that had their first effect

    # -- a life begins ----------------------------------------------------------------------------

    def start(self, variant: int, open_max: int, put_out: set[int], now: Now) -> None:
        """Take up what is on the disk, all of it, wherever the frontier is; what is in the backlog
        or was `put_out` there is not in memory."""
        self.variant, self.open_max = variant, open_max
        self.items: dict[int, Item] = {}
        self.timed: dict[int, Item] = {}
        self.belief = Belief(self.disk.newest_ms(), now)
        self.queues: dict[str, Lines] = {}
        self.destinations: dict[str, Destination] = {}
        self.totals: dict[str, dict[str, int]] = {}
        self.hands: dict[bytes, dict[int, Item]] = {}
        self.wanted: dict[bytes, dict[str, int]] = {}  # credit that was refused
        self.served: dict[tuple[bytes, str], bool | None] = {}  # who says that it answers
        self.gathered: list[Item] = []
        self.pipeline: list[tuple[list[Item], list[tuple[bytes, int]]]] = []
        self.accepts: list[tuple[bytes, int, list[tuple[str, str]]]] = []
        self.due: Due = {}
        self.acknowledging: dict[bytes, list[int]] = {}
        self.pledged: dict[tuple[bytes, int], list[tuple[str, str]]] = {}
        self.read_attempts = self.read_outcomes = self.read_messages = 0
        self.read_reopened = self.read_dropped = self.read_spilled = self.read_loads = 0
        self.spilling: dict[int, BacklogRow] = {}
        self.pauses: dict[int, tuple[int, int]] = {}  # of what must be put off: least and longest
        self.dues: dict[int, int | None] = {}  # of what was read: when its next attempt is
        self._resident: dict[str, list[int]] = {}
        self._put_in_force(variant)
        disk = self.disk
        for delivery in sorted((*disk.open, *disk.backlog)):
            self._take_up(delivery, delivery in disk.backlog or delivery in put_out, now)
        for name, totals in disk.totals.items():
            self._know(name)
            self.totals[name] = dict(totals)
        for name in disk.holds:
            self._know(name).held_back = True

    def _take_up(self, delivery: int, away: bool, now: Now) -> None:
        n, name = self.disk.deliveries[delivery]
        _, raw = self.disk.messages[n]
        item = Item(delivery, n, name, self._message_of(n), raw)
        item.attempts, due, age = self.disk.attempts.get(delivery, (0, None, 0))
        item.born_ms, item.since_ms = self.born[delivery], now.mono_ms - age
        item.vanished, item.lonely = self.disk.deaths.get(delivery, (0, 0))
        self._know(name).open += 1
        self.items[delivery] = item
        row = self.disk.backlog.get(delivery)
        if row is not None and row[1] >= LANES:
            item.state, item.asleep = AWAY, row[4]
        elif away:
            item.state = AWAY
            self.queues[name].put_away(item)
        else:
            self._resident[name][item.lane] += item.size
            self._enqueue(item, due, now)

    def _message_of(self, n: int) -> Message:
        return self.messages[self.disk.keys[n]]

    def _put_in_force(self, variant: int) -> None:
        self.variant = variant
        for name, destination in scene.settings_of(variant, self.open_max).destinations.items():
            self._know(name)
            self.destinations[name] = destination

    def configure(self, variant: int, now: Now) -> list[tuple[bytes, str]]:
        """Other routes, rights and limits are in force; returns who lost which destination. What
        others may consume now, and had asked for in vain, they have."""
        self._put_in_force(variant)
        lost = []
        for name, queue in self.queues.items():
            for peer in list(queue.windows):
                if not self.may_consume(peer, name):
                    lost.append((peer, name))
                    self.wanted[peer][name] = queue.windows.pop(peer)
                    queue.held.pop(peer, None)
                    queue.trials.pop(peer, None)
                    hand = self.hands[peer]
                    for item in [item for item in hand.values() if item.queue == name]:
                        del hand[item.id]
                        self._return(item, "returned", now)
        for peer, wanted in self.wanted.items():
            for name in [name for name in wanted if name in self.queues]:
                if self.may_consume(peer, name):
                    self.queues[name].windows[peer] = wanted.pop(name)
        return lost

    def _know(self, name: str) -> Lines:
        queue = self.queues.get(name)
        if queue is None:
            queue = self.queues[name] = Lines(name)
            self.destinations[name] = Destination()
            self._resident[name] = [0] * LANES
            self.totals[name] = dict.fromkeys(TOTALS, 0)
        return queue

    def may_consume(self, peer: bytes, destination: str) -> bool:
        """Whether a peer has the right to consume a destination now."""
        return scene.may(self.variant, scene.NAMES[peer], "consume", destination)

    # -- publishing -------------------------------------------------------------------------------

    sliced: list[tuple[str, str]]  # of a PUBLISH that is looked at in slices: what is accepted,
    held_subjects: dict[str, str]  # and why nothing more is of which subjects

    def published(
        self, peer: bytes, number: int, sent: list[tuple[bytes, Message | None]],
        refused: dict[int, str], full: bool, batch: Batch, now: Now, slice: range,
    ) -> None:  # fmt: skip
        """Messages were sent and some refused: each rightly, and the others are to be written. What
        was looked at is a `slice` of them: it is answered when it is the last."""
        rows = batch.messages[self.read_messages :]
        self.read_messages = len(batch.messages)
        self.spilling = {row[2]: row for row in batch.spilled[self.read_spilled :]}
        self.read_spilled = len(batch.spilled)
        if not slice.start:
            self.sliced, self.held_subjects = [], {}
        taken, held = self.sliced, self.held_subjects
        numbers = iter(rows)
        for index in slice:
            raw, message = sent[index]
            reasons, names = self._reasons(peer, message, full, now)
            subject = message.subject if message else ""
            if not reasons and subject in held:
                reasons = {held[subject]}  # it would overtake one that is to come again
            code = refused.get(index)
            if code is not None:
                if code not in reasons:
                    broken("refused for a reason", f"{code}, expected one of {sorted(reasons)}")
                if subject and code in TEMPORARY:
                    held[subject] = code
                continue
            if reasons or message is None:
                broken("refused is not accepted", f"accepted in spite of {sorted(reasons)}")
            self._expect_row(next(numbers, None), message, raw, names, now)
            taken.append((message.source, message.id))
        if next(numbers, None) is not None:
            broken("refused is not accepted", "a row more than was accepted")
        if taken and slice.stop == len(sent):
            self.accepts.append((peer, number, taken))

    def _expect_row(
        self, row: tuple[object, ...] | None, message: Message, raw: bytes,
        names: tuple[str, ...], now: Now,
    ) -> None:  # fmt: skip
        if row is None:
            broken("nothing is lost", f"{message.id} was not refused and is not written")
        n, source, id, subject, at, first, destinations, _, data = row
        expected = (message.source, message.id, message.subject, now.wall_ms, " ".join(names), raw)
        if (source, id, subject, at, destinations, data) != expected:
            broken("nothing is lost", f"{message.id} is written as {row[:7]}")
        for delivery, name in enumerate(names, int(str(first))):
            item = Item(delivery, int(str(n)), name, message, raw)
            item.born_ms, item.since_ms = self.true_ms, now.mono_ms
            self.born[delivery] = self.true_ms
            self.gathered.append(item)
            self.items[delivery] = item
            self.queues[name].unwritten += 1
            item.sender = _sender_of(message)
            self.queues[name].senders[item.sender] += 1
            self._expect_spilled(item, now)

    def _expect_spilled(self, item: Item, now: Now) -> None:
        """It is held in memory if it is due, there is room, and nothing before it is on the disk
        only."""
        lines, row = self.queues[item.queue], self.spilling.pop(item.id, None)
        item.asleep = self._sleeps_until(item, item.message.not_before, now)
        if item.asleep is not None:
            if row != (item.queue, item.lane + LANES, item.id, item.n, item.asleep):
                broken("what is not due takes no place", f"{item.queue}: {item.id} is {row}")
            return
        crowded = self.resident_bytes(item.queue)[item.lane] > self._lane_bytes_max(item.queue)
        behind = lines.unread[item.lane] or (item.subject and item.subject in lines.away)
        if (row is not None) != bool(crowded or behind):
            broken(
                "memory is bounded", f"{item.queue}: {item.id} is {'' if row else 'not '}spilled"
            )
        if row is None:
            self._resident[item.queue][item.lane] += item.size
        else:
            if row[:4] != (item.queue, item.lane, item.id, item.n):
                broken("backlog", f"delivery {item.id} is spilled as {row}")
            lines.put_away(item)

    def _lane_bytes_max(self, name: str) -> int:
        return self.destinations[name].memory_mib * scene.MIB // 4

    def resident_bytes(self, name: str) -> list[int]:
        """Return how many bytes of a queue must be in memory, by lane."""
        return self._resident[name]

    def _reasons(
        self, peer: bytes, message: Message | None, full: bool, now: Now
    ) -> tuple[set[str], tuple[str, ...]]:
        """Return every code by which a message may be refused, and its destinations."""
        if message is None:
            return {"bad_message"}, ()
        name = scene.NAMES[peer]
        reasons = set()
        if message.source != name:
            reasons.add("source_mismatch")
        if "." not in message.type:
            reasons.add("bad_message")
        if not scene.may(self.variant, name, "publish", message.type):
            reasons.add("not_permitted")
        names = scene.destinations_of(
            self.variant, self.open_max, name, message.type, message.priority
        )
        if not names:
            reasons.add("no_route")
        if len(message.body) > scene.BODY_BYTES_MAX:
            reasons.add("body_too_large")
        if message.expires is not None and message.expires <= self.belief.sure(now):
            reasons.add("expired")
        if full:
            reasons.add("store_full")
        for queue in names:
            if not self._has_room(queue, message):
                reasons.add("queue_full")
        return reasons, names

    def _has_room(self, name: str, message: Message) -> bool:
        """Whether a queue may take one more: a part is for emergencies, and of what the others
        leave one sender has a share."""
        lines, settings = self.queues[name], self.destinations[name]
        room = settings.open_max
        if message.priority > 0:
            room -= settings.open_max * settings.emergency_percent // 100
        own = lines.senders[_sender_of(message)]
        others = lines.open + lines.unwritten - own
        if own + others >= room:
            return False
        return own == 0 or own < (room - others) * settings.sender_percent / 100

    # -- the disk ---------------------------------------------------------------------------------

    def taken(self) -> None:
        """The gathering transaction went to the disk; the next one gathers."""
        self.pipeline.append((self.gathered, [(peer, number) for peer, number, _ in self.accepts]))
        for peer, number, ids in self.accepts:
            self.pledged.setdefault((peer, number), []).extend(ids)
        self.gathered, self.accepts = [], []
        self.read_attempts = self.read_outcomes = self.read_messages = 0
        self.read_reopened = self.read_dropped = self.read_spilled = self.read_loads = 0

    def told(
        self, duplicates: dict[int, int], loaded: list[tuple[Load, list[OpenDelivery]]], now: Now
    ) -> None:
        """The oldest transaction is on disk and the core knows: its deliveries are in line, and
        what was read is in memory."""
        items, accepts = self.pipeline.pop(0)
        for item in items:
            queue = self.queues[item.queue]
            if not item.replayed:
                queue.unwritten -= 1
                if item.n in duplicates:
                    self._never_was(item)
                    continue
                queue.open += 1
                self.totals[item.queue]["accepted"] += 1
            if item.unread or item.asleep is not None:
                item.state = AWAY
            else:
                self._enqueue(item, None, now)
        for load, rows in loaded:
            self._read_back(load, rows, now)
        for peer, number in accepts:
            self.acknowledging.setdefault(peer, []).append(number)

    def _never_was(self, item: Item) -> None:
        del self.items[item.id]
        self.queues[item.queue].senders[item.sender] -= 1
        if item.unread:
            self.queues[item.queue].take_back(item)
        elif item.asleep is None:
            self._resident[item.queue][item.lane] -= item.size

    def _read_back(self, load: Load, rows: list[OpenDelivery], now: Now) -> None:
        due = {row.delivery: row.due for row in rows}
        ages = {row.delivery: row.age for row in rows}
        items = [self.items[row.delivery] for row in rows if row.delivery in self.items]
        if load.wakes:
            for item in items:
                item.asleep, item.since_ms = None, now.mono_ms - ages[item.id]
                self._resident[item.queue][item.lane] += item.size
                self._enqueue(item, due[item.id], now)
            return
        for item in items:
            if item.unread:
                item.since_ms = now.mono_ms - ages[item.id]
                self._resident[item.queue][item.lane] += item.size
        subject = load.subject if load.places else None
        for item in self.queues[load.destination].bring(items, subject):
            self._enqueue(item, due.get(item.id, self.dues.get(item.id)), now)
        self.dues.update(due)

    def acknowledged(self, peer: bytes, numbers: list[int]) -> None:
        """ACCEPTED was sent: all of it is on disk."""
        waiting = self.acknowledging.get(peer, [])
        for number in numbers:
            for key in self.pledged.get((peer, number), ()):
                if key not in self.disk.names:
                    broken("accepted is on disk", f"{key[1]} of {key[0]} is not")
                self.accepted.add(key)
            if number not in waiting:
                broken("accepted is on disk", f"ACCEPTED for batch {number}, which is not")
            waiting.remove(number)

    def check_acknowledged(self) -> None:
        """Every ACCEPTED that was due was sent."""
        for peer, numbers in self.acknowledging.items():
            if numbers:
                broken("accepted is said", f"{peer!r} never hears of batches {numbers}")
        self.acknowledging.clear()

    def _enqueue(self, item: Item, due: int | None, now: Now) -> None:
        queue = self.queues[item.queue]
        message, sure = item.message, self.belief.sure(now)
        is_new = not item.attempts and not item.replayed
        if self._is_over(item, now):
            item.state = DELAYED  # it never gets into line
            self.due.setdefault(item.id, []).append(EXPIRED)
            return
        if is_new:
            due = message.not_before
            if (until := self._sleeps_until(item, due, now)) is not None:
                item.state, item.asleep = AWAY, until
                self._resident[item.queue][item.lane] -= item.size
                return
        if message.expires is not None:
            self.timed[item.id] = item
        if due is None or (is_new and due <= sure):
            queue.arrive(item)
        elif is_new:
            item.wait_until = now.mono_ms + due - sure
            item.state = DELAYED
            self.timed[item.id] = item
        elif queue.arrive(item):
            longest = int(self.destinations[item.queue].backoff.longest_ms * (1 + JITTER))
            item.wait_until = now.mono_ms + min(due - now.wall_ms, longest)
            if item.wait_until > now.mono_ms:
                self._wait(item)

    def _is_over(self, item: Item, now: Now) -> bool:
        """Whether its `expires` has surely come."""
        expires = item.message.expires
        return expires is not None and expires <= self.belief.sure(now)

    def _sleeps_until(self, item: Item, due: int | None, now: Now) -> int | None:
        if due is None or due <= self.belief.sure(now) + scene.SOON_MS:
            return None
        expires = item.message.expires
        return due if expires is None else min(due, expires)

    def _wait(self, item: Item) -> None:
        self.queues[item.queue].withhold(item)
        item.retrying = True
        self.timed[item.id] = item

    # -- rows -------------------------------------------------------------------------------------

    def read(self, batch: Batch, now: Now, loose: bool = False) -> None:
        """Compare what the core wants written with what it must. `loose`: sessions ended together,
        and what one held may have been in another's hands before both were gone."""
        if len(batch.messages) != self.read_messages:
            broken("refused is not accepted", "a message row out of nowhere")
        for load in batch.loads[self.read_loads :]:
            self._check_woken(load, now)
        self.read_loads = len(batch.loads)
        for name, row in [("reopened", row) for row in batch.reopened[self.read_reopened :]]:
            self._take_word(row[0], name)
        for gone in batch.dropped[self.read_dropped :]:
            self._take_word(gone[0], "dropped")
        self.read_reopened, self.read_dropped = len(batch.reopened), len(batch.dropped)
        for attempt in batch.attempts[self.read_attempts :]:
            self._read_attempt(attempt, now, loose)
        self.read_attempts = len(batch.attempts)
        for outcome in batch.outcomes[self.read_outcomes :]:
            self._read_outcome(outcome, now, loose)
        self.read_outcomes = len(batch.outcomes)
        if self.due:
            id, words = next(iter(self.due.items()))
            broken("a settlement is kept", f"delivery {id} is not written as {sorted(words[0])}")

    def _check_woken(self, load: Load, now: Now) -> None:
        for id, _ in load.places if load.wakes else ():
            until = self.items[id].asleep
            if until is None or until > self.belief.sure(now):
                broken("not before its time", f"delivery {id} is woken and sleeps until {until}")

    def _take_word(self, id: int, word: str) -> bool:
        words = self.due.get(id)
        if words is None:
            return False
        if word not in words[0]:
            broken("a settlement is kept", f"delivery {id} became {word}, not {sorted(words[0])}")
        words.pop(0)
        if not words:
            del self.due[id]
        return True

    def _read_attempt(
        self, row: tuple[int, int, int, str, str | None, int | None, int], now: Now, loose: bool
    ) -> None:
        id, number, at, word, _, due, age = row
        item = self.items.get(id)
        if item is None:
            broken("a settlement is kept", f"an attempt of delivery {id}, which is not open")
        if not self._take_word(id, word):
            if not loose or word not in AGAIN:
                broken("a settlement is kept", f"delivery {id} was noted as {word} unasked")
            item.attempts = number
        if number != item.attempts or at != now.wall_ms:
            broken("attempts are counted", f"delivery {id}: {number} at {at}, not {item.attempts}")
        if age != now.mono_ms - item.since_ms or age > self.true_ms - item.born_ms:
            broken("old enough to die", f"delivery {id} is noted as {age} ms old")
        if word == "replayed":
            return
        if due is None and item.id not in self.pauses:
            self.queues[item.queue].release(item)
            return
        self._read_due(item, due, now)

    def _read_due(self, item: Item, due: int | None, now: Now) -> None:
        least, most = self.pauses.pop(item.id, (0, -1))
        if due is None or not now.wall_ms + least <= due <= now.wall_ms + most:
            broken("retried when asked", f"delivery {item.id} in {due}, not {least} to {most} ms")
        if due > now.wall_ms:
            item.wait_until = now.mono_ms + due - now.wall_ms
            self._wait(item)
        else:
            self.queues[item.queue].release(item)

    def _read_outcome(self, row: tuple[object, ...], now: Now, loose: bool) -> None:
        id, n, name, state, attempts = row[:5]
        item = self.items.get(int(str(id)))
        word = WORDS[State(int(str(state)))]
        if item is None or item.state == UNWRITTEN:
            broken("ends once", f"delivery {id} became {word} and is not open")
        if (n, name) != (item.n, item.queue):
            broken("numbers", f"delivery {id} ended as message {n} at {name}")
        if not self._take_word(item.id, word):
            unasked_death = loose and word == "dead"
            overdue = word == "expired" and self._is_over(item, now) and item.hand is None
            if not unasked_death and not overdue:
                broken("ends once", f"delivery {id} became {word} unasked")
        elif attempts != item.attempts and not loose:
            broken("attempts are counted", f"delivery {id} ended at {attempts}")
        self._end(item, word)

    def _end(self, item: Item, word: str) -> None:
        if item.hand is not None:
            self._take_from_hand(item)
        del self.items[item.id]
        self.timed.pop(item.id, None)
        self.totals[item.queue][word] += 1
        self._resident[item.queue][item.lane] -= item.size
        self.queues[item.queue].end(item)

    # -- delivering -------------------------------------------------------------------------------

    def delivered(self, peer: bytes, name: str, deliver: frames.DeliverRaw, now: Now) -> list[Item]:
        """A live peer was handed these: each is open, in turn, in time, and within its credit."""
        queue = self.queues[name]
        window = queue.windows.get(peer)
        if window is None:
            broken("credit is kept", f"{peer!r} never asked for {name}")
        if not self.may_consume(peer, name):
            broken("rights are kept", f"{peer!r} may not consume {name}")
        if queue.held_back:
            broken("held back", f"{name} is held back and delivers")
        items = []
        for one in deliver.deliveries:
            item = self._open_item(one.delivery, name, bytes(one.message))
            self._check_turn(queue, item, now)
            if one.attempt != item.attempts + 1:
                broken("attempts are counted", f"delivery {item.id}: attempt {one.attempt}")
            if item.suspect:
                self._check_alone(queue, peer, item, now)
            elif queue.room(peer, item.urgency) <= 0:
                queue.beyond.append(item)
            if queue.room(peer, 0) <= 0:
                broken("credit is kept", f"{peer!r} holds {queue.held.get(peer, 0)} of {name}")
            item.attempts = one.attempt
            item.hand, item.given_ms = peer, now.mono_ms
            queue.withhold(item)
            queue.held[peer] = queue.held.get(peer, 0) + 1
            self.hands[peer][item.id] = item
            self._note_effect(item)
            items.append(item)
        return items

    def _check_alone(self, queue: Lines, peer: bytes, item: Item, now: Now) -> None:
        beside = [one for one in self.hands[peer].values() if one.queue == queue.name]
        young = [one.id for one in beside if one.given_ms > now.mono_ms - scene.TRIAL_MS]
        if young or peer in queue.trials:
            broken("a suspect goes alone", f"{queue.name}: {item.id} beside {young} at {peer!r}")
        queue.trials[peer] = item
        queue.tried.add(item.id)

    def _open_item(self, id: int, name: str, raw: bytes) -> Item:
        item = self.items.get(id)
        if item is None or item.state in (UNWRITTEN, AWAY):
            if id in self.disk.deliveries and item is None:
                broken("ended is not delivered", f"delivery {id} has ended")
            broken("delivered is on disk", f"delivery {id} is not on disk yet")
        if item.queue != name or item.raw != raw:
            broken("delivered is on disk", f"delivery {id} is another message or queue's")
        return item

    def _check_turn(self, queue: Lines, item: Item, now: Now) -> None:
        if item.hand is not None:
            broken("one pair of hands", f"delivery {item.id} is at {item.hand!r} already")
        if item.state == DELAYED or item.retrying:
            early = item.wait_until - now.mono_ms
            broken("not before its time", f"delivery {item.id} came {early} ms early")
        if not queue.is_head(item):
            head = queue.head(item)
            promise = "order" if head.hand is None else "one of a subject at a time"
            broken(promise, f"{queue.name} {item.subject}: {item.id} before {head.id}")
        if self._is_over(item, now):
            broken("expired is not delivered", f"delivery {item.id} of {queue.name}")

    def _note_effect(self, item: Item) -> None:
        message = item.message
        known = self.seen.setdefault((item.queue, message.source, message.id), item.id)
        if known != item.id:
            broken("one delivery id", f"{message.id} at {item.queue} was {known}, now {item.id}")
        if item.id in self.effective:
            return
        self.effective.add(item.id)
        if item.subject and message.not_before is None:
            line = item.queue, item.subject
            if self.effects.get(line, 0) > item.n:
                broken("order", f"{line}: {item.n} after {self.effects[line]}")
            self.effects[line] = item.n

    # -- what peers and operators do --------------------------------------------------------------

    def settle(self, peer: bytes, settlements: list[frames.Settlement], now: Now) -> int:
        """Foresee what settlements do. Returns how many of them are another's."""
        foreign = 0
        for one in settlements:
            item = self.items.get(one.delivery)
            if item is None or item.state in (UNWRITTEN, AWAY) or item.id in self.due:
                continue
            if item.hand is not None and item.hand != peer:
                foreign += 1
            elif item.hand == peer or self._may_settle_late(peer, item, one.outcome):
                self.queues[item.queue].proofs += 1
                self._foresee(item, one, now)
        return foreign

    def _may_settle_late(self, peer: bytes, item: Item, outcome: int) -> bool:
        return (
            outcome == frames.ACK
            and item.state == LINED
            and self.queues[item.queue].is_head(item)
            and self.may_consume(peer, item.queue)
        )

    def _foresee(self, item: Item, one: frames.Settlement, now: Now) -> None:
        self._let_go(item)
        if one.outcome == frames.ACK:
            self.due[item.id] = [SETTLED]
        elif one.outcome == frames.REJECT:
            self.due[item.id] = [DEAD]
        else:
            backoff = self.destinations[item.queue].backoff
            words = self.due[item.id] = [self._retry_words(item, backoff, now)]
            if words == [RETRIED]:
                item.acquit()
                self.pauses[item.id] = _pause(backoff, item.attempts, one.after_ms)

    def _retry_words(self, item: Item, backoff: Backoff, now: Now) -> frozenset[str]:
        if self._is_over(item, now):
            return EXPIRED
        if item.attempts >= backoff.attempts_max:
            return DEAD
        if now.mono_ms - item.since_ms < backoff.age_max_ms:
            return RETRIED
        if self.true_ms - item.born_ms < backoff.age_max_ms:
            broken("old enough to die", f"delivery {item.id} is {self.true_ms - item.born_ms} ms")
        return DEAD

    def _let_go(self, item: Item) -> None:
        if item.hand is not None:
            self._take_from_hand(item)
            item.hand = None

    def _take_from_hand(self, item: Item) -> None:
        queue, peer = self.queues[item.queue], item.hand
        if peer is not None:
            del self.hands[peer][item.id]
            queue.held[peer] -= 1
            if queue.trials.get(peer) is item:
                del queue.trials[peer]

    def beat(self, now: Now) -> None:
        """Whoever has lived for long with a suspect in hand does not die of it."""
        for queue in self.queues.values():
            for peer, item in list(queue.trials.items()):
                if item.given_ms <= now.mono_ms - scene.TRIAL_MS:
                    item.acquit()
                    del queue.trials[peer]

    def credit(self, peer: bytes, name: str, window: int) -> str | None:
        """A peer says its credit; returns the code of the error it must hear."""
        queue = self.queues.get(name)
        self.wanted[peer][name] = window
        if queue is None:
            return "unknown_destination"
        if not self.may_consume(peer, name):
            return "not_permitted"
        queue.windows[peer] = self.wanted[peer].pop(name)
        return None

    def serves(self, peer: bytes, name: str, word: bool | None) -> None:
        """A peer says, with its credit, whether it answers questions; an older one says nothing."""
        self.served[peer, name] = word

    def servers(self, name: str) -> list[bytes]:
        """Return who may be asked: of those with credit and the right those who say so; only where
        nobody does, those who say nothing."""
        queue = self.queues.get(name)
        may = {
            peer: self.served[peer, name]
            for peer in (queue.windows if queue is not None else ())
            if scene.may(self.variant, scene.NAMES[peer], "serve", name)
        }
        willing = [peer for peer, word in may.items() if word]
        return willing or [peer for peer, word in may.items() if word is None]

    def greeted(self, peer: bytes) -> None:
        """A session begins."""
        self.hands[peer], self.wanted[peer] = {}, {}

    def gone(
        self, peer: bytes, now: Now, died_ms: int | None = None, spared: frozenset[int] = NOTHING
    ) -> None:
        """A session ends: what it held goes again, or is given up. If it died (when it was heard
        last: monotonic), then of something it had just got, but of nothing that never came."""
        for queue in self.queues.values():
            queue.windows.pop(peer, None)
            queue.held.pop(peer, None)
            queue.trials.pop(peer, None)
        del self.wanted[peer]
        hand = self.hands.pop(peer).values()
        accused: list[Item] = []
        if died_ms is not None:
            fresh = [item for item in hand if item.given_ms > died_ms - scene.TRIAL_MS]
            accused = [item for item in fresh if item.id not in spared]
        word = "vanished_alone" if len(accused) == 1 else "vanished"
        for item in hand:
            self._return(item, word if item in accused else "returned", now)

    def _return(self, item: Item, word: str, now: Now) -> None:
        item.hand = None
        backoff, proofs = self.destinations[item.queue].backoff, self.queues[item.queue].proofs
        if self._is_over(item, now):
            self.due[item.id] = [EXPIRED]
        elif item.attempts >= backoff.attempts_max:
            self.due[item.id] = [DEAD]
        elif word == "returned":
            self.due[item.id] = [frozenset((word,))]
        else:
            if word == "vanished_alone" and item.proof == proofs:
                word = "vanished"  # nobody has settled anything since
            item.vanished += 1
            if word == "vanished_alone":
                item.lonely, item.proof = item.lonely + 1, proofs
            if item.vanished > QUICK_DEATHS:
                self.pauses[item.id] = _pause(backoff, item.vanished - QUICK_DEATHS, None)
            is_poison = item.lonely >= backoff.deaths_max
            self.due[item.id] = [DEAD if is_poison else frozenset((word,))]

    def tick(self, now: Now) -> None:
        """Foresee what the time brings."""
        self.belief.look(now)
        came = []
        for item in list(self.timed.values()):
            waits = item.state == DELAYED or item.retrying
            came_up = waits and item.wait_until <= now.mono_ms
            if self._is_over(item, now) and item.hand is None and item.state != AWAY:
                self.due[item.id] = [EXPIRED]
                over_ms = self.belief.sure(now) - (item.message.expires or 0)
                came_up = came_up and item.wait_until < now.mono_ms - over_ms
            if came_up:
                came.append(item)
        for item in sorted(came, key=lambda one: one.wait_until):
            if item.state == DELAYED:
                self.queues[item.queue].arrive(item)
            else:
                self.queues[item.queue].release(item)

    def check_books(self, core: Core) -> None:
        """accepted = settled + dead + dropped + expired + open, as the core counts them too."""
        if core.queues.keys() != self.queues.keys():
            broken("books", f"the queues are {sorted(core.queues)}")
        unsynced = core.unsynced()
        for name, queue in core.queues.items():
            lines, totals = self.queues[name], self.totals[name]
            if queue.totals != totals:
                broken("books", f"{name}: {queue.totals}, expected {totals}")
            if (queue.open, unsynced[name]) != (lines.open + lines.unwritten, lines.unwritten):
                broken("books", f"{name}: {queue.open} open, {unsynced[name]} not on disk,"
                       f" expected {lines.open} and {lines.unwritten}")  # fmt: skip
            if totals["accepted"] != sum(totals[word] for word in TOTALS[1:]) + lines.open:
                broken("books", f"{name}: {totals} and {lines.open} open do not balance")
            if queue.spill.unread != lines.unread:
                broken("books", f"{name}: {queue.spill.unread} on the disk only, expected"
                       f" {lines.unread}")  # fmt: skip
            if queue.resident_bytes != self._resident[name]:
                broken("memory is bounded", f"{name}: {queue.resident_bytes} bytes,"
                       f" expected {self._resident[name]}")  # fmt: skip
            if queue.in_flight != sum(lines.held.values()):
                broken("books", f"{name}: {queue.in_flight} in flight")

    def replay(self, rows: list[OpenDelivery], now: Now) -> None:
        """An operator opens dead letters again."""
        for row in rows:
            item = Item(row.delivery, row.n, row.destination, self._message_of(row.n), row.raw)
            item.born_ms, item.since_ms = self.true_ms, now.mono_ms
            self.born[item.id] = self.true_ms
            item.replayed = True
            item.sender = _sender_of(item.message)
            self.queues[item.queue].senders[item.sender] += 1
            self.items[item.id] = item
            self.gathered.append(item)
            self.due[item.id] = [frozenset(("reopened",)), REPLAYED]
            self._resident[item.queue][item.lane] += item.size
            self.queues[item.queue].open += 1
            self.totals[item.queue]["dead"] -= 1

    def try_now(self, name: str, subject: str | None) -> int:
        """An operator has what waits for its next attempt tried again."""
        waiting = [
            item
            for item in self.items.values()
            if item.queue == name and item.retrying and subject in (None, item.subject)
        ]
        for item in waiting:
            self.queues[name].release(item)
        return len(waiting)

    def drop(self, letters: list[tuple[int, str]]) -> None:
        """An operator gives dead letters up."""
        for id, name in letters:
            self.due[id] = [frozenset(("dropped",))]
            self.totals[name]["dead"] -= 1
            self.totals[name]["dropped"] += 1


def _pause(backoff: Backoff, attempts: int, asked: int | None) -> tuple[int, int]:
    """Return the least and the longest pause after so many attempts, which the consumer may have
    asked for."""
    pause = min(backoff.longest_ms, backoff.first_ms * backoff.factor ** (attempts - 1))
    if asked is None:
        return max(1, int(pause * (1 - JITTER))), max(1, int(pause * (1 + JITTER)))
    if attempts > QUICK:
        begun = min(backoff.longest_ms, backoff.first_ms * backoff.factor ** (attempts - QUICK - 1))
        asked = max(asked, int(begun))
    asked = min(asked, int(backoff.longest_ms * (1 + JITTER)))
    return asked, asked


def _sender_of(message: Message) -> str:
    """Return for whom a message counts: a sender's emergencies for themselves."""
    return message.source if message.priority else f"{message.source}, emergencies"
