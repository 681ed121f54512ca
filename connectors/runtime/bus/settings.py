"""A connector's settings: its own `[connectors.NAME]` table of smpbus.toml, and where the bus is.

Layers, the later one holds: defaults of the structs, the file, the environment
(`SMPBUS_CONNECTORS__SYS112__LISTEN=...`, `SMPBUS_BUS__KEYS_DIR=...`). Relative paths are relative
to the folder of the file. Every mistake names the file and the key.
"""

import os
import re
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec

from connectors.runtime.door.doorsettings import CallerName, CallerSettings, DoorTls
from connectors.runtime.door.gate import HttpSettings
from connectors.runtime.partner.partner import PartnerSettings
from proto.exits import StartError
from proto.inclear import in_clear
from proto.keys import handed_over
from proto.pattern import exactly
from proto.retention import Retention
from proto.shipped import shipped_folder
from proto.wording import text

_ADDRESS: Final = re.compile(r"ipc://[^\0]+|tcp://[^\s/\0]+:[0-9]{1,5}|inproc://.+")
TABLES: Final = ("bus", "connectors", "log", "ops", "retention")
DESTINATION: Final = r"\A([a-z][a-z0-9_-]{0,63})?\Z"
ENVIRONMENT_PREFIX: Final = "SMPBUS_"
SEARCHED: Final = (
    Path("/etc/smpbus/smpbus.toml"),
    shipped_folder() / "smpbus.toml",
)
_UNKNOWN = re.compile(r"^Object contains unknown field `([^`]*)`(.*)\Z")
_USERINFO = re.compile(r"[a-z+]+://([^/?#]*@|\S*[?&](ssl)?password=)", re.IGNORECASE)
_AT = re.compile(r" - at `\$\.?(.*)`\Z")


# HOST:PORT
Listen = Annotated[str, msgspec.Meta(pattern=exactly(r".+:[0-9]{1,5}"))]


class ConnectorSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """What every connector needs; a connector's own struct adds to it.

    `bus` is the router's address ("" is the first of [bus] listen); `listen` is where the partner
    calls in, and only from the networks in `allow`, and only who is one of the `callers`; a door
    that anybody may use says so: `open`. With `tls` it speaks TLS itself. `accept_timeout_s` is how
    long a partner waits for the router's ACCEPTED before it is told to repeat after `retry_after_s`
    seconds; `http` has the limits of the door. At a stop what is under way has `stop_s` to end; a
    second later the process is gone, whatever hangs. `retention` is the file's own table of that
    name. Who looked at whose data is written down in `access_folder` (None: NAME/access in the
    folder of the journal).
    """

    partner: PartnerSettings
    bus: str = ""
    key: Path | None = None
    server_key: Path | None = None
    destination: Annotated[str, msgspec.Meta(pattern=DESTINATION)] = ""
    credit: Annotated[int, msgspec.Meta(ge=1, le=10_000)] = 32
    listen: Listen
    allow: tuple[str, ...] = ("127.0.0.0/8", "::1/128")
    body_bytes_max: Annotated[int, msgspec.Meta(ge=1024)] = 512 * 1024
    accept_timeout_s: Annotated[float, msgspec.Meta(gt=0, le=300)] = 5.0
    retry_after_s: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 3
    stop_s: Annotated[float, msgspec.Meta(ge=0, le=60)] = 4.0
    access_folder: Path | None = None
    http: HttpSettings = HttpSettings()
    retention: Retention = Retention()
    open: bool = False
    callers: dict[CallerName, CallerSettings] = {}
    tls: DoorTls | None = None


class _Bus(msgspec.Struct, frozen=True):
    listen: tuple[str, ...] = ("ipc:///run/smpbus/bus.sock",)
    curve: bool = True
    keys_dir: Path = Path("/etc/smpbus/keys")


class StoreSettings(msgspec.Struct, frozen=True):
    """[store], as far as it is for all: where the bus keeps its state, and how long and in how
    large files each process keeps its journal of accesses."""

    folder: Path = Path("/var/lib/smpbus")
    access_days: Annotated[int, msgspec.Meta(ge=1, le=3660)] = 366
    access_file_mib: Annotated[int, msgspec.Meta(ge=1, le=1024)] = 16


class LogSettings(msgspec.Struct, frozen=True):
    """[log]: the operator's language, and how much is logged."""

    language: Literal["ru", "en"] = "ru"
    level: Literal["debug", "info", "warning", "error"] = "info"


@dataclass(frozen=True)
class Loaded:
    """Everything a connector process is told: from which file, and what."""

    file: Path
    settings: ConnectorSettings
    address: str
    key: Path | None
    server_key: Path | None
    log: LogSettings
    in_clear: tuple[str, ...] = ()  # sentences about what goes over a network unprotected
    store: StoreSettings = field(default_factory=StoreSettings)


def find_config(given: Path | None) -> Path:
    """Return the file to read: given, $SMPBUS_CONFIG, /etc, the one that came with the program."""
    named = given or (Path(os.environ["SMPBUS_CONFIG"]) if "SMPBUS_CONFIG" in os.environ else None)
    if named is not None:
        return (named / "smpbus.toml" if named.is_dir() else named).absolute()
    for path in SEARCHED:
        if path.is_file():
            return path
    raise StartError(text("connector.no_config", path=SEARCHED[0]))


def tables(file: Path) -> dict[str, Any]:
    """Return the tables of the file, unchecked, the environment over them. Raises StartError."""
    tree = _read_file(file)
    _overlay(tree, os.environ)
    for key in TABLES:
        _check_table(tree.setdefault(key, {}), file, key)
    for name, table in tree["connectors"].items():
        _check_table(table, file, f"connectors.{name}")
    return tree


