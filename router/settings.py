"""The router's settings: those of smpbus.toml that are for every process, routes and permissions.

Only the shape: loading is in `router.config`. Units are in the names.
"""

from typing import Annotated

import msgspec

from proto.configuration.sections import BusSettings, LogSettings, OpsSettings, StoreSettings
from proto.retention import Retention

__all__ = [
    "Backoff",
    "BusSettings",
    "Destination",
    "LogSettings",
    "OpsSettings",
    "Permission",
    "Route",
    "Settings",
    "StoreSettings",
]

Positive = Annotated[int, msgspec.Meta(ge=1)]


class Backoff(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """When a retried delivery comes again, and when it is given up (a dead letter).

    `deaths_max` is how often its consumer may die with it alone in hand, and with nothing else.
    """

    attempts_max: Annotated[int, msgspec.Meta(ge=1)] = 50
    first_ms: Annotated[int, msgspec.Meta(ge=1)] = 1_000
    factor: Annotated[float, msgspec.Meta(ge=1, le=10)] = 2.0
    longest_ms: Annotated[int, msgspec.Meta(ge=1)] = 300_000
    age_max_ms: Annotated[int, msgspec.Meta(ge=1)] = 72 * 3600 * 1000
    deaths_max: Positive = 3


class Destination(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One partner's queue: `open_max` deliveries at most, `memory_mib` MiB of them in memory (a
    quarter for each priority), the rest on the disk only.

    Of `open_max` `emergency_percent` are kept for emergencies, and one sender may have open
    `sender_percent` of what the other senders leave.
    """

    backoff: Backoff = Backoff()
    open_max: Annotated[int, msgspec.Meta(ge=1)] = 2_000_000
    memory_mib: Annotated[int, msgspec.Meta(ge=1, le=65_536)] = 64
    emergency_percent: Annotated[int, msgspec.Meta(ge=0, le=90)] = 10
    sender_percent: Annotated[int, msgspec.Meta(ge=1, le=100)] = 80


class Route(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Messages of `type` from `source` ("*" is any; "incident.*" is a prefix) go to `to`; a longer
    body than `body_bytes_max` is refused, also where bus.body_bytes_max would let it pass. Of a
    JSON body only `fields` ("id112", "contact.caller.phone") are handed out there; None: all."""

    type: str
    to: list[str]
    source: str = "*"
    priorities: list[int] | None = None
    body_bytes_max: Positive | None = None
    fields: list[str] | None = None


class Permission(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one name may do. Entries are exact names or a prefix with one trailing "*".

    `serve` names destinations, of those that it consumes, to which it may answer questions; None
    stands for the one that is called as it is. `relay` names other buses, by the `bus` of their
    WELCOME, whose messages it may pass on. `operate` says that it is a person at the command line
    and no connector that anybody would miss; who may give commands is in [ops].
    """

    publish: list[str] = []
    consume: list[str] = []
    ask: list[str] = []
    serve: list[str] | None = None
    relay: list[str] = []
    operate: bool = False


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of smpbus.toml, routes.toml and permissions.toml together."""

    bus: BusSettings = BusSettings()
    ops: OpsSettings = OpsSettings()
    store: StoreSettings = StoreSettings()
    log: LogSettings = LogSettings()
    retention: Retention = Retention()
    destinations: dict[str, Destination] = {}
    questions: dict[str, str] = {}
    routes: list[Route] = []
    permissions: dict[str, Permission] = {}
