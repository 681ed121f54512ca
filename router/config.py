"""The configuration as it is loaded: files, layers, and one clear sentence for what is wrong.

Layers, each above the one before: built-in values (`router.settings`), `smpbus.toml` with
`routes.toml` and `permissions.toml` beside it, environment (`SMPBUS_BUS__LISTEN`), flags.
Nothing here touches sockets, keys or the store: what depends on this machine is found at start.
"""

import hashlib
import os
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, NoReturn, TypeVar, get_args, get_origin

import msgspec

from proto.exits import EX_NOPERM
from proto.inclear import in_clear
from proto.retention import Retention
from proto.shipped import shipped_folder
from proto.wording import text
from router.configcheck import check, warnings
from router.place import BUILT_IN, ConfigError, Place, dotted_key, shown
from router.settings import (
    BusSettings,
    Destination,
    LogSettings,
    OpsSettings,
    Permission,
    Route,
    Settings,
    StoreSettings,
)
from router.tomlfile import KeyPath, TomlError, TomlFile

SECTIONS: Final[dict[str, type[msgspec.Struct]]] = {
    "bus": BusSettings,
    "ops": OpsSettings,
    "store": StoreSettings,
    "log": LogSettings,
    "retention": Retention,
}
__all__ = ["ConfigError", "LoadedSettings", "Place", "load", "needs_restart"]

SYSTEM_FILE: Final = Path("/etc/smpbus/smpbus.toml")

Record = TypeVar("Record", bound=msgspec.Struct)


@dataclass(frozen=True)
class LoadedSettings:
    """The settings in force and where each came from.

    `origins` is by dotted key: "built-in", "FILE:LINE", "$VARIABLE" or "flag". `digest` changes
    with any setting. `connectors` are the [connectors.NAME] tables, which the router passes by.
    `overrides` are the flags, which a reload must keep.
    `warnings` are sentences for the administrator about what is allowed but surely not meant.
    """

    settings: Settings
    origins: dict[str, str]
    digest: str
    path: Path
    connectors: dict[str, dict[str, Any]]
    places: dict[str, Place]
    overrides: dict[str, object]
    warnings: tuple[str, ...] = ()

    def place(self, key: str) -> Place:
        """Return where `key` ("bus.listen") was set, for a sentence about it."""
        return self.places.get(key, Place(key))

    def where(self, key: str) -> str:
        """Return "FILE, KEY" of a setting, as the form of a failed bind wants it."""
        place = self.place(key)
        return f"{place.file or place.label}, {key}"


def find_file(given: Path | None, environ: Mapping[str, str]) -> Path:
    """Return the absolute path of smpbus.toml: given, $SMPBUS_CONFIG, /etc, the one brought along.

    A folder stands for the smpbus.toml in it.
    """
    path = given
    if path is None and environ.get("SMPBUS_CONFIG"):
        path = Path(environ["SMPBUS_CONFIG"])
    if path is None:
        path = SYSTEM_FILE if SYSTEM_FILE.exists() else shipped_folder() / "smpbus.toml"
    path = path.absolute()
    return path / "smpbus.toml" if path.is_dir() else path


def load(
    path: Path | None = None,
    overrides: Mapping[str, object] | None = None,
    environ: Mapping[str, str] | None = None,
    *,
    whole: bool = True,
) -> LoadedSettings:
    """Load all layers. `overrides` are flags by dotted key ("store.folder"); None is not given.

    With `whole` False routes.toml and permissions.toml are left unread: a command that only wants
    an address or a folder works while they are being edited. Raises ConfigError.
    """
    environ = os.environ if environ is None else environ
    loader = _Loader(find_file(path, environ), whole)
    loader.read_environment(environ)
    loader.read_flags(overrides or {})
    settings = loader.settings()
    check(settings, loader.place)
    return LoadedSettings(
        settings=settings,
        origins=loader.origins(settings),
        digest=digest_of(settings),
        path=loader.main.path,
        connectors=loader.connectors,
        places=loader.places,
        overrides=dict(overrides or {}),
        warnings=(*warnings(settings), *in_clear(loader.connectors, "connectors")),
    )


# What a reload puts in force; all other keys of smpbus.toml are read at the start.
RELOADED: Final = {
    "bus": ("body_bytes_max", "sessions_max", "session_timeout_ms", "unread_bytes_max",
            "unread_bytes_total", "gather_bytes_max", "share_bytes_max", "errors_max",
            "waiting_bytes_max"),
    "store": ("history_hours", "dedup_hours", "free_bytes_min"),
    "ops": ("look", "change"),
    "log": ("level",),
    "retention": Retention.__struct_fields__,
}  # fmt: skip


def needs_restart(old: Settings, new: Settings) -> list[str]:
    """Return the dotted keys that differ and that only a restart puts in force."""
    return [
        f"{section}.{field}"
        for section in SECTIONS
        for field in getattr(new, section).__struct_fields__
        if field not in RELOADED.get(section, ())
        and getattr(getattr(old, section), field) != getattr(getattr(new, section), field)
    ]