def load(name: str, shape: type[ConnectorSettings], file: Path) -> Loaded:
    """Read the settings of connector `name` as `shape`. Raises StartError."""
    tree = tables(file)
    table = tree["connectors"].get(name)
    if table is None:
        raise StartError(text("connector.no_table", file=file, name=name))
    for key in _with_userinfo(table, f"connectors.{name}"):
        raise StartError(text("connector.userinfo_in_url", file=file, key=key))
    settings = _convert(_absolute(table, file.parent), shape, file, f"connectors.{name}")
    if "retention" not in table:
        retention = _convert(tree.get("retention", {}), Retention, file, "retention")
        settings = msgspec.structs.replace(settings, retention=retention)
    router = _absolute(tree["bus"], file.parent)
    if isinstance(router.get("listen"), str):  # as $SMPBUS_BUS__LISTEN has it
        router["listen"] = [part.strip() for part in router["listen"].split(",")]
    bus = _convert(router, _Bus, file, "bus")
    log = _convert(tree["log"], LogSettings, file, "log")
    keys = bus.keys_dir
    return Loaded(
        file=file,
        settings=settings,
        address=_address(name, settings, bus, file),
        key=(settings.key or handed_over("bus.key") or keys / f"{name}.key") if bus.curve else None,
        server_key=(settings.server_key or keys / "router.pub") if bus.curve else None,
        log=log,
        in_clear=tuple(in_clear(table, f"connectors.{name}")),
        store=_convert(_absolute(tree.get("store", {}), file.parent), StoreSettings, file, "store"),
    )


def read_retention(file: Path) -> Retention:
    """Return the table [retention] of a file. Raises StartError."""
    return _convert(tables(file).get("retention", {}), Retention, file, "retention")


def _address(name: str, settings: ConnectorSettings, bus: _Bus, file: Path) -> str:
    key = f"connectors.{name}.bus" if settings.bus else "bus.listen"
    if not settings.bus and not bus.listen:
        raise StartError(f"{file}: {text('config.empty_listen', key=key)}")
    address = settings.bus or _reachable(bus.listen[0])
    if not _ADDRESS.fullmatch(address):
        raise StartError(f"{file}: {key}: {text('config.address_form')}")
    return address


def _reachable(listen: str) -> str:
    """Return the address to connect to for one that the router listens on."""
    for everywhere in ("//*:", "//0.0.0.0:", "//[::]:"):
        listen = listen.replace(everywhere, "//127.0.0.1:")
    return listen


def _read_file(file: Path) -> dict[str, Any]:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except OSError as error:
        raise StartError(f"{file}: {error.strerror}") from None
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise StartError(f"{file}: {error}") from None


def _overlay(tree: dict[str, Any], environment: "os._Environ[str] | dict[str, str]") -> None:
    for variable, value in environment.items():
        steps = variable.removeprefix(ENVIRONMENT_PREFIX).lower().split("__")
        if not variable.startswith(ENVIRONMENT_PREFIX) or len(steps) < 2:
            continue
        table: Any = tree
        for step in steps[:-1]:
            table = table.setdefault(step, {})
            if not isinstance(table, dict):
                raise StartError(text("connector.bad_variable", variable=variable))
        table[steps[-1]] = _value(value)


def _value(value: str) -> Any:
    try:
        return tomllib.loads(f"v = {value}")["v"]
    except tomllib.TOMLDecodeError:
        return value


def _absolute(table: Any, folder: Path) -> Any:
    """Make the paths of a table absolute; a path is what a key ending like one holds."""
    if not isinstance(table, dict):
        return table
    result: dict[str, Any] = {}
    for key, value in table.items():
        if isinstance(value, str) and value and key.endswith(("key", "_file", "_dir", "folder")):
            result[key] = str(handed_over(Path(value).name) or folder / value)
        else:
            result[key] = _absolute(value, folder)
    return result


Shape = TypeVar("Shape", bound=msgspec.Struct)


def _convert(table: Any, shape: type[Shape], file: Path, key: str) -> Shape:
    try:
        return msgspec.convert(table, shape, dec_hook=_path)
    except msgspec.ValidationError as error:
        raise StartError(_sentence(str(error), file, key)) from None


def _check_table(table: Any, file: Path, key: str) -> None:
    try:
        msgspec.convert(table, dict)
    except msgspec.ValidationError as error:
        raise StartError(_sentence(str(error), file, key)) from None


def _with_userinfo(value: Any, key: str) -> Iterator[str]:
    """Yield the keys of addresses that name a user, or hold a password: settings are read by
    more people than secrets, and addresses are told in errors."""
    if isinstance(value, dict):
        for name, one in value.items():
            yield from _with_userinfo(one, f"{key}.{name}")
    elif isinstance(value, list):
        for index, one in enumerate(value):
            yield from _with_userinfo(one, f"{key}[{index}]")
    elif isinstance(value, str) and _USERINFO.match(value):
        yield key


def _path(kind: type, value: object) -> object:
    if kind is Path and isinstance(value, str):
        return Path(value)
    raise msgspec.ValidationError(f"Expected `str`, got `{type(value).__name__}`")


def _sentence(problem: str, file: Path, key: str) -> str:
    at = _AT.search(problem)
    where = f"{key}.{at[1]}" if at and at[1] else key
    bare = _AT.sub("", problem)
    if unknown := _UNKNOWN.match(bare):
        return text("connector.unknown_key", file=file, key=f"{where}.{unknown[1]}")
    return text("connector.bad_value", file=file, key=where, problem=bare)
