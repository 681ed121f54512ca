"""Who is in the simulated world, and the configurations that a reload can bring.

The model reads these settings with its own few lines of matching: the core's are under test.
"""

from functools import cache
from typing import Final

from router.settings import Backoff, BusSettings, Destination, Permission, Route, Settings

QUEUES: Final = ("first", "second", "third")
NAMES: Final = {
    b"p1": "north", b"p2": "north", b"p3": "south",
    b"c1": "worker", b"c2": "worker", b"c3": "guest", b"c4": "worker",
}  # fmt: skip
PRODUCERS: Final = (b"p1", b"p2", b"p3")
CONSUMERS: Final = (b"c1", b"c2", b"c3", b"c4")
PEERS: Final = (*PRODUCERS, *CONSUMERS)
PEOPLE: Final = ("north", "south", "worker", "guest")
KEYS: Final = {name: f"{name}-key".encode() for name in PEOPLE}
BODY_BYTES_MAX: Final = 100
NAME_MAX: Final = 2  # sessions of one name: a quarter of all
SESSION_TIMEOUT_MS: Final = 4_000
TRIAL_MS: Final = SESSION_TIMEOUT_MS
OPEN_MAX: Final = (1_000, 12, 4)
SLICES: Final = (512, 1, 2)  # messages of a PUBLISH that are looked at in one go, by start
LAGS: Final = (30, 12, 4)
VARIANTS: Final = 4
SOON_MS: Final = 500  # what is due later than that sleeps on the disk
MIB: Final = 4_096  # what a mebibyte shrinks to: five deliveries of a lane

BUS: Final = BusSettings(
    body_bytes_max=BODY_BYTES_MAX, session_timeout_ms=SESSION_TIMEOUT_MS, sessions_max=8
)
BRISK: Final = Backoff(attempts_max=4, first_ms=50, longest_ms=400, age_max_ms=6_000, deaths_max=2)
PATIENT: Final = Backoff(attempts_max=12, first_ms=200, longest_ms=2_000)
NORTH: Final = Permission(publish=["test.*", "solo.*", "alarm.*", "lost.*"], ask=["*"])
SOUTH: Final = Permission(publish=["test.*", "alarm.*"], ask=["first"])


@cache
def settings_of(variant: int, open_max: int) -> Settings:
    """Return one of the configurations; `open_max` is an index of OPEN_MAX."""
    limit = OPEN_MAX[open_max]
    destinations = {
        "first": Destination(
            backoff=BRISK, open_max=limit, memory_mib=8, emergency_percent=25, sender_percent=60
        ),
        "second": Destination(backoff=PATIENT, open_max=limit),
        "third": Destination(backoff=BRISK, open_max=limit, memory_mib=2),
    }
    routes = [
        Route(type="test.*", to=["first", "second"]),
        Route(type="solo.*", to=["first"]),
        Route(type="alarm.*", to=["second", "third"], priorities=[0, 1]),
        Route(type="alarm.a.v1", to=["third"]),
    ]
    permissions = {
        "north": NORTH, "south": SOUTH,
        "worker": Permission(consume=["*"], serve=["first", "second"]),
        "guest": Permission(consume=["first", "third"], serve=["th*"]),
    }  # fmt: skip
    if variant == 1:  # other routes, tighter limits
        routes = [
            Route(type="test.*", to=["second"]),
            Route(type="solo.*", to=["third", "first"]),
            Route(type="alarm.*", source="south", to=["first"]),
        ]
        destinations["second"] = Destination(
            backoff=Backoff(attempts_max=3, first_ms=20),
            open_max=max(4, limit // 3),
            memory_mib=1,
        )
    elif variant == 2:  # fewer rights
        permissions["south"] = Permission(publish=["alarm.*"])
        permissions["worker"] = Permission(consume=["first", "second"], serve=["*"])
        permissions["guest"] = Permission(consume=["th*"])  # its own queue, of which there is none
    elif variant == 3:  # a destination and a name taken out
        del destinations["third"], permissions["guest"]
        routes = [Route(type="test.*", to=["first", "second"]), Route(type="solo.*", to=["first"])]
    return Settings(bus=BUS, destinations=destinations, routes=routes, permissions=permissions)


def matches(patterns: list[str], word: str) -> bool:
    """Whether a word is among the patterns: exact, or a prefix with one trailing "*"."""
    for pattern in patterns:
        if pattern == word or (pattern[-1:] == "*" and word.startswith(pattern[:-1])):
            return True
    return False


@cache
def destinations_of(
    variant: int, open_max: int, source: str, type: str, priority: int
) -> tuple[str, ...]:
    """Return where a message goes, each destination once, in the order of the routes."""
    found = []
    for route in settings_of(variant, open_max).routes:
        takes = matches([route.type], type) and matches([route.source], source)
        if takes and (route.priorities is None or priority in route.priorities):
            found += [name for name in route.to if name not in found]
    return tuple(found)


@cache
def may(variant: int, name: str, right: str, word: str) -> bool:
    """Whether a name has a right ("publish", "consume", "ask", "serve") on a word."""
    permission = settings_of(variant, 0).permissions.get(name)
    if permission is None:
        return False
    patterns = getattr(permission, right)
    return matches([name] if patterns is None else patterns, word)  # serve: its own, unless told
