"""What is going to happen, drawn from one seed as plain data: a name and small numbers a step.

An action means something in every state of the world, so any part of a plan is a plan: that is
what lets a failing one be shrunk.
"""

from collections.abc import Callable, Sequence
from random import Random
from typing import Final, NamedTuple

from tests.simulation.scene import CONSUMERS, LAGS, OPEN_MAX, PEERS, PRODUCERS, QUEUES, VARIANTS

CRASHES_MIN: Final = 3
Action = tuple[str, tuple[int, ...]]
Draw = Callable[[Random], tuple[int, ...]]
MESSAGE_NUMBERS: Final = 4  # subject, priority, kind, timing

WAITS_MS: Final = (1, 20, 200, 600, 1_500)
JUMPS_MS: Final = (3_000, -3_000, 30_000, -30_000, 3_600_000, -10_800_000)
JUMP_MS_MAX: Final = 10 * 24 * 3_600_000
SET_RIGHT: Final = 1  # in place of a jump: the wall clock shows the true time again
AFTERS_MS: Final = (None, 0, 100, 1_500, 10**12)
TIMEOUTS_MS: Final = (50, 400, 3_000)
STORM_WINDOW: Final = 6  # an index of WINDOWS
STORM_MANY: Final = 9
STORM_SETTLES: Final = 1  # a mask: what is held longest
STORM_QUEUES: Final = 2  # where what anybody sends goes
EMERGENCY: Final = (0, 0, 0, 0)
WINDOWS: Final = (0, 1, 2, 3, 4, 6, 10, 16)
OUTCOMES: Final = ("ack", "retry", "reject")
KINDS: Final = ("test", "solo", "alarm", "lost", "deny", "undotted", "large", "foreign", "broken")
TIMINGS: Final = ("now", "after 300", "after 2000", "until 400", "until 2500", "300 to 700", "past")
GARBAGE: Final = (
    "no payload", "unknown verb", "bad payload", "another key", "ping", "old version",
    "another name", "no such destination",
)  # fmt: skip
ASKED: Final = ("fair", "foreign", "large", "broken")


class Setup(NamedTuple):
    """What stays the same through one life."""

    profile: int = 0
    lag: int = 0
    open_max: int = 0
    observed: int = 0


class Plan(NamedTuple):
    """One life: its setup and what happens in it."""

    seed: int
    setup: Setup
    actions: list[Action]


# How often an action comes; one with 0 only in the lives whose profile names it.
WEIGHTS: Final = {
    "publish": 60, "repeat": 5, "again": 10, "resend": 5,
    "flush": 50, "take": 10, "write": 10, "tell": 10,
    "credit": 26, "settle": 100, "late": 8,
    "vanish": 5, "bye": 3, "greet": 3, "clog": 3,
    "time": 44, "beat": 5,
    "reload": 4, "keys": 3, "full": 2, "hold": 3, "hurry": 3, "replay": 4, "drop": 2,
    "ask": 6, "answer": 6, "garbage": 3,
    "stop": 1, "fail": 1, "crash": 5, "storm": 0,
}  # fmt: skip

# What some lives have more of, as factors.
PROFILES: Final[tuple[tuple[str, dict[str, float]], ...]] = (
    ("ordinary", {}),
    ("slow disk", {"flush": 0.2, "take": 3, "write": 2, "tell": 2}),
    ("no consumer", {"credit": 0.3, "settle": 0.3, "publish": 1.5, "vanish": 2}),
    ("coming and going", {"vanish": 5, "bye": 4, "greet": 3, "clog": 4, "credit": 2, "crash": 3}),
    ("failing partner", {"settle": 1.5, "late": 3, "replay": 3, "drop": 2, "time": 1.5}),
    ("busy operator", {"reload": 6, "keys": 5, "full": 4, "hold": 5, "replay": 4, "drop": 4}),
    ("flood", {"publish": 2.5, "settle": 2, "credit": 0.6, "time": 0.5, "crash": 0.4}),
    (
        "deadly messages",
        {"vanish": 8, "credit": 4, "settle": 0.4, "beat": 12, "time": 2, "crash": 0.3, "storm": 12},
    ),
    ("wrong clocks", {"time": 1.5, "crash": 2, "stop": 3, "replay": 2}),
    ("repeating sender", {"repeat": 6, "again": 5, "resend": 5, "crash": 2, "fail": 3}),
)


