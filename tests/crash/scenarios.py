"""The scenarios: what a store goes through in its life, small enough to be broken anywhere.

Each plays on a stage, whose chance decides the details; `SETTINGS` shrink the store's constants so
that checkpoints, segments and the frontier come every few messages.
"""

from collections.abc import Callable
from contextlib import suppress
from typing import Final, NamedTuple
from zlib import crc32

import apsw

from router.core.delivery import State
from router.core.output import Batch
from router.store import history as segments
from tests.crash.disk import Fault
from tests.crash.stage import Stage

AT: Final = 1_800_000_000_000
DESTINATIONS: Final = ("smp", "sys112", "admin")
ENDS: Final = (State.SETTLED, State.SETTLED, State.SETTLED, State.DEAD, State.EXPIRED)
SEGMENT: Final = 8
SMALL: Final = {
    "SEGMENT": SEGMENT,
    "SEGMENT_OF": segments.SEGMENT_OF.replace(str(segments.SEGMENT), str(SEGMENT)),
    "SEGMENTS_STEP": 2,
    "SCAN_STEP": 3,
    "FRONTIER_STEP": 4,
    "LOAD_LENGTH_MAX": 5,
    "RUN_LENGTH": 3,
}
OFTEN: Final = {**SMALL, "CHECKPOINT_PAGES": 12, "CHECKPOINT_PAGES_MAX": 12}


class Scenario(NamedTuple):
    """`play` acts; `settings` are the store's constants meanwhile.

    `weight` is its share of the images: the slow ones get fewer.
    """

    play: Callable[[Stage], None]
    settings: dict[str, object]
    weight: float


# -- batches --------------------------------------------------------------------------------------


def add(
    stage: Stage,
    batch: Batch,
    count: int,
    bytes_max: int = 600,
    *,
    repeats: float = 0.0,
    spills: float = 0.0,
    subjects: int = 6,
) -> None:
    """Put messages into a batch; a share of them repeats earlier ones."""
    random = stage.random
    known = sorted(stage.ledger.known)
    for _ in range(count):
        n, delivery = stage.next_n, stage.next_delivery
        names = random.sample(DESTINATIONS, random.choice((1, 1, 2, 3)))
        source, id = "sys112", f"{n}-{random.getrandbits(32):x}"
        if known and random.random() < repeats:
            source, id = random.choice(known)
        known.append((source, id))
        subject = f"112-{random.randrange(subjects)}"
        raw = random.randbytes(random.randrange(40, bytes_max))
        row = (n, source, id, subject, AT + n, delivery, " ".join(names), crc32(raw), raw)
        batch.messages.append(row)
        for place, name in enumerate(names):
            if random.random() < spills:
                batch.spilled.append((name, n % 4, delivery + place, n, n * 7 % 5))
        stage.next_n, stage.next_delivery = n + 1, delivery + len(names)


def end(stage: Stage, batch: Batch, count: int, ends: tuple[State, ...] = ENDS) -> None:
    """Put outcomes of open deliveries into a batch."""
    ledger, random = stage.ledger, stage.random
    for delivery in random.sample(sorted(ledger.open), min(count, len(ledger.open))):
        n, destination = ledger.open[delivery]
        tried = ledger.attempts.get(delivery)
        note = random.choice((None, "HTTP 200", "адресат отказал"))
        number = (tried[-1][1] if tried else 0) + 1
        batch.outcomes.append(
            (delivery, n, destination, random.choice(ends), number, AT + n, AT + n + 5, note)
        )
        if (lane := ledger.filed.get(delivery)) is not None:
            batch.unfiled.append((destination, lane, delivery, n, n))


def retry(stage: Stage, batch: Batch, count: int) -> None:
    """Put attempts that failed into a batch."""
    ledger, random = stage.ledger, stage.random
    ended = {row[0] for row in batch.outcomes}
    trying = sorted(set(ledger.open) - ended)
    for delivery in random.sample(trying, min(count, len(trying))):
        tried = ledger.attempts.get(delivery, [])
        number = len(tried) + 1
        due = random.choice((None, AT + 60_000 + number))
        word = random.choice(("retry", "vanished"))
        at = AT + 1000 * number - random.choice((0, 0, 3_600_000))  # the clock may be set back
        batch.attempts.append((delivery, number, at, word, "HTTP 503", due, number))


