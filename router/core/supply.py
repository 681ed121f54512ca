"""How a queue that is longer than memory leaves deliveries to the disk and gets them back in order.

What it hands out, it holds in memory; `Spill` keeps count of the rest. A lane reads on when it runs
short of what it can hand out. Whatever is read waits aside while something earlier of its subject
is still on the disk in another lane: that is read first.
"""

from typing import Final
from zlib import crc32

from proto.message import decode_message
from router.core.delivery import Delivery
from router.core.output import BacklogRow, Batch, Load, OpenDelivery
from router.core.policy import SUSPECT_MIN
from router.core.queue import EMERGENCIES, PRIORITIES, Queue
from router.core.sleepers import ASLEEP, SOON_MS

SUPPLY_MIN: Final = 1_024  # ready deliveries of a lane: below this it reads on, if it has room,
HUNGER: Final = 64  # and below this, if anybody consumes, beyond its room: what it holds cannot go,
HUNGER_SHARE: Final = 4  # up to so many times its memory


def hash_of(subject: str) -> int:
    """Return 32 bits that are the same on every machine; 0 means that there is no subject."""
    return crc32(subject.encode()) or 1 if subject else 0


def backlog_row(delivery: Delivery) -> BacklogRow:
    """Return the row under which the store's backlog has a delivery."""
    subject_hash = hash_of(delivery.subject)
    return delivery.destination, delivery.place, delivery.id, delivery.n, subject_hash


def delivery_of(row: OpenDelivery, queue: Queue, mono_ms: int) -> Delivery:
    """Return a stored delivery as the core holds it from now on."""
    message = decode_message(row.raw)
    due = row.due if row.attempts else message.not_before
    delivery = Delivery(
        row.delivery, row.n, queue.name, message.subject, message.priority, row.raw,
        row.accepted_at, mono_ms - row.age, due, message.expires, row.attempts,
    )  # fmt: skip
    if row.filed is not None:
        delivery.filed, delivery.place = True, row.filed
    if row.delivery >= queue.counted_from:
        delivery.sender = sender_of(message.source, message.priority)
    if row.vanished:
        delivery.vanished, delivery.lonely = row.vanished, row.lonely
        delivery.suspect = row.vanished >= SUSPECT_MIN
    return delivery


def sender_of(source: str, priority: int) -> str:
    """Return whom a message counts for: its source, or the bus that passed it on. Emergencies are
    counted by themselves: a sender's bulk does not use up what is theirs."""
    sender = source.partition(".")[0]
    return sender if priority else f"{sender}{EMERGENCIES}"


def source_of(row: OpenDelivery) -> str:
    """Return who sent a stored message."""
    return decode_message(row.raw).source


def wakes_at(due: int | None, expires: int | None, sure_ms: int) -> int | None:
    """Return until when a new delivery sleeps on the disk (ms UTC), None when it does not."""
    if due is None or due <= sure_ms + SOON_MS:
        return None
    return due if expires is None else min(due, expires)


def put_to_sleep(queue: Queue, delivery: Delivery, until: int, batch: Batch) -> None:
    """Leave to the disk what came into memory before its time."""
    if delivery.place < ASLEEP:  # else it has its row there: the clock went back while it woke
        if delivery.filed:
            batch.unfiled.append(backlog_row(delivery))
        batch.filed.append((queue.name, delivery.lane + ASLEEP, delivery.id, delivery.n, until))
    queue.resident_bytes[delivery.lane] -= delivery.size
    queue.sleepers.add(delivery.lane, delivery.id, until)


def spill(queue: Queue, subject: str, row: BacklogRow) -> bool:
    """Leave a new delivery to the disk, and say so, if its lane is full or what comes before it,
    in the lane or of its subject, is there too."""
    _, lane, id, _, subject_hash = row
    there = queue.spill
    behind = (
        queue.resident_bytes[lane] > queue.lane_bytes_max
        or there.unread[lane]
        or subject in queue.aside
        or (subject_hash and there.total and there.find(subject_hash))
    )
    if behind:
        there.add(lane, id, subject_hash)
    return bool(behind)


def is_behind(queue: Queue, delivery: Delivery) -> bool:
    """Whether something of its subject is on the disk only."""
    there = queue.spill
    return bool(delivery.subject and there.total and there.find(hash_of(delivery.subject)))