def _pick(*bounds: int) -> Draw:
    """Return a draw of one number below each bound."""
    return lambda random: tuple(int(random.random() * bound) for bound in bounds)


def _message(random: Random) -> tuple[int, ...]:
    chance = random.random()
    subject = int(random.random() * 5)
    priority = int(random.random() * 4)
    kind = 0 if chance < 0.6 else int(random.random() * 3)
    if chance > 0.96:
        kind = int(random.random() * len(KINDS))
    timing = int(random.random() * len(TIMINGS)) if random.random() < 0.25 else 0
    return subject, priority, kind, timing


def _publish(random: Random) -> tuple[int, ...]:
    numbers: tuple[int, ...] = (int(random.random() * len(PRODUCERS)),)
    count = 1 + int(random.random() * (4 if random.random() < 0.85 else 12))
    for _ in range(count):
        numbers += _message(random)
    return numbers


def _settle(random: Random) -> tuple[int, ...]:
    chance = random.random()
    outcome = 0 if chance < 0.7 else 1 if chance < 0.9 else 2
    mask = 255 if random.random() < 0.3 else 1 + int(random.random() * 255)
    consumer = int(random.random() * len(CONSUMERS))
    return consumer, mask, outcome, int(random.random() * len(AFTERS_MS))


def _jump(random: Random, chance: float) -> int:
    """Return how far the wall clock jumps, in ms: mostly not at all."""
    if random.random() >= chance:
        return 0
    kind = random.random()
    if kind < 0.3:
        return SET_RIGHT
    if kind < 0.7:
        return JUMPS_MS[int(random.random() * len(JUMPS_MS))]
    return int((2 * random.random() - 1) * JUMP_MS_MAX)


def _time(random: Random) -> tuple[int, ...]:
    return int(random.random() * len(WAITS_MS)), _jump(random, 0.06)


def _crash(random: Random) -> tuple[int, ...]:
    kept, stage, sent = (int(random.random() * bound) for bound in (3, 4, 4))
    return kept, stage, sent, _jump(random, 0.3)


def _keys(random: Random) -> tuple[int, ...]:
    return (int(random.random() * 16) if random.random() < 0.4 else 0,)


def _full(random: Random) -> tuple[int, ...]:
    return (int(random.random() < 0.4),)


def _ask(random: Random) -> tuple[int, ...]:
    how = int(random.random() * len(ASKED)) if random.random() < 0.15 else 0
    asker, queue = int(random.random() * len(PRODUCERS)), int(random.random() * len(QUEUES))
    return asker, queue, int(random.random() * len(TIMEOUTS_MS)), how


def _hold(random: Random) -> tuple[int, ...]:
    return int(random.random() * len(QUEUES)), int(random.random() < 0.4)


def _storm(random: Random) -> tuple[int, ...]:
    number, queue = int(random.random() * len(PRODUCERS)), int(random.random() * STORM_QUEUES)
    count, deaths, hands = (int(random.random() * bound) for bound in (14, 3, 2))
    return number, queue, 6 + count, 2 + deaths, hands


DRAWS: Final[dict[str, Draw]] = {
    "publish": _publish, "repeat": _pick(3), "again": _pick(3, 12, 3), "resend": _pick(3),
    "flush": _pick(), "take": _pick(), "write": _pick(), "tell": _pick(),
    "credit": _pick(len(CONSUMERS), len(QUEUES), len(WINDOWS)), "settle": _settle,
    "late": _pick(len(CONSUMERS), 12, 3),
    "vanish": _pick(len(PEERS)), "bye": _pick(len(PEERS)), "greet": _pick(len(PEERS)),
    "clog": _pick(len(PEERS)),
    "time": _time, "beat": _pick(1 << len(PEERS)),
    "reload": _pick(VARIANTS), "keys": _keys, "full": _full, "hold": _hold,
    "hurry": _pick(len(QUEUES), 3), "replay": _pick(len(QUEUES), 4), "drop": _pick(len(QUEUES), 3),
    "ask": _ask, "answer": _pick(len(CONSUMERS), 4, 3),
    "garbage": _pick(len(PEERS), len(GARBAGE)),
    "stop": _pick(), "fail": _pick(2), "crash": _crash,
    "storm": _storm,
}  # fmt: skip


