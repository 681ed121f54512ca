"""Known bugs, each planted into the core on purpose: whether the simulation would find it.

    python -m tests.simulation.canaries [--seeds 500] [--jobs 2]

A canary replaces one function of the core. It gets the real one and its arguments.
"""

import argparse
import os
import sys
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, Final, NamedTuple

from router.core import persisting, policy, settling, supply
from router.core.admitting import Admitting
from router.core.asking import Asking
from router.core.clock import Clock
from router.core.core import Core
from router.core.delivery import IN_FLIGHT, READY, SETTLED, Holding
from router.core.operating import Operating
from router.core.persisting import Persisting
from router.core.publishing import Publishing
from router.core.queue import PRIORITIES, Queue
from router.core.settling import Settling
from router.core.sleepers import Sleepers
from router.core.spill import Spill
from router.core.state import CoreState
from router.core.timing import Timing
from tests.simulation.life import End, live
from tests.simulation.plan import draw

STEPS: Final = 500
SEEDS_MAX: Final = 500
Broken = Callable[..., Any]


class Canary(NamedTuple):
    """One bug: what it does, and what it takes the place of."""

    name: str
    says: str
    owner: Any
    attribute: str
    broken: Broken


CANARIES: Final[dict[str, Canary]] = {}


def plant(owner: Any, attribute: str) -> Callable[[Broken], Broken]:
    """Keep a function as the broken variant of another."""

    def keep(broken: Broken) -> Broken:
        name = broken.__name__.replace("_", "-")
        CANARIES[name] = Canary(name, (broken.__doc__ or "").strip(), owner, attribute, broken)
        return broken

    return keep


@contextmanager
def planted(canary: Canary) -> Iterator[None]:
    """Put the bug into the core for a while."""
    kept = vars(canary.owner)[canary.attribute]
    real = getattr(canary.owner, canary.attribute)

    def stand_in(*arguments: Any, **named: Any) -> Any:
        return canary.broken(real, *arguments, **named)

    is_static = isinstance(kept, staticmethod)
    setattr(canary.owner, canary.attribute, staticmethod(stand_in) if is_static else stand_in)
    try:
        yield
    finally:
        setattr(canary.owner, canary.attribute, kept)


# -- what is accepted -----------------------------------------------------------------------------


@plant(Persisting, "take_batch")
def ack_before_sync(real: Broken, core: Core) -> Any:
    """ACCEPTED leaves when the batch goes to the disk, not when it is there."""
    batch = real(core)
    core._send_accepted(batch.accepts)
    batch.accepts = []
    return batch


@plant(Persisting, "persisted")
def dedup_lost(real: Broken, core: Core, batch: Any, duplicates: Any, *rest: Any) -> None:
    """A repeated message is delivered like a new one."""
    real(core, batch, {}, *rest)


@plant(Publishing, "_check_limits")
def limits_forgotten(real: Broken, core: Core, message: Any, queues: Any, now: Any) -> Any:
    """A full queue, a full disk and a body too large are taken all the same."""
    return None


@plant(Queue, "refuses")
def reserve_for_emergencies_forgotten(
    real: Broken, queue: Queue, priority: int, sender: str
) -> str | None:
    """Bulk fills a queue to its last place, and an emergency is refused."""
    refusal: str | None = real(queue, 0, sender)
    return refusal


@plant(Queue, "refuses")
def shares_forgotten(real: Broken, queue: Queue, priority: int, sender: str) -> str | None:
    """One sender may fill a queue alone."""
    refusal: str | None = real(queue, priority, "nobody")
    return refusal


@plant(supply, "sender_of")
def senders_mixed_up(real: Broken, source: str, priority: int) -> str:
    """What one sender has open is counted for all."""
    return "all"


@plant(Publishing, "_judge")
def follower_overtakes(
    real: Broken, core: Core, session: Any, message: Any, target: Any, held: Any, now: Any
) -> Any:
    """Of one batch, what follows a message refused for now is taken before it."""
    return real(core, session, message, target, {}, now)


@plant(Publishing, "proceed")
def follower_overtakes_in_a_later_slice(real: Broken, core: Core, peer: bytes, now: Any) -> Any:
    """What a slice of a PUBLISH had refused for now is forgotten by the next slice."""
    session = core.sessions.get(peer)
    if session is not None and session.unfinished is not None:
        session.unfinished.held.clear()
    return real(core, peer, now)


@plant(Core, "begin")
def accepted_with_its_first_slice(real: Broken, core: Core, peer: bytes, *rest: Any) -> Any:
    """ACCEPTED for all of a PUBLISH comes when the first slice of it is on disk."""
    more = real(core, peer, *rest)
    session = core.sessions.get(peer)
    if more and session is not None and session.unfinished is not None:
        core.out.batch.accepts.append((peer, session.unfinished.number))
    return more


