"""What the bus's books say of a drill, against what the partner's ledger says. Pure."""

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Final

from proto.frames import key_of
from proto.note import code_of

TIMER: Final = ".timer."  # a connector's alarm clock: days may pass before it rings
UNRECORDED: Final = "telephony."  # told to the partner, which keeps no account of it
OPEN: Final = frozenset({"pending", "in_flight", "retrying"})
# A delivery that the connector settled without a word to the partner is not in any ledger.
UNTOLD: Final = frozenset({"connector.untold", "rmis.untold"})
_KEY: Final = re.compile(r"[0-9a-z]+-(?:[0-9a-z]+-)?[0-9]+")  # as key_of makes them


@dataclass(frozen=True)
class Hop:
    """One delivery as `trace` tells it; times are ms since 1970 UTC."""

    destination: str
    subject: str
    type: str
    number: int
    state: str
    accepted_at: int
    ended_at: int | None
    note: str
    retried_at: tuple[int, ...] = ()
    generation: str = ""  # which start of the router gave it its number

    @property
    def told(self) -> bool:
        """Whether the partner must have it in its ledger."""
        untold = code_of(self.note) in UNTOLD
        return self.state == "settled" and not untold and not self.type.startswith(UNRECORDED)


def hops(subject: str, messages: Iterable[dict[str, Any]]) -> list[Hop]:
    """Return the deliveries of one subject's messages, without the timers."""
    return [
        Hop(
            destination=delivery["destination"],
            subject=subject,
            type=message["type"],
            number=delivery["delivery"],
            state=delivery["state"],
            accepted_at=message["accepted_at"],
            ended_at=delivery["settled_at"],
            note=delivery["note"] or "",
            retried_at=tuple(attempt["at"] for attempt in delivery["history"]),
            generation=delivery.get("generation", ""),
        )
        for message in messages
        if TIMER not in message["type"]
        for delivery in message["deliveries"]
    ]


@dataclass
class Judgement:
    """What was promised and not kept. `lost`, `doubled` and `disordered` are None when the
    partner's ledger knows no keys of the bus."""

    deliveries: int = 0
    lost: int | None = None
    doubled: int | None = None
    disordered: int | None = None
    given_up: int = 0
    open: int = 0


def keys_of_bus(keys: list[str]) -> list[str] | None:
    """Return the keys of a ledger, None when all it has are the partner's own numbers: a contract
    without idempotency keys says nothing of single deliveries."""
    return keys if not keys or any(map(_KEY.fullmatch, keys)) else None


def judge(bus: str, taken: Sequence[Hop], keys: Sequence[str] | None) -> Judgement:
    """Judge the deliveries `taken` to one destination by the keys of its ledger, in their order.

    Lost: settled, and not in the ledger. Doubled: there more than once. Out of order: applied
    after a later one of its subject. Given up: dead, dropped or expired.
    """
    states = Counter(hop.state for hop in taken)
    still_open = sum(states[word] for word in OPEN)
    found = Judgement(
        deliveries=len(taken),
        given_up=len(taken) - states["settled"] - still_open,
        open=still_open,
    )
    if keys is None:
        return found
    counts = Counter(keys)
    place = {key: at for at, key in reversed(list(enumerate(keys)))}
    applied: dict[str, list[tuple[int, int]]] = defaultdict(list)
    found.lost = found.doubled = found.disordered = 0
    for hop in taken:
        key = key_of(bus, hop.number, hop.generation)
        found.lost += hop.told and key not in counts
        found.doubled += max(0, counts[key] - 1)
        if key in place:
            applied[hop.subject].append((hop.number, place[key]))
    for pairs in applied.values():
        latest = -1
        for _, at in sorted(pairs):
            found.disordered += at < latest
            latest = max(latest, at)
    return found


def quantile(values: Sequence[float], part: float) -> float | None:
    """Return what `part` of the values are at most; None of none."""
    ordered = sorted(values)
    return ordered[min(len(ordered) - 1, int(len(ordered) * part))] if ordered else None