def put_out(queue: Queue, delivery: Delivery) -> BacklogRow:
    """Leave a delivery to the disk whose message is there already, and return its row."""
    row = backlog_row(delivery)
    there = queue.spill
    there.add(delivery.lane, delivery.id, row[4])
    there.synced[delivery.lane] = max(there.synced[delivery.lane], delivery.id)
    return row


def wanted(queue: Queue, sure_ms: int) -> list[Load]:
    """Return what is to be read now: for each lane that runs short of what it can hand out, and
    whose time has come."""
    there = queue.spill
    loads = _woken(queue, sure_ms) if queue.sleepers.total else []
    for lane in range(PRIORITIES) if there.total else ():
        if (
            there.unread[lane]
            and not there.reading[lane]
            and there.cursors[lane] < there.synced[lane]
            and _is_short(queue, lane)
        ):
            there.reading[lane] = True
            loads.append(Load(queue.name, lane, there.cursors[lane]))
    return loads


def _woken(queue: Queue, sure_ms: int) -> list[Load]:
    sleepers = queue.sleepers
    loads: list[Load] = []
    for lane in range(PRIORITIES):
        is_due = sleepers.is_due(lane, sure_ms) and not sleepers.is_waking(lane)
        if is_due and _has_room(queue, lane):
            loads.append(Load(queue.name, lane, places=tuple(sleepers.take_due(lane, sure_ms))))
    return loads


def _has_room(queue: Queue, lane: int) -> bool:
    return queue.resident_bytes[lane] < _limit(queue, lane)


def _limit(queue: Queue, lane: int) -> int:
    """Return how many bytes of a lane may be in memory before it reads on."""
    hungry = queue.supply(lane) < HUNGER and queue.holdings  # with nobody to feed, its room will do
    return (HUNGER_SHARE if hungry else 1) * queue.lane_bytes_max


def _is_short(queue: Queue, lane: int) -> bool:
    """Whether a lane has little to hand out, and room for more."""
    return queue.supply(lane) < SUPPLY_MIN and _has_room(queue, lane)


def wake(queue: Queue, load: Load, rows: list[OpenDelivery], mono_ms: int) -> list[Delivery]:
    """Bring those that slept into memory."""
    queue.sleepers.woken(load.lane, {row.delivery for row in rows})
    woken = [delivery_of(row, queue, mono_ms) for row in rows]
    for one in woken:
        queue.resident_bytes[one.lane] += one.size
    return woken


def take_up(
    queue: Queue, load: Load, rows: list[OpenDelivery], mono_ms: int
) -> tuple[list[Delivery], list[Load]]:
    """Bring what was read into memory, unless it is there already.

    Returns what can be queued now, in order, and what is to be read first for the rest.
    """
    came = [delivery_of(row, queue, mono_ms) for row in _unread(queue, load, rows)]
    for delivery in came:
        queue.resident_bytes[delivery.lane] += delivery.size
    came += queue.aside.pop(load.subject, ())
    ready: list[Delivery] = []
    loads: list[Load] = []
    for delivery in sorted(came, key=lambda delivery: delivery.id):
        if delivery.subject in queue.aside:
            queue.aside[delivery.subject].append(delivery)
        elif places := _earlier(queue, delivery):
            queue.aside[delivery.subject] = [delivery]
            loads.append(Load(queue.name, places=places, subject=delivery.subject))
        else:
            ready.append(delivery)
    return ready, loads


def _unread(queue: Queue, load: Load, rows: list[OpenDelivery]) -> list[OpenDelivery]:
    there = queue.spill
    if load.places:
        lanes = dict(load.places)
        rows = [row for row in rows if not there.is_read(lanes[row.delivery], row.delivery)]
        for row in rows:
            there.read(lanes[row.delivery], row.delivery)
    else:
        there.reading[load.lane] = False
        rows = [row for row in rows if there.read_next(load.lane, row.delivery)]
        there.trim()
    return rows


def _earlier(queue: Queue, delivery: Delivery) -> tuple[tuple[int, int], ...]:
    """Return (delivery, lane) of what comes before one in its subject and is on the disk."""
    there = queue.spill
    if not delivery.subject or there.total == there.unread[delivery.lane]:
        return ()  # the rest of its own lane comes after it
    places = there.find(hash_of(delivery.subject))
    return tuple(place for place in places if place[0] < delivery.id)
