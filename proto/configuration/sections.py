"""The tables of smpbus.toml that concern every process: each setting has a type, bounds and a safe
default.

Only the shape; paths are absolute after loading. Units are in the names.
"""

from pathlib import Path
from typing import Annotated, Final, Literal

import msgspec

from proto.configuration.declared import Address
from proto.retention import Retention

Positive = Annotated[int, msgspec.Meta(ge=1)]


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

    listen: tuple[Address, ...] = ("ipc:///run/smpbus/bus.sock",)
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

    listen: Address = "ipc:///run/smpbus/ops.sock"
    events: Address = "ipc:///run/smpbus/events.sock"
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


SECTIONS: Final[dict[str, type[msgspec.Struct]]] = {
    "bus": BusSettings,
    "ops": OpsSettings,
    "store": StoreSettings,
    "log": LogSettings,
    "retention": Retention,
}
CONNECTORS: Final = "connectors"
