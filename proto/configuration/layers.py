"""One file of the configuration, what overrides it, and where each value was set.

Layers, each above the one before: the defaults of the declared types, the file, the environment
(`SMPBUS_CONNECTORS__SYS112__LISTEN=...`), flags.
"""

import copy
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final, NoReturn

from proto.configuration.place import ConfigError, Place, dotted_key, shown
from proto.configuration.sections import CONNECTORS, SECTIONS
from proto.configuration.shipped import shipped_folder
from proto.configuration.tomlfile import KeyPath, TomlError, TomlFile
from proto.exits import EX_NOPERM
from proto.wording import text

PREFIX: Final = "SMPBUS_"


class Said(str):
    """A value as a variable or a flag has it: text, until it is read as what its setting is."""

    __slots__ = ()


class Layers:
    """The tree of a file with what is said over it."""

    def __init__(self, file: TomlFile) -> None:
        self.file = file
        self.tree: dict[str, Any] = copy.deepcopy(file.tree)
        self._said: dict[KeyPath, Place] = {}

    @property
    def path(self) -> Path:
        """The file."""
        return self.file.path

    def say(self, key: KeyPath, value: object, label: str) -> None:
        """Set a value over that of the file; `label` is the variable or the flag."""
        place = Place(dotted_key(key), label=label)
        table = self.tree
        for depth, step in enumerate(key[:-1], 1):
            inner = table.get(str(step))
            if not isinstance(inner, dict):
                inner = table[str(step)] = _table_of(inner)
                self._said[key[:depth]] = Place(dotted_key(key[:depth]), label=label)
            table = inner
        table[str(key[-1])] = value
        self._said[key] = place

    def stand_for(self, key: KeyPath, other: KeyPath) -> None:
        """Let `key` have been set where `other` was."""
        self._said[key] = self.place(*other)

    def place(self, *key: str | int) -> Place:
        """Return where `key`, or the nearest table around it, was set."""
        for length in range(len(key), 0, -1):
            if said := self._said.get(key[:length]):
                return said if length == len(key) else Place(dotted_key(key), label=said.label)
        return Place(dotted_key(key), self.path, self.file.line(key))

    def is_set(self, *key: str | int) -> bool:
        """Whether anything is said of `key`."""
        value: Any = self.tree
        for step in key:
            if not isinstance(value, dict) or step not in value:
                return key in self._said
            value = value[step]
        return True

    def base(self, key: KeyPath) -> Path:
        """Return the folder from which a relative path at `key` starts: that of the file, and where
        the process was started for a flag or a variable of a table that is for all."""
        elsewhere = self.place(*key).file is None and key[0] != CONNECTORS
        return Path.cwd() if elsewhere else self.path.parent

    def table(self, *key: str | int) -> dict[str, Any]:
        """Return the table at `key`, empty when nothing is said of it. Raises ConfigError."""
        value: Any = self.tree
        for depth, step in enumerate(key, 1):
            value = value.get(step, {})
            if not isinstance(value, dict):
                self.fail_no_table(key[:depth], value)
        return dict(value)

    def tables(self, *key: str) -> dict[str, dict[str, Any]]:
        """Return the tables in the one at `key`. Raises ConfigError for what is none."""
        return {name: self.table(*key, name) for name in self.table(*key)}

    def fail_no_table(self, key: KeyPath, value: object) -> NoReturn:
        """Raise ConfigError: something else stands where a table is to be."""
        expected = text("config.type_object")
        self.place(*key).fail("config.wrong_type", expected=expected, got=shown(value))

    def check_names(self, known: tuple[str, ...]) -> None:
        """Raise ConfigError for a table that the file cannot have."""
        for name in self.tree:
            if name not in known:
                self.place(name).fail_unknown(name, known)


def _table_of(value: object) -> dict[str, Any]:
    """A variable's table that another variable adds to."""
    if isinstance(value, Said):
        from_text = parsed(value)
        return from_text if isinstance(from_text, dict) else {}
    return {}


def parsed(value: str) -> object:
    """Return what a text is as a TOML value, or the text itself."""
    try:
        return tomllib.loads(f"value = {value}")["value"]
    except tomllib.TOMLDecodeError:
        return str(value)


def read_layers(path: Path) -> Layers:
    """Read a file. Raises ConfigError."""
    try:
        return Layers(TomlFile.read(path))
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


def read_main(
    path: Path,
    environ: Mapping[str, str] | None = None,
    flags: Mapping[str, object] | None = None,
) -> Layers:
    """Read smpbus.toml as every process does, the environment over it, and flags by dotted key
    ("store.folder"; None is not given). Raises ConfigError, for a section that there is not, too.
    """
    main = read_layers(path)
    main.check_names((*SECTIONS, CONNECTORS))
    for variable, value in sorted((os.environ if environ is None else environ).items()):
        if variable.startswith(PREFIX) and "__" in variable:
            key = tuple(variable.removeprefix(PREFIX).lower().split("__"))
            if key[0] not in (*SECTIONS, CONNECTORS):
                Place(dotted_key(key), label=f"${variable}").fail_unknown(key[0], SECTIONS)
            main.say(key, Said(value), f"${variable}")
    for dotted, given in (flags or {}).items():
        if given is not None:
            main.say(tuple(dotted.split(".")), Said(given) if isinstance(given, str) else given,
                     "flag")  # fmt: skip
    for name in SECTIONS:
        main.table(name)
    main.tables(CONNECTORS)
    return main