def digest_of(settings: Settings) -> str:
    """Return 12 hexadecimal digits that change with any setting."""
    encoded = msgspec.json.encode(settings, enc_hook=str, order="sorted")
    return hashlib.sha256(encoded).hexdigest()[:12]


class _Loader:
    """Gathers the layers of one load."""

    def __init__(self, path: Path, whole: bool) -> None:
        self.places: dict[str, Place] = {}
        self.main = _read_file(path)
        beside = [path.with_name("routes.toml"), path.with_name("permissions.toml")]
        self.routes, self.permissions = (
            _read_file(file) if whole else TomlFile(file, "", {}) for file in beside
        )
        self._check_names(self.main, (*SECTIONS, "connectors"))
        self._check_names(self.routes, ("destinations", "routes"))
        self._check_names(self.permissions, ("peers",))
        self.connectors = self._tables(self.main, "connectors")
        self._values: dict[str, dict[str, object]] = {}
        for section in SECTIONS:
            self._values[section] = dict(self._table(self.main, section))
            for key in self._values[section]:
                self._note((section, key), self.main)

    def read_environment(self, environ: Mapping[str, str]) -> None:
        """Take every SMPBUS_SECTION__KEY."""
        for variable, value in sorted(environ.items()):
            if not variable.startswith("SMPBUS_") or "__" not in variable:
                continue
            section, _, key = variable.removeprefix("SMPBUS_").lower().partition("__")
            if section == "connectors":
                continue
            place = Place(f"{section}.{key}", label=f"${variable}")
            if section not in SECTIONS:
                place.fail_unknown(section, SECTIONS)
            self._override(section, key, _typed(value, section, key), place)

    def read_flags(self, overrides: Mapping[str, object]) -> None:
        """Take what was said on the command line."""
        for dotted, value in overrides.items():
            if value is None:
                continue
            section, _, key = dotted.partition(".")
            typed = _typed(value, section, key) if isinstance(value, str) else value
            self._override(section, key, typed, Place(dotted, label="flag"))

    def settings(self) -> Settings:
        """Check every value's shape and make the settings."""
        sections = {name: self._section(name, kind) for name, kind in SECTIONS.items()}
        destinations = {
            name: self._record(Destination, table, self.routes, ("destinations", name))
            for name, table in self._tables(self.routes, "destinations").items()
        }
        permissions = {
            name: self._record(Permission, table, self.permissions, ("peers", name))
            for name, table in self._tables(self.permissions, "peers").items()
        }
        return Settings(
            **sections,  # type: ignore[arg-type]
            destinations=destinations,
            routes=self._routes(),
            permissions=permissions,
        )

    def place(self, *key: str | int) -> Place:
        """Return where `key` was set, or its nearest parent."""
        dotted = dotted_key(key)
        if dotted in self.places:
            return self.places[dotted]
        file = {"destinations": self.routes, "routes": self.routes, "peers": self.permissions}.get(
            str(key[0]), self.main
        )
        return Place(dotted, file.path, file.line(key))

    def origins(self, settings: Settings) -> dict[str, str]:
        """Return where each setting came from, by dotted key."""
        origins = {}
        for section in SECTIONS:
            for field in msgspec.structs.fields(getattr(settings, section)):
                key = f"{section}.{field.name}"
                origins[key] = str(self.places.get(key, BUILT_IN))
        for name in settings.destinations:
            origins[f"destinations.{name}"] = str(self.place("destinations", name))
        for index in range(len(settings.routes)):
            origins[f"routes[{index + 1}]"] = str(self.place("routes", index))
        for name in settings.permissions:
            origins[f"peers.{name}"] = str(self.place("peers", name))
        return origins

    def _section(self, name: str, kind: type[Record]) -> Record:
        table = self._values[name]
        folder = self.main.path.parent
        values: dict[str, Any] = {}
        for key, value in table.items():
            place = self.places[f"{name}.{key}"]
            base = folder if place.file else Path.cwd()
            read = _convert(value, _field_type(kind, key, place), place, base)
            values[key] = _rooted(read, base) if key in ("listen", "events") else read
        if name == "bus" and "keys_dir" in values and "key" not in values:
            values["key"] = values["keys_dir"] / "router.key"
            self.places["bus.key"] = self.places["bus.keys_dir"]
        return kind(**values)

    def _record(self, kind: type[Record], table: object, file: TomlFile, path: KeyPath) -> Record:
        place = Place(dotted_key(path), file.path, file.line(path))
        if not isinstance(table, dict):
            place.fail("config.wrong_type", expected=text("config.type_object"), got=shown(table))
        values: dict[str, Any] = {}
        for key, value in table.items():
            inner = (*path, key)
            here = Place(dotted_key(inner), file.path, file.line(inner))
            wanted = _field_type(kind, key, here)
            if isinstance(wanted, type) and issubclass(wanted, msgspec.Struct):
                values[key] = self._record(wanted, value, file, inner)
            else:
                values[key] = _convert(value, wanted, here, file.path.parent)
        for field in msgspec.structs.fields(kind):
            if field.required and field.name not in values:
                place.fail("config.missing_key", missing=field.name)
        return kind(**values)

    def _routes(self) -> list[Route]:
        tables = self.routes.tree.get("routes", [])
        if not isinstance(tables, list):
            place = Place("routes", self.routes.path, self.routes.line(("routes",)))
            place.fail("config.routes_form")
        return [
            self._record(Route, table, self.routes, ("routes", index))
            for index, table in enumerate(tables)
        ]

    def _table(self, file: TomlFile, name: str) -> dict[str, Any]:
        table = file.tree.get(name, {})
        if not isinstance(table, dict):
            place = Place(name, file.path, file.line((name,)))
            place.fail("config.wrong_type", expected=text("config.type_object"), got=shown(table))
        return table

    def _tables(self, file: TomlFile, name: str) -> dict[str, dict[str, Any]]:
        tables = self._table(file, name)
        for inner, table in tables.items():
            if not isinstance(table, dict):
                place = Place(f"{name}.{inner}", file.path, file.line((name, inner)))
                expected = text("config.type_object")
                place.fail("config.wrong_type", expected=expected, got=shown(table))
        return tables

    def _check_names(self, file: TomlFile, known: tuple[str, ...]) -> None:
        for name in file.tree:
            if name not in known:
                Place(name, file.path, file.line((name,))).fail_unknown(name, known)

    def _note(self, key: KeyPath, file: TomlFile) -> None:
        dotted = dotted_key(key)
        self.places[dotted] = Place(dotted, file.path, file.line(key))

    def _override(self, section: str, key: str, value: object, place: Place) -> None:
        self._values[section][key] = value
        self.places[f"{section}.{key}"] = place