def put_behind(stage: Stage, batch: Batch, count: int) -> None:
    """Put what has been open longest into the backlog."""
    ledger = stage.ledger
    ended = {row[0] for row in batch.outcomes}
    fresh = sorted(set(ledger.open) - set(ledger.filed) - ended)
    numbers = sorted({ledger.open[delivery][0] for delivery in fresh})[:count]
    for delivery in fresh:
        n, destination = ledger.open[delivery]
        if n in numbers:
            batch.filed.append((destination, n % 4, delivery, n, n * 7 % 5))


def command(stage: Stage, batch: Batch) -> None:
    """Put what an operator may want into a batch."""
    ledger, random = stage.ledger, stage.random
    dead = [end for _, end in sorted(ledger.ends.items()) if end[3] == State.DEAD]
    for delivery, n, destination, *_ in random.sample(dead, min(3, len(dead))):
        if random.random() < 0.4:
            batch.dropped.append((delivery, destination, "по просьбе адресата"))
        else:
            at = AT + 1_000_000 + len(stage.steps)
            batch.reopened.append((delivery, destination))
            batch.filed.append((destination, n % 4, delivery, n, n * 7 % 5))
            batch.attempts.append((delivery, 0, at, "replayed", "адресат исправен", None, 0))
    for destination in random.sample(DESTINATIONS, random.randint(0, 2)):
        batch.holds[destination] = random.choice((None, "ремонт"))


def send(stage: Stage, batch: Batch) -> None:
    """Write a batch, with the frontier as the core would have it."""
    ledger = stage.ledger
    gone = {row[0] for row in batch.outcomes} | {row[2] for row in batch.filed}
    gone |= set(ledger.filed)
    waiting = [n for delivery, (n, _) in ledger.open.items() if delivery not in gone]
    batch.frontier = min([*waiting, *(row[0] for row in batch.messages[:1]), stage.next_n])
    stage.write(batch)


def mixed(
    stage: Stage, *, new: int = 3, ends: int = 2, tries: int = 1, bytes_max: int = 600
) -> None:
    """Write a batch of everything."""
    batch = Batch()
    end(stage, batch, stage.random.randint(0, ends))
    retry(stage, batch, stage.random.randint(0, tries))
    add(stage, batch, stage.random.randint(1, new), bytes_max)
    send(stage, batch)


# -- scenarios ------------------------------------------------------------------------------------


def birth(stage: Stage) -> None:
    """The first start of all, broken anywhere, and the first message."""
    stage.open()
    mixed(stage)


def steady(stage: Stage) -> None:
    """Small batches, one after another."""
    stage.open()
    for _ in range(14):
        mixed(stage, tries=0)
    stage.close()


def large(stage: Stage) -> None:
    """A thousand messages in one transaction, and as many outcomes."""
    stage.open()
    stage.ledger.watched = ("112-0",)
    batch = Batch()
    add(stage, batch, 200, 200, subjects=50)
    send(stage, batch)
    batch = Batch()
    end(stage, batch, 150)
    add(stage, batch, 1000, 200, subjects=50)
    send(stage, batch)
    batch = Batch()
    end(stage, batch, 1500)
    retry(stage, batch, 40)
    add(stage, batch, 40, 200, subjects=50)
    send(stage, batch)


def checkpoint(stage: Stage) -> None:
    """The log is brought into the database and begun anew in the midst of work."""
    stage.open()
    for _ in range(16):
        mixed(stage, new=4, bytes_max=2500)
    stage.close()


def outcomes(stage: Stage) -> None:
    """Everything that can become of a delivery."""
    stage.open()
    batch = Batch()
    add(stage, batch, 16, 120)
    send(stage, batch)
    for _ in range(12):
        batch = Batch()
        end(stage, batch, stage.random.randint(0, 3))
        retry(stage, batch, stage.random.randint(1, 4))
        send(stage, batch)
    stage.look()
    stage.close()


def duplicates(stage: Stage) -> None:
    """Messages that were accepted before, within a batch and across batches and starts."""
    stage.open()
    for number in range(12):
        batch = Batch()
        add(stage, batch, stage.random.randint(1, 6), 200, repeats=0.6, spills=0.3)
        stage.forget_cache()
        send(stage, batch)
        if number == 6:
            stage.close()
            stage.open()


