"""Where a setting was set, and the one sentence that says what is wrong with it."""

from collections.abc import Iterable
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Final, NoReturn

from proto.configuration.tomlfile import KeyPath
from proto.exits import EX_CONFIG, StartError
from proto.wording import text

BUILT_IN: Final = "built-in"


class ConfigError(StartError):
    """The configuration is wrong: one sentence that names file, line and key, and how to mend it.

    `file` is None for a value of the environment or of a flag, `line` where there is none.
    """

    def __init__(
        self, sentence: str, file: Path | None = None, key: str = "", line: int | None = None
    ) -> None:
        super().__init__(sentence, EX_CONFIG)
        self.file = file
        self.key = key
        self.line = line


@dataclass(frozen=True)
class Place:
    """Where a value was set; `label` is the variable or flag when it was not in a file."""

    key: str
    file: Path | None = None
    line: int | None = None
    label: str = BUILT_IN

    def fail(self, what: str, **fields: object) -> NoReturn:
        """Raise ConfigError: where, then the text `what` filled with `fields` and `key`."""
        sentence = f"{self._where()}: {text(what, key=self.key, **fields)}"
        raise ConfigError(sentence, self.file, self.key, self.line)

    def fail_to_bind(self, address: str, errno: int, mend: str) -> NoReturn:
        """Raise ConfigError for an address that cannot be listened on, in the operator's form."""
        place = f"{self.file or self.label}, {self.key}"
        sentence = text("config.bind", errno=errno, address=address, place=place)
        line = text("config.bind_line", line=self.line) if self.line else ""
        sentence = f"{sentence}{line}: {mend}"
        raise ConfigError(sentence, self.file, self.key, self.line)

    def fail_unknown(self, name: str, known: Iterable[str]) -> NoReturn:
        """Raise ConfigError for `name`, which is none of `known`; say what was probably meant."""
        known = list(known)
        if near := get_close_matches(name, known, 1, 0.6):
            self.fail("config.unknown_key_near", near=near[0], name=name)
        self.fail("config.unknown_key", name=name, known=", ".join(sorted(known)))

    def fail_undefined(self, value: str, known: Iterable[str]) -> NoReturn:
        """Raise ConfigError for a value that has to be one of `known`, which others define."""
        self.fail("config.unknown_value", value=value, hint=hint(value, known))

    def fail_unknown_destination(self, name: str, known: Iterable[str]) -> NoReturn:
        """Raise ConfigError for a destination that routes.toml does not define."""
        self.fail("config.unknown_destination", name=name, hint=hint(name, known))

    def _where(self) -> str:
        if self.file is None:
            return text("config.where_value", label=self.label)
        if self.line is None:
            return str(self.file)
        return text("config.where_line", file=self.file, line=self.line)

    def __str__(self) -> str:
        if self.file is None:
            return self.label
        return f"{self.file}:{self.line}" if self.line else str(self.file)


def hint(name: str, known: Iterable[str]) -> str:
    """Return the end of a sentence that says what was probably meant by `name`, or ""."""
    near = get_close_matches(name, list(known), 1, 0.6)
    return text("config.near", near=near[0]) if near else ""


def dotted_key(key: KeyPath) -> str:
    """Return the key as the administrator reads it: "routes[2].to" counts from 1."""
    parts = [f"[{part + 1}]" if isinstance(part, int) else f".{part}" for part in key]
    return "".join(parts).lstrip(".")


def shown(value: object) -> str:
    """Return a value as it stands in a TOML file, shortened; of a table nothing."""
    if isinstance(value, dict):
        return "{...}"
    if isinstance(value, bool):
        return str(value).lower()
    shown = f'"{value}"' if isinstance(value, str) else str(value)
    return shown if len(shown) <= 60 else f"{shown[:57]}..."