def draw(seed: int, steps: int) -> Plan:
    """Return the plan of a seed: at least CRASHES_MIN of its steps are crashes."""
    random = Random(seed)
    profile = int(random.random() * len(PROFILES))
    setup = Setup(
        profile,
        int(random.random() * len(LAGS)),
        int(random.random() * len(OPEN_MAX)) if random.random() < 0.4 else 0,
        int(random.random() < 0.2),
    )
    factors = PROFILES[profile][1]
    names = list(WEIGHTS)
    weights = [(WEIGHTS[name] or 1) * factors.get(name, min(1, WEIGHTS[name])) for name in names]
    chosen = random.choices(names, weights, k=steps)
    _force_crashes(chosen)
    return Plan(seed, setup, [(name, DRAWS[name](random)) for name in chosen])


def _force_crashes(names: list[str]) -> None:
    """Turn evenly spread steps into crashes until there are enough."""
    steps = len(names)
    places = iter((2 * number + 1) * steps // (2 * CRASHES_MIN) for number in range(CRASHES_MIN))
    while names.count("crash") < min(CRASHES_MIN, steps):
        place = next(places)
        while names[place] == "crash":
            place = (place + 1) % steps
        names[place] = "crash"


def show(plan: Plan) -> str:
    """Return a plan to read: one line an action."""
    setup = plan.setup
    lines = [
        f"seed {plan.seed}: {PROFILES[setup.profile][0]}, backlog after {LAGS[setup.lag]} messages,"
        f" open_max {OPEN_MAX[setup.open_max]}"
    ]
    lines += [
        f"{number:4} {name} {say(name, numbers)}"
        for number, (name, numbers) in enumerate(plan.actions, 1)
    ]
    return "\n".join(lines)


def say(name: str, numbers: tuple[int, ...]) -> str:
    """Return what the numbers of an action mean."""
    if name == "publish":
        words = [
            f"[{'abcd'[s - 1] if s else '-'} p{p} {KINDS[k]}{'' if not t else ' ' + TIMINGS[t]}]"
            for s, p, k, t in zip(
                *(numbers[1 + i :: MESSAGE_NUMBERS] for i in range(4)), strict=True
            )
        ]
        return f"{PRODUCERS[numbers[0]].decode()} {' '.join(words)}"
    if name in _SAY:
        return " ".join(
            str(words[number]) if words else str(number)
            for words, number in zip(_SAY[name], numbers, strict=True)
        )
    return " ".join(map(str, numbers))


_P, _C, _A = ([peer.decode() for peer in who] for who in (PRODUCERS, CONSUMERS, PEERS))
_SWITCH = ("off", "on")
_SAY: Final[dict[str, tuple[Sequence[object], ...]]] = {
    "repeat": (_P,), "again": (_P, (), ()), "resend": (_P,),
    "credit": (_C, QUEUES, WINDOWS),
    "settle": (_C, (), OUTCOMES, [f"after {ms}" for ms in AFTERS_MS]),
    "late": (_C, (), OUTCOMES),
    "vanish": (_A,), "bye": (_A,), "greet": (_A,), "clog": (_A,),
    "time": ([f"+{ms} ms" for ms in WAITS_MS], ()),
    "storm": (_P, QUEUES, (), (), ("one hand", "two hands")),
    "full": (_SWITCH,), "hold": (QUEUES, _SWITCH), "hurry": (QUEUES, "*ab"),
    "replay": (QUEUES, ()), "drop": (QUEUES, ()),
    "ask": (_P, QUEUES, TIMEOUTS_MS, ASKED), "answer": (_C, (), ("honest", "forged", "twice")),
    "garbage": (_A, GARBAGE), "fail": (("lost", "kept"),),
    "crash": ([f"keeps {n} batches" for n in range(3)],
              ("between steps", "after take", "after write", "after tell"),
              [f"{n} sends out" for n in range(4)], ()),
}  # fmt: skip
