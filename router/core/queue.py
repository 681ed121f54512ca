"""A destination's queue: what goes next, to whom, and what must wait for what.

Invariants:
1. Of one subject at most one delivery is READY, IN_FLIGHT or RETRYING (its head); later ones are
   WAITING in arrival order. An empty subject has no order.
2. A consumer never holds more deliveries than its credit.
3. The highest priority that has something ready goes first, except that a lane passed over
   `PASSED_OVER_MAX` times in a row goes once, so that nothing starves (`EMERGENCIES_MAX` times by
   emergencies: a lone one is always next).
4. Routine and bulk leave an eighth of each window free for what is urgent.
5. A suspect (its consumers have died soon after they got it) goes to a consumer that has got
   nothing else for a while; until that one has shown that it lives it gets only emergencies. An
   emergency that is one is passed over by others `URGENT_SUSPECTS_MAX` times.

`open` counts every delivery that is not final, including those not yet on disk and those that are
on the disk only, because they found no room (`spill`) or are not due (`sleepers`).
"""

from collections import deque
from collections.abc import Iterator
from heapq import heappop, heappush
from typing import Final

from router.core.delivery import IN_FLIGHT, OVERHEAD_BYTES, READY, WAITING, Delivery, Holding
from router.core.sleepers import Sleepers
from router.core.spill import Spill
from router.settings import Destination

PRIORITIES: Final = 4
MIB: Final = 1024 * 1024
PASSED_OVER_MAX: Final = 64
EMERGENCIES_MAX: Final = 1024
URGENT_SUSPECTS_MAX: Final = 16
EMERGENCIES: Final = ", emergencies"  # of a sender; no name has such an end


