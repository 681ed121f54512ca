"""The router's settings: every one typed, bounded and with a default that is safe.

Loading, layers and the errors of a wrong file live in `router.config`; this module is only the
shape. Paths are absolute after loading. Units are in the names.
"""

from pathlib import Path
from typing import Annotated, Literal

import msgspec

from proto.retention import Retention

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


class BusSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[bus]: where the router listens, for whom, and how much of its memory they may take.

    `unread_bytes_max` is what may wait for a peer that does not read (two of the largest frames at
    least), `unread_bytes_total` the same for all together; `gather_bytes_max` is what gathers for
    one write to the disk; `frames_unread_max` is how many frames of one connection wait to be read
    before it is made to wait; `share_bytes_max` is what one name may publish in a burst while
    others publish too (all of it comes back in a second; one of the largest frames at least);
    `errors_max` is how many errors one name may make in a burst (all come back in 200 s);
    `waiting_bytes_max` is what of all peers may wait, read, for a turn to be taken beside others.
    """

    listen: tuple[str, ...] = ("ipc:///run/smpbus/bus.sock",)
    curve: bool = True
    key: Path = Path("/etc/smpbus/keys/router.key")
    keys_dir: Path = Path("/etc/smpbus/keys")
    ipc_mode: Literal["0600", "0660", "0666"] = "0660"
    body_bytes_max: Positive = 1024 * 1024
    frame_bytes_max: Positive = 16 * 1024 * 1024
    sessions_max: Positive = 1000
    session_timeout_ms: Positive = 10_000
    connections_max: Positive = 2000
    unread_bytes_max: Positive = 32 * 1024 * 1024
    unread_bytes_total: Positive = 128 * 1024 * 1024
    gather_bytes_max: Annotated[int, msgspec.Meta(ge=64 * 1024)] = 4 * 1024 * 1024
    frames_unread_max: Positive = 16
    share_bytes_max: Positive = 16 * 1024 * 1024
    errors_max: Positive = 20_000
    waiting_bytes_max: Positive = 64 * 1024 * 1024


class OpsSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[ops]: the operator's socket, the live events, the Prometheus page ("" switches it off).

    `look` and `change` name users, and groups as "@GROUP", who may ask for what the router knows,
    and for changes as well; root and the router's own user may do both.
    """

    listen: str = "ipc:///run/smpbus/ops.sock"
    events: str = "ipc:///run/smpbus/events.sock"
    ipc_mode: Literal["0600", "0660", "0666"] = "0600"
    look: tuple[str, ...] = ("@smpbus-look",)
    change: tuple[str, ...] = ("@smpbus-change",)
    http: str = "127.0.0.1:7180"


# Whole ones, or a part of one.
Hours = Annotated[int, msgspec.Meta(ge=1)] | Annotated[float, msgspec.Meta(gt=0)]


class StoreSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[store]: the folder of the journal and how long settled deliveries stay in it.

    The longer of `history_hours` and `dedup_hours` counts for both. Who looked at whose data is
    kept for `access_days`, in files of `access_file_mib`.
    """

    folder: Path = Path("/var/lib/smpbus")
    history_hours: Hours = 14 * 24
    dedup_hours: Hours = 72
    free_bytes_min: Annotated[int, msgspec.Meta(ge=0)] = 256 * 1024 * 1024
    access_days: Annotated[int, msgspec.Meta(ge=1, le=3660)] = 366
    access_file_mib: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 16


class LogSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """[log]: language of what the administrator reads, and how much of it."""

    language: Literal["ru", "en"] = "ru"
    level: Literal["debug", "info", "warning", "error"] = "info"


class Settings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All of smpbus.toml, routes.toml and permissions.toml together."""

    bus: BusSettings = BusSettings()
    ops: OpsSettings = OpsSettings()
    store: StoreSettings = StoreSettings()
    log: LogSettings = LogSettings()
    retention: Retention = Retention()
    destinations: dict[str, Destination] = {}
    routes: list[Route] = []
    permissions: dict[str, Permission] = {}