@plant(Persisting, "_frontier")
def frontier_too_far(real: Broken, core: Core) -> int:
    """The frontier passes what is still open: a start does not find it."""
    return core._next_n


# -- order and retries ----------------------------------------------------------------------------


@plant(Settling, "_retry_at")
def order_broken_on_retry(real: Broken, core: Core, delivery: Any, after_ms: int, now: Any) -> None:
    """While a delivery waits for its next attempt, its followers go."""
    queue = core.queues[delivery.destination]
    waiting = queue._waiting.get(delivery.subject)
    if waiting:
        follower = waiting.popleft()
        if not waiting:
            del queue._waiting[delivery.subject]
        follower.state = READY
        queue._lanes[follower.priority].append(follower)
    real(core, delivery, after_ms, now)


@plant(Settling, "_retry_at")
def retry_dropped(real: Broken, core: Core, delivery: Any, after_ms: int, now: Any) -> None:
    """A delivery that is to be retried gets no timer."""
    if after_ms <= 0:
        real(core, delivery, after_ms, now)


@plant(Settling, "_retry")
def retry_settles(real: Broken, core: Core, delivery: Any, told: Any, now: Any) -> None:
    """A retry is taken for an ack when the partner has refused twice."""
    if delivery.attempts == 2:
        core._end(delivery, SETTLED, told.note, now)
    else:
        real(core, delivery, told, now)


@plant(Settling, "_returned")
def vanished_forgotten(real: Broken, core: Core, delivery: Any, word: str, now: Any) -> None:
    """What a lost session held stays in hands that are gone."""


@plant(Queue, "finish")
def followers_forgotten(real: Broken, queue: Queue, delivery: Any) -> None:
    """The next one of a subject is not let go when it expired in the line behind another."""
    waiting = queue._waiting.get(delivery.subject)
    real(queue, delivery)
    if waiting and len(waiting) > 2:
        waiting.pop()


@plant(Queue, "add")
def subjects_ignored(real: Broken, queue: Queue, delivery: Any) -> None:
    """Two messages of one subject are out at once."""
    delivery.state = READY
    queue._lanes[delivery.priority].append(delivery)


# -- who goes first, and how many -----------------------------------------------------------------


@plant(Queue, "_first_lane")
def priority_inverted(real: Broken, queue: Queue) -> int | None:
    """The least urgent goes first."""
    return next((lane for lane in reversed(range(PRIORITIES)) if queue._trim(lane)), None)


@plant(Queue, "_aged_lane")
def bulk_starves(real: Broken, queue: Queue, first: int) -> int:
    """A lane that was passed over for long never gets its turn."""
    return first


@plant(Queue, "_promote")
def emergency_waits_for_bulk(real: Broken, queue: Queue, head: Any, priority: int) -> None:
    """What goes before an emergency of the same call keeps its own low urgency."""


@plant(Holding, "room")
def credit_off_by_one(real: Broken, holding: Holding, priority: int) -> int:
    """A consumer is given one delivery more than it asked for."""
    room: int = real(holding, priority)
    return room + 1


@plant(Holding, "room")
def reserve_forgotten(real: Broken, holding: Holding, priority: int) -> int:
    """Routine and bulk fill a window up to its last place."""
    return holding.window - len(holding.held)


@plant(Queue, "take")
def hold_ignored(real: Broken, queue: Queue, *times: int) -> Iterator[Any]:
    """A destination that an operator holds back delivers."""
    why, queue.hold = queue.hold, None
    yield from real(queue, *times)
    queue.hold = why


# -- time -----------------------------------------------------------------------------------------


@plant(Persisting, "_enqueue")
def expired_delivered(real: Broken, core: Core, delivery: Any, now: Any) -> None:
    """What has an end to its time is delivered after it."""
    delivery.expires = None
    real(core, delivery, now)


@plant(Persisting, "_enqueue")
def delay_ignored(real: Broken, core: Core, delivery: Any, now: Any) -> None:
    """What is to wait for its time goes at once."""
    if not delivery.attempts:
        delivery.due = None
    real(core, delivery, now)


@plant(CoreState, "_set_expiry")
def expiry_fires_once(real: Broken, core: Core, delivery: Any, now: Any) -> None:
    """What ran out in a consumer's hands may go to another."""
    if not delivery.attempts:
        real(core, delivery, now)


# -- a clock that is wrong ------------------------------------------------------------------------


@plant(Settling, "_retry")
def age_by_the_wall_clock(real: Broken, core: Core, delivery: Any, told: Any, now: Any) -> None:
    """A clock that is days ahead makes everything too old to be tried again."""
    delivery.born_ms = now.mono_ms - (now.wall_ms - delivery.accepted_at)
    real(core, delivery, told, now)