class Queue:
    """The open deliveries of one destination."""

    def __init__(self, name: str, settings: Destination, number: int = 0) -> None:
        self.name = name
        self.number = number  # of all queues
        self.configure(settings)
        self.open = 0
        self.open_of: dict[str, int] = {}  # of these what each sender has, since the start
        self.counted_from = 0  # the first delivery of this start
        self.resident_bytes = [0] * PRIORITIES
        self.spill = Spill()
        self.sleepers = Sleepers()
        self.wake_ms: int | None = None  # monotonic: when those are looked at
        self.aside: dict[str, list[Delivery]] = {}  # read, but what comes before is not yet
        self.in_flight = 0
        self.retrying = 0
        # of those whose partner asked for more: until when (monotonic) our own policy has them wait
        self.asked: dict[int, int] = {}
        self.hold: str | None = None  # why an operator holds it back
        self.totals = dict.fromkeys(("accepted", "settled", "dead", "expired", "dropped"), 0)
        self.ended = dict.fromkeys(("settled", "dead", "expired"), 0)  # since the start; only grows
        self.holdings: list[Holding] = []
        self._lanes: tuple[deque[Delivery], ...] = tuple(deque() for _ in range(PRIORITIES))
        # by arrival: at the front of its lane, a busy subject would keep out all others
        self._followers: tuple[list[tuple[int, int, Delivery]], ...] = tuple(
            [] for _ in range(PRIORITIES)
        )
        self._passed_over = [0] * PRIORITIES
        self._suspects: tuple[deque[Delivery], ...] = tuple(deque() for _ in range(PRIORITIES))
        self._suspects_passed = 0
        self._has_suspects = False  # or had when it was looked at last
        self.proofs = 0  # so often has a consumer settled something
        self._heads: dict[str, Delivery] = {}
        self._waiting: dict[str, deque[Delivery]] = {}

    def configure(self, settings: Destination) -> None:
        """Put other settings in force."""
        self.settings = settings
        self.lane_bytes_max = settings.memory_mib * MIB // PRIORITIES
        reserve = settings.open_max * settings.emergency_percent // 100
        self._usual_max = settings.open_max - reserve
        self.easy_max = self._usual_max * settings.sender_percent // 100  # below it all have room

    def refuses(self, priority: int, sender: str) -> str | None:
        """Return why one more delivery finds no room, or None if it does.

        A part of `open_max` is for emergencies alone. And of what the others leave one sender may
        have a share: so there is always some for who comes next, whatever a start has found.
        """
        limit = self.settings.open_max if priority == 0 else self._usual_max
        if self.open >= limit:
            return f"{self.open} deliveries to {self.name} are open"
        own = self.open_of.get(sender, 0)
        left = limit - self.open + own
        if own * 100 >= left * self.settings.sender_percent and own:
            return f"{own} deliveries of {sender} to {self.name} are open: the rest is for others"
        return None

    def count(self, sender: str, by: int) -> None:
        """Count what a sender has open."""
        open = self.open_of.get(sender, 0) + by
        if open:
            self.open_of[sender] = open
        else:
            del self.open_of[sender]

    def supply(self, lane: int) -> int:
        """Return about how many deliveries a lane has ready."""
        return len(self._lanes[lane]) + len(self._followers[lane])

    def add(self, delivery: Delivery) -> None:
        """Take a delivery whose time has come; it is READY or WAITS behind its subject."""
        subject = delivery.subject
        if subject:
            head = self._heads.get(subject)
            if head is not None:
                waiting = self._waiting.setdefault(subject, deque())
                self._promote_waiting(waiting, delivery.priority)
                waiting.append(delivery)
                delivery.state = WAITING
                self._promote(head, delivery.priority)
                return
            self._heads[subject] = delivery
        delivery.state = READY
        if delivery.suspect:
            self._lane_of(delivery).append(delivery)
        else:
            self._lanes[delivery.priority].append(delivery)

    def _lane_of(self, delivery: Delivery) -> deque[Delivery]:
        if not delivery.suspect:
            return self._lanes[delivery.priority]
        self._has_suspects = True
        return self._suspects[delivery.priority]

    def again(self, delivery: Delivery) -> None:
        """Put a subject's head back at the front of its lane."""
        self.asked.pop(delivery.id, None)
        delivery.state = READY
        self._lane_of(delivery).appendleft(delivery)

    def take_asked(self, mono_ms: int) -> list[tuple[int, int]]:
        """Return the ids of those whose partner asked for more time than our policy gives them, and
        for how long that still has them wait."""
        asked, self.asked = self.asked, {}
        return [(id, max(0, until_ms - mono_ms)) for id, until_ms in asked.items()]

    def finish(self, delivery: Delivery) -> None:
        """Let the next message of the subject go. The delivery is final."""
        self.open -= 1
        if sender := delivery.sender:
            left = self.open_of[sender] - 1
            if left > 0:
                self.open_of[sender] = left
            else:
                del self.open_of[sender]
        self.resident_bytes[delivery.lane] -= len(delivery.raw) + OVERHEAD_BYTES
        delivery.raw = b""
        if self.asked:
            self.asked.pop(delivery.id, None)
        subject = delivery.subject
        if self._heads.get(subject) is not delivery:
            return
        waiting = self._waiting.get(subject)
        while waiting:
            follower = waiting.popleft()
            if not waiting:
                del self._waiting[subject]
            if follower.state is WAITING:  # else it expired in the line
                self._heads[subject] = follower
                follower.state = READY
                if follower.suspect:
                    self._lane_of(follower).append(follower)
                    return
                heappush(self._followers[follower.priority], (follower.n, follower.id, follower))
                self._trim(follower.priority)
                return
        del self._heads[subject]

    def take(self, mono_ms: int = 0, trial_ms: int = 0) -> Iterator[tuple[Holding, list[Delivery]]]:
        """Hand ready deliveries to consumers with credit, and yield what each one gets. A consumer
        that has lived for `trial_ms` with what it holds does not die of it."""
        if not self.holdings or self.hold is not None:
            return
        given: dict[Holding, list[Delivery]] = {}
        while True:
            first = self._first_lane()
            if self._has_suspects and self._is_suspects_turn(first):
                quiet = self._quiet(mono_ms - trial_ms)
                if quiet is not None:
                    given.setdefault(quiet, []).append(self._try(quiet, mono_ms))
                    continue
                if self._is_drained_for_suspects(first):
                    break  # what is out is to be settled first
            if first is None:
                break
            # The credit is that of the most urgent: what was passed over for long may use the part
            # that is kept for the urgent, else they would starve it by filling the rest.
            holding = self._roomiest(first)
            if holding is None:
                break
            lane = self._aged_lane(first)
            count = self._run_length(lane, holding) if lane == first else 1
            given.setdefault(holding, []).extend(self._pick(lane, holding, count, mono_ms))
            self._age(lane)
            if self._has_suspects:
                self._suspects_passed += 1
        yield from given.items()

    def _is_suspects_turn(self, first: int | None) -> bool:
        """Whether a suspect is the next one: as urgent as the others, or passed over for long."""
        for number, line in enumerate(self._suspects):
            while line and (line[0].state is not READY or line[0].priority != number):
                line.popleft()
            if line:
                if first is None or number <= first:
                    return True
                return self._suspects_passed >= PASSED_OVER_MAX
        self._has_suspects = False
        return False

    def _is_drained_for_suspects(self, first: int | None) -> bool:
        """Whether nothing more goes out before a suspect. Emergencies do, but not past one of their
        own for ever: in a busy hour no hands would be empty by themselves."""
        if first != 0:
            return True
        if self._suspects_passed < URGENT_SUSPECTS_MAX or not self._suspects[0]:
            return False
        return not any(one.suspect is not None for one in self.holdings)

    def _quiet(self, since_ms: int) -> Holding | None:
        return next((one for one in self.holdings if one.is_quiet(since_ms)), None)

    def _try(self, holding: Holding, mono_ms: int) -> Delivery:
        """Give the first suspect to a consumer, alone."""
        line = next(line for line in self._suspects if line)
        self._suspects_passed = 0
        delivery = line.popleft()
        holding.suspect = delivery
        holding.allowance.bytes -= len(delivery.raw)
        self._give(delivery, holding, mono_ms)
        return delivery

    def _give(self, delivery: Delivery, holding: Holding, mono_ms: int) -> None:
        delivery.state = IN_FLIGHT
        delivery.holder = holding
        delivery.wake_ms = mono_ms
        delivery.attempts += 1
        holding.held[delivery.id] = delivery
        self.in_flight += 1

    @property
    def on_trial(self) -> bool:
        """Whether a suspect waits, or is with a consumer."""
        return self._has_suspects or any(one.suspect is not None for one in self.holdings)

    def acquit(self, before_ms: int) -> None:
        """Those whose consumers still live, who got them before a monotonic time, are no suspects
        any more."""
        for holding in self.holdings:
            suspect = holding.suspect
            if suspect is not None and suspect.wake_ms <= before_ms:
                holding.suspect = None
                suspect.acquit()

    def _run_length(self, lane: int, holding: Holding) -> int:
        """Return how many may go from one lane to one consumer before choosing anew.

        With nothing in the other lanes and no other consumer, the choice would not change. What
        goes past a suspect counts one by one.
        """
        if len(self.holdings) > 1 or self._has_suspects or any(self._lanes[lane + 1 :]):
            return 1
        return holding.room(lane)

    def _pick(self, number: int, holding: Holding, count: int, mono_ms: int) -> list[Delivery]:
        picked: list[Delivery] = []
        lane, held, followers = self._lanes[number], holding.held, self._followers[number]
        allowance = holding.allowance
        supply_bytes = allowance.bytes
        while count and supply_bytes > 0:
            if followers:
                self._trim(number)
            if not lane:
                break
            delivery = lane.popleft()
            if delivery.state is not READY or delivery.priority != number or delivery.suspect:
                continue
            count -= 1
            # As _give does: this is the hot path.
            delivery.state = IN_FLIGHT
            delivery.holder = holding
            delivery.wake_ms = mono_ms
            delivery.attempts += 1
            held[delivery.id] = delivery
            supply_bytes -= len(delivery.raw)
            picked.append(delivery)
        allowance.bytes = supply_bytes
        self.in_flight += len(picked)
        if followers:
            self._trim(number)
        return picked

    def release(self, delivery: Delivery) -> None:
        """Take an in-flight delivery out of its consumer's hands."""
        holder = delivery.holder
        if holder is not None:
            del holder.held[delivery.id]
            if holder.suspect is delivery:
                holder.suspect = None
            delivery.holder = None
            self.in_flight -= 1

    def oldest(self) -> int | None:
        """Return when the oldest ready delivery was accepted (ms UTC), None when nothing is."""
        times = [lane[0].accepted_at for lane in (*self._lanes, *self._suspects) if lane]
        return min(times, default=None)

    def _promote(self, head: Delivery, priority: int) -> None:
        """Give a subject's head the urgency of what waits behind it.

        Without this an emergency would wait for the bulk export of its own call to get its turn.
        The old lane keeps a stale entry, which `_trim` drops.
        """
        if head.priority > priority:
            head.priority = priority
            if head.state is READY:
                self._lane_of(head).append(head)

    def _promote_waiting(self, waiting: deque[Delivery], priority: int) -> None:
        """Those between the head and an urgent one must not hold it up in their turn."""
        for earlier in reversed(waiting):
            if earlier.priority <= priority:
                break  # all before it are as urgent already
            earlier.priority = priority

    def _trim(self, number: int) -> deque[Delivery]:
        """Drop from the front of a lane what was promoted, expired or acknowledged late, and
        move the oldest follower there if its turn has come."""
        lane, followers = self._lanes[number], self._followers[number]
        self._drop_stale(lane, number)
        while followers and (not lane or followers[0][0] < lane[0].n):
            follower = heappop(followers)[2]
            if follower.state is READY and follower.priority == number and not follower.suspect:
                lane.appendleft(follower)
        return lane

    @staticmethod
    def _drop_stale(lane: deque[Delivery], number: int) -> None:
        while lane and (
            lane[0].state is not READY or lane[0].priority != number or lane[0].suspect
        ):
            lane.popleft()

    def _first_lane(self) -> int | None:
        for number in range(PRIORITIES):
            if self._trim(number):
                return number
        return None

    def _aged_lane(self, first: int) -> int:
        """Return the lane whose turn it is: the most urgent, or one passed over for too long."""
        limit = PASSED_OVER_MAX if first else EMERGENCIES_MAX
        for number in range(first + 1, PRIORITIES):
            if self._passed_over[number] >= limit and self._trim(number):
                return number
        return first

    def _age(self, taken: int) -> None:
        """Note who was passed over. Only what really went counts, not what found no credit."""
        self._passed_over[taken] = 0
        for number in range(taken + 1, PRIORITIES):
            if self._lanes[number]:
                self._passed_over[number] += 1

    def _roomiest(self, priority: int) -> Holding | None:
        best: Holding | None = None
        best_room = 0
        for holding in self.holdings:
            room = holding.room(priority)
            if room > best_room:
                best, best_room = holding, room
        return best
