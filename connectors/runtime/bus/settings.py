"""What a connector is told: its `[connectors.NAME]` table of smpbus.toml, and where the bus is."""

from dataclasses import dataclass, field
from errno import EINVAL
from pathlib import Path
from typing import Annotated, ClassVar, Final

import msgspec

from connectors.runtime.door.doorsettings import CallerName, CallerSettings, DoorTls
from connectors.runtime.door.gate import HttpSettings
from connectors.runtime.partner.partner import PartnerSettings
from proto.configuration.address import fault_of
from proto.configuration.declared import Address, Listen
from proto.configuration.layers import Layers, read_main
from proto.configuration.place import Place, hint
from proto.configuration.questions import questions_beside
from proto.configuration.sections import CONNECTORS, BusSettings, LogSettings, StoreSettings
from proto.configuration.typed import read, section
from proto.inclear import in_clear
from proto.keys import handed_over
from proto.retention import Retention
from proto.wording import text

__all__ = [
    "ConnectorSettings",
    "DoorSettings",
    "Listen",
    "Loaded",
    "LogSettings",
    "SessionSettings",
    "StoreSettings",
    "load",
]

DESTINATION: Final = r"\A([a-z][a-z0-9_-]{0,63})?\Z"


class SessionSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every connector needs, whatever it joins to the bus.

    `kind` is the name that the connector is installed under ("": the name of the table); `bus` is
    the router's address ("" is the first of [bus] listen). `accept_timeout_s` is how long
    is waited for the router's ACCEPTED. What failed is tried again as the queue's backoff says, or,
    with `repeat_after_s`, not sooner than that, which doubles up to `repeat_after_max_s`. At a stop
    what is under way has `stop_s` to end; a second later the process is gone, whatever hangs.
    `retention` is the file's own table of that name; a connector that has `questions` gets those of
    routes.toml. Who looked at whose data is written down in
    `access_folder` (None: NAME/access in the folder of the journal).
    """

    # Of connectors with more: where they are written for one without, they are taken and not used.
    idle: ClassVar[frozenset[str]] = frozenset(
        {"partner", "listen", "allow", "body_bytes_max", "http", "open", "callers", "tls"}
    )

    kind: str = ""
    bus: Address = ""
    key: Path | None = None
    server_key: Path | None = None
    destination: Annotated[str, msgspec.Meta(pattern=DESTINATION)] = ""
    credit: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 32
    accept_timeout_s: Annotated[float, msgspec.Meta(gt=0, le=300)] = 5.0
    retry_after_s: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 3
    repeat_after_s: Annotated[float, msgspec.Meta(gt=0, le=3600)] | None = None
    repeat_after_max_s: Annotated[float, msgspec.Meta(gt=0, le=86_400)] = 300.0
    stop_s: Annotated[float, msgspec.Meta(ge=0, le=60)] = 4.0
    access_folder: Path | None = None
    retention: Retention = Retention()


class DoorSettings(SessionSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What a connector that is called needs, too.

    `listen` is where the partner calls in, and only from the networks in `allow`, and only who is
    one of the `callers`; a door that anybody may use says so: `open`. With `tls` it speaks TLS
    itself. Whoever is not answered in time is told to repeat after `retry_after_s` seconds; `http`
    has the limits of the door.
    """

    listen: Listen
    allow: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    body_bytes_max: Annotated[int, msgspec.Meta(ge=1024)] = 512 * 1024
    http: HttpSettings = HttpSettings()
    open: bool = False
    callers: dict[CallerName, CallerSettings] = {}
    tls: DoorTls | None = None


class ConnectorSettings(DoorSettings, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What most connectors need: they ask a partner, and are called by it. A connector's own struct
    adds to it, or to one of the smaller ones above."""

    partner: PartnerSettings


@dataclass(frozen=True)
class Loaded:
    """Everything a connector process is told: from which file, and what."""

    file: Path
    settings: SessionSettings
    address: str
    key: Path | None
    server_key: Path | None
    log: LogSettings
    in_clear: tuple[str, ...] = ()  # sentences about what goes over a network unprotected
    idle: tuple[str, ...] = ()  # sentences about what is set and not used
    store: StoreSettings = field(default_factory=StoreSettings)


def load(name: str, shape: type[SessionSettings], file: Path) -> Loaded:
    """Read the settings of connector `name` as `shape`. Raises StartError."""
    main = read_main(file)
    tables = main.table(CONNECTORS)
    if name not in tables:
        Place("", file).fail("connector.no_table", name=name, hint=hint(name, tables))
    settings = read(main, shape, CONNECTORS, name)
    if not main.is_set(CONNECTORS, name, "retention"):
        settings = msgspec.structs.replace(settings, retention=section(main, Retention))
    if "questions" in shape.__struct_fields__ and not main.is_set(CONNECTORS, name, "questions"):
        asked = questions_beside(file)
        settings = msgspec.structs.replace(settings, questions=asked)
    bus = section(main, BusSettings)
    keys = bus.keys_dir
    return Loaded(
        file=file,
        settings=settings,
        address=_address(main, name, settings, bus),
        key=(settings.key or handed_over("bus.key") or keys / f"{name}.key") if bus.curve else None,
        server_key=(settings.server_key or keys / "router.pub") if bus.curve else None,
        log=section(main, LogSettings),
        in_clear=tuple(in_clear(tables[name], f"{CONNECTORS}.{name}")),
        idle=tuple(
            f"{main.place(CONNECTORS, name, key)}: "
            + text("connector.idle_key", key=f"{CONNECTORS}.{name}.{key}")
            for key in tables[name]
            if key in shape.idle and key not in shape.__struct_fields__
        ),
        store=section(main, StoreSettings),
    )


def _address(main: Layers, name: str, settings: SessionSettings, bus: BusSettings) -> str:
    if settings.bus:
        if not settings.bus.startswith("inproc://") and (fault := fault_of(settings.bus)):
            main.place(CONNECTORS, name, "bus").fail("config.bad_address", mend=text(fault))
        return settings.bus
    place = main.place("bus", "listen")
    if not bus.listen:
        place.fail("config.empty_listen")
    if fault := fault_of(bus.listen[0]):
        place.fail_to_bind(bus.listen[0], EINVAL, text(fault))
    return _reachable(bus.listen[0])


def _reachable(listen: str) -> str:
    """Return the address to connect to for one that the router listens on."""
    for everywhere in ("//*:", "//0.0.0.0:", "//[::]:"):
        listen = listen.replace(everywhere, "//127.0.0.1:")
    return listen