def _read_file(path: Path) -> TomlFile:
    try:
        return TomlFile.read(path)
    except FileNotFoundError:
        sentence = text("config.missing_file", file=path, folder=shipped_folder())
        raise ConfigError(sentence, path) from None
    except OSError as error:
        sentence = text("config.unreadable", file=path, reason=error.strerror)
        failure = ConfigError(sentence, path)
        if isinstance(error, PermissionError):
            failure.exit_code = EX_NOPERM
        raise failure from None
    except TomlError as error:
        Place("", path, error.line).fail("config.not_toml", reason=error.reason)


def _typed(value: str, section: str, key: str) -> object:
    """Make of a variable's text what the key wants; what does not fit is left for `_convert`."""
    kind = SECTIONS.get(section)
    wanted = {f.name: f.type for f in msgspec.structs.fields(kind)}.get(key) if kind else None
    if wanted == tuple[str, ...] and not value.lstrip().startswith("["):
        return [part.strip() for part in value.split(",") if part.strip()]
    if wanted in (str, Path) or get_origin(wanted) is Literal:
        return value
    try:
        return tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return value


def _rooted(addresses: Any, base: Path) -> Any:
    """Make the path of a relative ipc address absolute, as every other path."""
    if isinstance(addresses, tuple):
        return tuple(_rooted(address, base) for address in addresses)
    path = addresses.removeprefix("ipc://")
    if path == addresses or path in ("", "*") or path[0] in "/@":
        return addresses
    return f"ipc://{os.path.normpath(base / path)}"


def _field_type(kind: type[msgspec.Struct], key: str, place: Place) -> Any:
    types = {field.name: field.type for field in msgspec.structs.fields(kind)}
    if key not in types:
        place.fail_unknown(key, types)
    return types[key]


def _convert(value: object, wanted: Any, place: Place, folder: Path) -> Any:
    def absolute(kind: type, value: object) -> object:
        if kind is not Path or not isinstance(value, str) or not value:
            raise msgspec.ValidationError("Expected `str`")
        return Path(os.path.normpath(folder / value))

    try:
        return msgspec.convert(value, wanted, strict=True, dec_hook=absolute)
    except msgspec.ValidationError as error:
        _fail_value(place, value, wanted, str(error))


def _fail_value(place: Place, value: object, wanted: Any, message: str) -> NoReturn:
    message = message.partition(" - at ")[0]
    got = shown(value)
    if message.startswith("Invalid enum value"):
        choices = ", ".join(f'"{choice}"' for choice in get_args(wanted))
        place.fail("config.not_a_choice", choices=choices, got=got)
    expected = message.split("`")[1].partition(" ")[0]
    _, _, bound = message.partition("` ")
    for sign, what in ((">=", "config.too_small"), ("<=", "config.too_large")):
        if bound.startswith(sign):
            place.fail(what, bound=bound.removeprefix(sign).strip().removesuffix(".0"), got=got)
    place.fail("config.wrong_type", expected=text(f"config.type_{expected}"), got=got)
