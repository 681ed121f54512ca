"""What may go next at one destination: lines of subjects, urgency, credit, passes.

This is the model's own account of `router.core.queue`, kept by other means: every ready delivery
lies in one of four sets, and nothing here decides what goes, it only says whether that was right.
"""

from collections import Counter

from tests.simulation.item import DELAYED, LINED, Item
from tests.simulation.promise import broken

PASSED_OVER_MAX = 5  # in the simulated world; the router's own limits are too high to meet here
URGENT_SUSPECTS_MAX = 3
EMERGENCIES_MAX = 12
PASSED_SLACK = 3  # two other lanes may be as hungry, and go first
LANES = 4


class Lines:
    """The open deliveries of one destination that are in line."""

    def __init__(self, name: str) -> None:
        self.name = name
        self.open = 0
        self.unwritten = 0
        self.senders: Counter[str] = Counter()  # what each has open, since the start
        self.held_back = False
        self.windows: dict[bytes, int] = {}
        self.held: dict[bytes, int] = {}
        self.proofs = 0  # settlements of its consumers
        self.suspects: dict[int, Item] = {}  # ready ones
        self.tried: set[int] = set()  # suspects that went in this step
        self.trials: dict[bytes, Item] = {}  # suspects that peers have in hand
        self._suspects_passed = 0  # at most so often were they passed over
        self._urgent_passed = 0  # at least so often was an emergency among them, with no trial on
        self._urgent_before: set[int] = set()  # those that waited before the step, with no trial on
        self.ready: tuple[dict[int, Item], ...] = tuple({} for _ in range(LANES))
        self._lines: dict[str, dict[int, Item]] = {}
        self.unread = [0] * LANES
        self.away: dict[str, dict[int, Item]] = {}  # by subject, the oldest first
        self._pulled: set[str] = set()  # what is missing of these subjects is being read
        self._passed = [0] * LANES  # at most so often was a lane passed over
        self._starved = [0] * LANES  # at least so often, with something to give
        self._late = [0] * LANES  # so often after its turn had come
        self._ready_before = [False] * LANES
        self.beyond: list[Item] = []  # what went into the part of a window kept for the urgent

    # -- lines ------------------------------------------------------------------------------------

    def arrive(self, item: Item) -> bool:
        """Put an item into its line; returns whether it is the head."""
        item.state = LINED
        if not item.subject:
            self._offer(item)
            return True
        line = self._lines.setdefault(item.subject, {})
        line[item.id] = item
        head = next(iter(line.values()))
        if head is item:
            self._offer(item)
            return True
        for earlier in line.values():  # none before it may hold it up
            if earlier.urgency > item.urgency:
                listed = self.ready[earlier.urgency].pop(earlier.id, None)
                earlier.urgency = item.urgency
                if listed is not None:
                    self._offer(earlier)
        return False

    def is_head(self, item: Item) -> bool:
        """Whether nothing of its subject goes before it."""
        return not item.subject or next(iter(self._lines[item.subject])) == item.id

    def head(self, item: Item) -> Item:
        """Return what goes first of an item's subject."""
        return next(iter(self._lines[item.subject].values()))

    def _offer(self, item: Item) -> None:
        if item.suspect:
            self.suspects[item.id] = item
        else:
            self.ready[item.urgency][item.id] = item

    def withhold(self, item: Item) -> None:
        """Nothing can take it now: it waits for its time, or is in a hand."""
        self.ready[item.urgency].pop(item.id, None)
        self.suspects.pop(item.id, None)

    def release(self, item: Item) -> None:
        """It may go again."""
        item.retrying = False
        self._offer(item)

    def end(self, item: Item) -> None:
        """It is over: the next of its subject may go."""
        self.open -= 1
        self.senders[item.sender] -= 1
        self.withhold(item)
        if item.state == DELAYED or not item.subject:
            return
        line = self._lines[item.subject]
        was_head = next(iter(line)) == item.id
        del line[item.id]
        if not line:
            del self._lines[item.subject]
        elif was_head:
            self._offer(next(iter(line.values())))

    # -- what is on the disk only ------------------------------------------------------------------

    def put_away(self, item: Item) -> None:
        """It is not held in memory."""
        item.unread = True
        self.unread[item.lane] += 1
        self.away.setdefault(item.subject, {})[item.id] = item

    def take_back(self, item: Item) -> None:
        """It is not there after all, or joins the others."""
        if item.unread:
            item.unread = False
            self.unread[item.lane] -= 1
        line = self.away[item.subject]
        del line[item.id]
        if not line:
            del self.away[item.subject]

    def bring(self, items: list[Item], subject: str | None) -> list[Item]:
        """These were read, `subject` is whose missing ones they are; returns what joins the
        others now. Something of a subject that was read before earlier ones stays away."""
        came = {item.id: item for item in items if item.unread}
        for item in came.values():
            item.unread = False
            self.unread[item.lane] -= 1
        if subject is not None:
            self._pulled.discard(subject)
            came |= {id: item for id, item in self.away[subject].items() if not item.unread}
        free = []
        for id, item in sorted(came.items()):
            if item.subject in self._pulled:
                continue
            line = self.away[item.subject]
            if item.subject and any(other.unread for other in line.values() if other.id < id):
                self._pulled.add(item.subject)
            else:
                self.take_back(item)
                free.append(item)
        return free

    # -- what went --------------------------------------------------------------------------------

    def room(self, peer: bytes, urgency: int) -> int:
        """Return how many more of this urgency fit into a peer's credit."""
        window = self.windows[peer]
        if urgency and peer in self.trials:
            return 0
        if urgency >= 2 and window >= 4:
            window -= max(1, window // 8)
        return window - self.held.get(peer, 0)

    def check_nothing_idles(self) -> None:
        """What is ready goes as long as somebody has credit."""
        if self.held_back:
            return
        for urgency, ready in enumerate(self.ready):
            if ready:
                for peer in self.windows:
                    if self.room(peer, urgency) > 0 and not self._is_barred(urgency):
                        id = next(iter(ready))
                        broken("no idling", f"{self.name}: {id} is ready, {peer!r} has credit")

        urgent = next((urgency for urgency, ready in enumerate(self.ready) if ready), LANES)
        for item in self.suspects.values():
            for peer, window in self.windows.items():
                if window and not self.held.get(peer) and item.urgency <= urgent:
                    broken("no idling", f"{self.name}: suspect {item.id}, {peer!r} has empty hands")

    def _is_barred(self, urgency: int) -> bool:
        """Whether it waits until the hands are empty for a suspect that comes first."""
        if urgency == 0:
            due = self._suspects_passed >= URGENT_SUSPECTS_MAX
            return due and any(item.urgency == 0 for item in self.suspects.values())
        due = self._suspects_passed >= PASSED_OVER_MAX
        return any(due or item.urgency <= urgency for item in self.suspects.values())

    def begin(self) -> None:
        """Note who can be passed over in the next step."""
        self._ready_before = [bool(ready) for ready in self.ready]
        self._urgent_before = set() if self.trials else self._urgent_suspects()

    def _urgent_suspects(self) -> set[int]:
        return {id for id, item in self.suspects.items() if item.urgency == 0}

    def went(self, by_peer: dict[bytes, list[Item]], single: bool) -> None:
        """These went in one step, each peer's in this order. `single`: by one look at the queue."""
        self._suspects_passed += sum(map(len, by_peer.values()))
        self._check_suspects_go(sum(map(len, by_peer.values())))
        by_peer = {
            peer: [item for item in items if item.id not in self.tried]
            for peer, items in by_peer.items()
        }
        if self.tried:
            self._suspects_passed = sum(map(len, by_peer.values()))
            self.tried.clear()
        counts = [0] * LANES
        for items in by_peer.values():
            for item in items:
                counts[item.urgency] += 1
        if single:
            for items in by_peer.values():
                self._check_urgency(items, counts)
            for item in self.beyond:
                if self._passed[item.urgency] + sum(counts[: item.urgency]) < PASSED_OVER_MAX:
                    broken("credit is kept", f"{self.name}: {item.id} took the place of the urgent")
        self.beyond.clear()
        for lane in range(1, LANES):
            more_urgent = sum(counts[:lane])
            if counts[lane]:
                self._passed[lane] = more_urgent  # all of them may have gone after it
                self._starved[lane] = self._late[lane] = 0
            else:
                self._passed[lane] += more_urgent
                if single and self._ready_before[lane] and self.ready[lane]:
                    self._check_starved(lane, counts)

    def _check_suspects_go(self, count: int) -> None:
        """An emergency that is a suspect is not passed over for ever. While another one is on
        trial, nothing is kept back for it."""
        waited = self._urgent_before & self._urgent_suspects()
        if self.tried or not self._urgent_suspects():
            self._urgent_passed = 0
        elif waited and not self.trials:
            self._urgent_passed += count
            if self._urgent_passed > URGENT_SUSPECTS_MAX:
                broken("a suspect's turn comes", f"{self.name}: emergency {min(waited)} was passed"
                       f" over {self._urgent_passed} times")  # fmt: skip

    def _check_urgency(self, items: list[Item], counts: list[int]) -> None:
        urgent = next((lane for lane, ready in enumerate(self.ready) if ready), LANES)
        for item in reversed(items):  # `urgent` is the most urgent that went later, or is left
            lane = item.urgency
            if lane > urgent:
                limit = PASSED_OVER_MAX if urgent else EMERGENCIES_MAX
                if self._passed[lane] + sum(counts[:lane]) < limit:
                    broken("urgent first", f"{self.name}: {item.id} of lane {lane} went before"
                           f" one of lane {urgent}")  # fmt: skip
            urgent = min(urgent, lane)

    def _check_starved(self, lane: int, counts: list[int]) -> None:
        limit = EMERGENCIES_MAX if counts[0] else PASSED_OVER_MAX
        before = self._starved[lane]
        after = self._starved[lane] = before + sum(counts[:lane])
        self._late[lane] += max(0, after - max(before, limit))
        if self._late[lane] >= PASSED_SLACK:
            broken("nothing starves", f"{self.name}: lane {lane} was passed over {after} times")