@plant(Clock, "sure_ms")
def clock_believed_blindly(real: Broken, clock: Clock, now: Any) -> int:
    """Whatever the wall clock shows is the time."""
    return int(now.wall_ms)


@plant(Clock, "_is_believed")
def clock_never_believed_again(real: Broken, clock: Clock, now: Any) -> bool:
    """A clock that has stepped is not believed, however long it keeps its new course."""
    kept, clock._since = clock._since, now.mono_ms
    believed = bool(real(clock, now))
    clock._since = kept
    return believed


@plant(Timing, "_set_anew")
def timers_keep_the_old_clock(real: Broken, core: Core, now: Any) -> None:
    """Timers that stand for a time of the day are not set anew when the clock steps."""


@plant(persisting, "longest_pause_ms")
def restart_waits_for_the_old_clock(real: Broken, backoff: Any) -> int:
    """A retry put off while the clock was days ahead waits for days after a restart."""
    return 10**12


@plant(policy, "pause_ms")
def retry_as_asked(
    real: Broken, backoff: Any, attempts: int, asked: int | None, random: Any
) -> int:
    """A consumer that asks for a retry in a century, or at once for ever, gets it."""
    pause: int = real(backoff, attempts, None, random) if asked is None else asked
    return pause


# -- what is not due ------------------------------------------------------------------------------


@plant(supply, "wakes_at")
def sleepers_take_places(real: Broken, due: Any, expires: Any, sure_ms: int) -> int | None:
    """What is not due for days waits in memory, in the place of what can go."""
    return None


@plant(Sleepers, "find_on_disk")
def sleepers_forgotten(real: Broken, sleepers: Sleepers, *run: Any) -> None:
    """What slept when the router stopped is not woken by the next one."""


@plant(Sleepers, "woken")
def woken_lost(real: Broken, sleepers: Sleepers, lane: int, came: set[int]) -> None:
    """Of many that are due in the same moment, those that did not fit one read never come."""
    sleepers._waking[lane].clear()


@plant(Sleepers, "take_due")
def woken_early(real: Broken, sleepers: Sleepers, lane: int, sure_ms: int) -> list[Any]:
    """What sleeps is woken together with the first that is due."""
    due: list[Any] = real(sleepers, lane, sure_ms + 10**12)
    return due


# -- what kills its consumer ----------------------------------------------------------------------


@plant(Holding, "is_quiet")
def suspects_in_company(real: Broken, holding: Holding, since_ms: int) -> bool:
    """What consumers may die of is given together with others."""
    return holding.window > len(holding.held)


@plant(Settling, "_returned")
def innocents_accused(real: Broken, core: Core, delivery: Any, word: str, now: Any) -> None:
    """All that a consumer held when it died is counted as what it died of."""
    real(core, delivery, settling.ALONE if word == settling.VANISHED else word, now)


@plant(Settling, "_returned")
def dying_consumer_kills_all(real: Broken, core: Core, delivery: Any, word: str, now: Any) -> None:
    """A consumer that dies at each start, whatever it gets, makes dead letters of it."""
    delivery.proof = -1
    real(core, delivery, word, now)


@plant(Settling, "_accused")
def goodbye_is_a_death(real: Broken, core: Core, session: Any, spared: Any) -> set[int]:
    """What never reached a consumer that was gone is counted as what it died of."""
    accused: set[int] = real(core, session, ())
    return accused


@plant(supply, "delivery_of")
def suspicion_forgotten(real: Broken, row: Any, queue: Queue, mono_ms: int) -> Any:
    """After a restart what kills its consumers is given like any other."""
    delivery = real(row, queue, mono_ms)
    delivery.acquit()
    return delivery


@plant(Settling, "_retry_at")
def killer_without_pause(real: Broken, core: Core, delivery: Any, after_ms: int, now: Any) -> None:
    """What kills its consumer comes again at once, each time."""
    real(core, delivery, 0 if delivery.vanished else after_ms, now)


@plant(Queue, "_is_drained_for_suspects")
def urgent_suspect_starves(real: Broken, queue: Queue, first: int | None) -> bool:
    """In a busy hour an emergency that consumers may die of is passed over for ever."""
    return first != 0


@plant(Queue, "_run_length")
def run_past_a_suspect(real: Broken, queue: Queue, lane: int, holding: Any) -> int:
    """A whole window of emergencies that goes past a suspect one counts as one."""
    kept, queue._has_suspects = queue._has_suspects, False
    length = int(real(queue, lane, holding))
    queue._has_suspects = kept
    return length


@plant(Queue, "acquit")
def never_acquitted(real: Broken, queue: Queue, before_ms: int) -> None:
    """A consumer that lives on with a suspect in hand gets nothing else."""


# -- sessions and operators -----------------------------------------------------------------------


