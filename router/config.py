"""The router's configuration: smpbus.toml with routes.toml and permissions.toml beside it.

Nothing here touches sockets, keys or the store: what depends on this machine is found at start.
"""

import hashlib
import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import msgspec

from proto.configuration.find import find_file
from proto.configuration.layers import Layers, read_layers, read_main
from proto.configuration.place import BUILT_IN, ConfigError, Place, dotted_key
from proto.configuration.questions import questions_of
from proto.configuration.sections import CONNECTORS, SECTIONS, BusSettings
from proto.configuration.tomlfile import KeyPath, TomlFile
from proto.configuration.typed import read, section
from proto.inclear import in_clear
from proto.retention import Retention
from router.configcheck import check, warnings
from router.settings import Destination, Permission, Route, Settings

__all__ = ["ConfigError", "LoadedSettings", "Place", "find_file", "load", "needs_restart"]

Record = TypeVar("Record", bound=msgspec.Struct)


@dataclass(frozen=True)
class LoadedSettings:
    """The settings in force and where each came from.

    `origins` is by dotted key: "built-in", "FILE:LINE", "$VARIABLE" or "flag". `digest` changes
    with any setting. `main` has the [connectors.NAME] tables, which the router passes by.
    `overrides` are the flags, which a reload must keep.
    `warnings` are sentences for the administrator about what is allowed but surely not meant.
    """

    settings: Settings
    origins: dict[str, str]
    digest: str
    main: Layers
    overrides: dict[str, object]
    warnings: tuple[str, ...] = ()

    @property
    def path(self) -> Path:
        """The file smpbus.toml."""
        return self.main.path

    @property
    def connectors(self) -> dict[str, dict[str, Any]]:
        """The tables of the connectors, by name, unchecked."""
        return self.main.tables(CONNECTORS)

    def place(self, key: str) -> Place:
        """Return where `key` ("bus.listen") was set, for a sentence about it."""
        return _set_at(self.main, key) or Place(key)

    def where(self, key: str) -> str:
        """Return "FILE, KEY" of a setting, as the form of a failed bind wants it."""
        place = self.place(key)
        return f"{place.file or place.label}, {key}"


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
    loader = _Loader(read_main(find_file(path, environ), environ, overrides), whole)
    settings = loader.settings()
    check(settings, loader.place)
    connectors = loader.main.table(CONNECTORS)
    return LoadedSettings(
        settings=settings,
        origins=loader.origins(settings),
        digest=digest_of(settings),
        main=loader.main,
        overrides=dict(overrides or {}),
        warnings=(*warnings(settings), *in_clear(connectors, CONNECTORS)),
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


def _set_at(main: Layers, dotted: str) -> Place | None:
    """Return where one of the tables for all is set, None where it is built in."""
    key = tuple(dotted.split("."))
    return main.place(*key) if main.is_set(*key) else None


class _Loader:
    """Gathers the three files of one load."""

    def __init__(self, main: Layers, whole: bool) -> None:
        self.main = main
        beside = [main.path.with_name(f"{name}.toml") for name in ("routes", "permissions")]
        self.routes, self.permissions = (
            read_layers(file) if whole else Layers(TomlFile(file, "", {})) for file in beside
        )
        self.routes.check_names(("destinations", "questions", "routes"))
        self.permissions.check_names(("peers",))

    def settings(self) -> Settings:
        """Check every value's shape and make the settings."""
        sections = {name: section(self.main, kind) for name, kind in SECTIONS.items()}
        sections["bus"] = self._with_key(section(self.main, BusSettings))
        return Settings(
            **sections,  # type: ignore[arg-type]
            destinations=_named(self.routes, Destination, "destinations"),
            questions=questions_of(self.routes),
            routes=self._routes(),
            permissions=_named(self.permissions, Permission, "peers"),
        )

    def place(self, *key: str | int) -> Place:
        """Return where `key` was set, or its nearest parent."""
        files = {"peers": self.permissions} | dict.fromkeys(
            ("destinations", "questions", "routes"), self.routes
        )
        return files.get(str(key[0]), self.main).place(*key)

    def origins(self, settings: Settings) -> dict[str, str]:
        """Return where each setting came from, by dotted key."""
        origins = {}
        for name, kind in SECTIONS.items():
            for field in kind.__struct_fields__:
                key = f"{name}.{field}"
                origins[key] = str(_set_at(self.main, key) or BUILT_IN)
        keys: list[KeyPath] = [("destinations", name) for name in settings.destinations]
        if self.routes.is_set("questions"):
            keys += [("questions", type) for type in settings.questions]
        keys += [("routes", index) for index in range(len(settings.routes))]
        keys += [("peers", name) for name in settings.permissions]
        return origins | {dotted_key(key): str(self.place(*key)) for key in keys}

    def _with_key(self, bus: BusSettings) -> BusSettings:
        """With keys_dir alone router.key in it is meant."""
        if not self.main.is_set("bus", "keys_dir") or self.main.is_set("bus", "key"):
            return bus
        self.main.stand_for(("bus", "key"), ("bus", "keys_dir"))
        return msgspec.structs.replace(bus, key=bus.keys_dir / "router.key")

    def _routes(self) -> list[Route]:
        tables = self.routes.tree.get("routes", [])
        if not isinstance(tables, list):
            self.routes.place("routes").fail("config.routes_form")
        return [read(self.routes, Route, "routes", index) for index in range(len(tables))]


def _named(layers: Layers, kind: type[Record], table: str) -> dict[str, Record]:
    return {name: read(layers, kind, table, name) for name in layers.tables(table)}