def backlog(stage: Stage) -> None:
    """Deliveries that stay open for long are filed, taken out, and found by a start."""
    stage.open()
    for number in range(10):
        batch = Batch()
        end(stage, batch, stage.random.randint(0, 3))
        put_behind(stage, batch, stage.random.randint(0, 2))
        add(stage, batch, stage.random.randint(1, 4), 150, spills=0.5)
        stage.forget_cache()
        send(stage, batch)
        if number == 5:
            stage.die()
            stage.open()
    stage.look()


def history(stage: Stage) -> None:
    """The subject index follows, and old messages are forgotten, between batches."""
    stage.open()
    for _ in range(9):
        batch = Batch()
        end(stage, batch, 6)
        retry(stage, batch, 1)
        add(stage, batch, 4, 200)
        send(stage, batch)
        stage.tidy()
        stage.forget_cache()
        stage.prune(AT + stage.next_n - 3, 3)
        stage.prune(AT + stage.next_n - 3, 3, passed=True)
    stage.look()
    stage.close()


def operator(stage: Stage) -> None:
    """Dead letters are replayed and dropped, destinations held and released, between batches."""
    stage.open()
    for number in range(9):
        batch = Batch()
        if number > 1:
            command(stage, batch)
        end(stage, batch, 3, (State.DEAD, State.SETTLED))
        add(stage, batch, stage.random.randint(1, 4), 150)
        stage.forget_cache()
        send(stage, batch)
        if number == 5:
            stage.look()
            stage.die()
            stage.open()
    stage.look()


def restart(stage: Stage) -> None:
    """Stops in order and kills, each with a new epoch."""
    for number in range(5):
        stage.open()
        for _ in range(stage.random.randint(0, 3)):
            mixed(stage)
        stage.look()
        if number % 2:
            stage.die()
        else:
            stage.close()
    stage.open()


def recovery(stage: Stage) -> None:
    """Power is lost again while the store recovers from a power loss."""
    earlier = Stage(stage.random, stage.factory)
    earlier.open()
    for _ in range(7):
        mixed(earlier, new=4, bytes_max=1500)
    earlier.lose_power_under(stage)
    stage.open()
    mixed(stage)
    mixed(stage)


def growth(stage: Stage) -> None:
    """The file grows, is emptied, and grows again over its own free pages."""
    stage.open()
    for number in range(8):
        batch = Batch()
        if number in (3, 6):
            end(stage, batch, 1000, (State.SETTLED, State.EXPIRED))
        add(stage, batch, 4, 12_000)
        send(stage, batch)
        stage.tidy()
        if number in (3, 6):
            stage.prune(AT + stage.next_n + 10)
    stage.look()
    stage.close()


def failed_sync(stage: Stage) -> None:
    """A sync fails, the process ends at once and starts again on the same kernel, work goes on.

    The kernel may show the new process what never came to the disk. SQLite would believe it and
    copy it into the database; power that is lost before that copy is synced would leave pages of
    a transaction whose log is gone.
    """
    random = stage.random
    stage.open()
    for _ in range(3):
        mixed(stage, bytes_max=1500)
    at = stage.disk.calls + random.randint(1, 60)
    reverts, partly = random.random() < 0.5, random.random() < 0.5
    stage.disk.fault = Fault(at, kind="sync", reverts=reverts, partly=partly)
    with suppress(apsw.Error):
        for _ in range(12):
            mixed(stage, bytes_max=1500)
    stage.die()
    stage.disk.fault = None
    stage.open()
    for _ in range(4):
        mixed(stage)


SCENARIOS: Final = {
    play.__name__.replace("_", "-"): Scenario(play, settings, 0.25 if play is large else 1.0)
    for play, settings in (
        (birth, SMALL),
        (steady, SMALL),
        (large, SMALL),
        (checkpoint, OFTEN),
        (outcomes, SMALL),
        (duplicates, OFTEN),
        (backlog, SMALL),
        (history, OFTEN),
        (operator, OFTEN),
        (restart, SMALL),
        (recovery, OFTEN),
        (growth, OFTEN),
        (failed_sync, OFTEN),
    )
}