@plant(Settling, "_may_settle_late")
def strangers_settle(
    real: Broken, core: Core, session: Any, delivery: Any, settlement: Any
) -> bool:
    """A session settles what it never held and may not consume."""
    return delivery.state is not IN_FLIGHT


@plant(Admitting, "know")
def revoked_key_stays(real: Broken, core: Core, names: dict[bytes, str], now: Any) -> None:
    """A session goes on after its key was revoked."""
    core.names = names


@plant(Admitting, "_close")
def withdrawn_one_by_one(real: Broken, session: Any) -> None:
    """What one session gives back goes to the next that loses its right in the same moment."""


@plant(Operating, "replay")
def replayed_twice(real: Broken, core: Core, dead: Any, reason: str, now: Any) -> int:
    """Two operators who replay the same letter at once both get it."""
    count: int = real(core, dead, reason, now)
    core._recalled.clear()
    return count


@plant(Asking, "_servers")
def questions_to_all_who_read(
    real: Broken, core: Core, destination: str, holdings: list[Any]
) -> list[Any]:
    """Whoever has credit hears the questions, without the right to answer them."""
    return holdings


@plant(Asking, "_servers")
def questions_to_the_unwilling(
    real: Broken, core: Core, destination: str, holdings: list[Any]
) -> list[Any]:
    """Whoever has the right is asked, also a session that said that it does not serve."""
    return [one for one in holdings if core.sessions[one.peer].rights.serve.match(destination)]


@plant(Admitting, "_grant_again")
def refused_credit_forgotten(real: Broken, core: Core, session: Any, now: Any) -> None:
    """Credit that was asked for before the right was there is not given when it is."""


@plant(Operating, "try_now")
def impatience_ignored(
    real: Broken, core: Core, destination: str, subject: Any, now: Any
) -> int | None:
    """An operator who has something tried again now hurries only what has no subject."""
    count: int | None = real(core, destination, "" if subject is None else subject, now)
    return count


@plant(Admitting, "_withdraw")
def rights_kept_until_goodbye(real: Broken, core: Core, session: Any, now: Any) -> None:
    """A reload takes away a right, and the session goes on using it."""


# -- memory ---------------------------------------------------------------------------------------


@plant(supply, "spill")
def memory_unbounded(real: Broken, queue: Queue, subject: str, row: Any) -> bool:
    """Everything accepted is held in memory."""
    return False


@plant(supply, "_earlier")
def read_out_of_order(real: Broken, queue: Queue, delivery: Any) -> tuple[Any, ...]:
    """What is read goes before something of its subject that is still on the disk."""
    return ()


@plant(Spill, "find")
def overtakes_the_disk(real: Broken, spill: Spill, subject_hash: int) -> list[Any]:
    """A new message does not see that an earlier one of its subject is on the disk."""
    return []


@plant(supply, "_unread")
def row_skipped(real: Broken, queue: Queue, load: Any, rows: list[Any]) -> list[Any]:
    """The last row that a load brings is taken for read, and is not."""
    found: list[Any] = real(queue, load, rows)
    return found[:-1] if len(found) > 2 else found


@plant(supply, "is_behind")
def restart_overtakes(real: Broken, queue: Queue, delivery: Any) -> bool:
    """A start queues what came last before what was put out to the disk of its subject."""
    return False


# -- finding them ---------------------------------------------------------------------------------


class Find(NamedTuple):
    """The first seed that found a canary."""

    canary: str
    seeds: int
    end: End | None


def hunt(name: str, seeds: int = SEEDS_MAX) -> Find:
    """Plant a bug and live seed after seed until a promise is broken."""
    with planted(CANARIES[name]):
        for seed in range(seeds):
            end = live(draw(seed, STEPS))
            if end.promise:
                return Find(name, seed + 1, replace(end, detail=""))
    return Find(name, seeds, None)


def main() -> int:
    """Hunt for all and print the table."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation.canaries")
    parser.add_argument("--seeds", type=int, default=SEEDS_MAX, help="at most, for each bug")
    parser.add_argument("--jobs", type=int, default=os.cpu_count() or 1, help="processes")
    asked = parser.parse_args()
    missed = 0
    print(f"{'bug':26} {'seed':>5} {'step':>5}  broken promise")
    with ProcessPoolExecutor(asked.jobs) as pool:
        for find in pool.map(hunt, CANARIES, [asked.seeds] * len(CANARIES)):
            if find.end is None:
                missed += 1
                print(f"{find.canary:26} {'-':>5} {'-':>5}  NOT FOUND in {find.seeds} seeds")
            else:
                end = find.end
                print(f"{find.canary:26} {end.seed:5} {end.steps:5}  {end.promise}", flush=True)
    print(f"{len(CANARIES) - missed} of {len(CANARIES)} found")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
