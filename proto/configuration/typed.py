"""Values of the configuration, each as the type that its setting is declared with."""

import os
import re
import types
from functools import cache
from pathlib import Path
from typing import Annotated, Any, Final, Literal, NoReturn, TypeVar, Union, get_args, get_origin

import msgspec

from proto.configuration.declared import ADDRESS, FORM, KIND, SECRET, mark_of
from proto.configuration.find import find_table
from proto.configuration.layers import Layers, Said, parsed, read_layers
from proto.configuration.place import Place, shown
from proto.configuration.sections import SECTIONS
from proto.configuration.tomlfile import KeyPath
from proto.exits import StartError
from proto.keys import handed_over
from proto.wording import text

Record = TypeVar("Record", bound=msgspec.Struct)
Kind = TypeVar("Kind")

# A user or a password in an address: settings are read by more people than secrets.
_USERINFO: Final = re.compile(r"(?!ipc:)[a-z+]+://([^/?#]*@|\S*[?&](ssl)?password=)", re.IGNORECASE)
_EXPECTED: Final = re.compile(r"Expected `(?P<type>\w+)[^`]*`(?: (?P<rule>.*))?", re.DOTALL)
_BOUNDS: Final = {
    ">=": "config.too_small", "<=": "config.too_large", ">": "config.not_above",
    "<": "config.not_below",
}  # fmt: skip
# What has a word of its own; all else stands in quotes.
_NAMED: Final = (
    "int", "float", "bool", "array", "object", "date", "datetime", "decimal",
)  # fmt: skip
_SEQUENCES: Final = (list, tuple, set, frozenset)


def section(main: Layers, kind: type[Record]) -> Record:
    """Return one of the tables that are for every process. Raises ConfigError."""
    name = next(name for name, one in SECTIONS.items() if one is kind)
    return read(main, kind, name)


def read(layers: Layers, kind: type[Kind], *key: str | int) -> Kind:
    """Return the table at `key` (none: the whole file) as `kind`, its paths absolute. Raises
    ConfigError for the first mistake."""
    value: Any = layers.tree
    for step in key:
        value = value.get(step, {}) if isinstance(value, dict) else value[step]
    return _Reader(layers).value(value, kind, key)  # type: ignore[no-any-return]


def read_table(kind: type[Kind], name: str, given: Path | None = None) -> tuple[Kind, Layers]:
    """Return what the table `name` ("vimis.toml") of the region, or the file that is given instead,
    holds, and where each value stands. Raises ConfigError."""
    layers = read_layers(given or find_table(name))
    return read(layers, kind), layers


class _Reader:
    def __init__(self, layers: Layers) -> None:
        self._layers = layers

    def record(self, kind: type[msgspec.Struct], value: object, key: KeyPath) -> Any:
        if not isinstance(value, dict):
            self._layers.fail_no_table(key, value)
        fields = _fields(kind)
        values: dict[str, Any] = {}
        for name, one in value.items():
            if name in getattr(kind, "idle", ()) and name not in fields:
                continue  # whoever knows the kind tells of it
            if name not in fields:
                self._place((*key, name)).fail_unknown(name, fields)
            values[fields[name].name] = self.value(one, fields[name].type, (*key, name))
        for name, field in fields.items():
            if field.required and field.name not in values:
                place = self._place(key) if key else Place(self._layers.path.name)
                place.fail("config.missing_key", missing=name)
        try:
            return kind(**values)
        except StartError as error:  # what the settings say of themselves, together
            self._place(key).fail("config.rule", problem=error.sentence)

    def value(self, value: object, declared: Any, key: KeyPath) -> Any:
        if isinstance(value, Said):
            value = _meant(value, declared)
        bare = _bare(declared)
        parts = get_args(bare)
        if isinstance(bare, type) and issubclass(bare, msgspec.Struct):
            return self.record(bare, value, key)
        if get_origin(bare) is dict and isinstance(value, dict):
            return {
                self._name(name, parts[0], (*key, name)): self.value(one, parts[1], (*key, name))
                for name, one in value.items()
            }
        if get_origin(bare) in (list, tuple) and isinstance(value, list):
            inner = _bare(parts[0])
            if isinstance(inner, type) and issubclass(inner, msgspec.Struct):
                rows = [self.record(inner, one, (*key, n)) for n, one in enumerate(value)]
                return get_origin(bare)(rows)
        return self._leaf(value, declared, key)

    def _name(self, name: str, declared: Any, key: KeyPath) -> Any:
        """Return the key of a table whose keys are the administrator's."""
        try:
            return msgspec.convert(name, declared, strict=False)
        except msgspec.ValidationError as error:
            choices = get_args(_bare(declared))
            if get_origin(_bare(declared)) is Literal:
                self._place(key).fail_unknown(name, map(str, choices))
            _fail_value(self._place(key), name, declared, str(error))

    def _leaf(self, value: object, declared: Any, key: KeyPath) -> Any:
        for one in value if isinstance(value, list) else [value]:
            if isinstance(one, str) and _USERINFO.match(one):
                self._place(key).fail("config.userinfo")

        def absolute(kind: type, value: object) -> object:
            if kind is not Path or not isinstance(value, str) or not value:
                raise msgspec.ValidationError("Expected `str`")
            base = self._layers.base(key)
            return handed_over(Path(value).name) or Path(os.path.normpath(base / value))

        try:
            found = msgspec.convert(value, declared, strict=True, dec_hook=absolute)
        except msgspec.ValidationError as error:
            _fail_value(self._place(key), value, declared, str(error))
        if mark_of(declared, KIND) == ADDRESS:
            return _rooted(found, self._layers.base(key))
        return found

    def _place(self, key: KeyPath) -> Place:
        return self._layers.place(*key)


@cache
def _fields(kind: type[msgspec.Struct]) -> dict[str, msgspec.structs.FieldInfo]:
    return {field.encode_name: field for field in msgspec.structs.fields(kind)}


def _bare(declared: Any) -> Any:
    """Return a type without its bounds and without None."""
    while get_origin(declared) is Annotated:
        declared = get_args(declared)[0]
    if get_origin(declared) in (Union, types.UnionType):
        parts = [part for part in get_args(declared) if part is not type(None)]
        return _bare(parts[0]) if len(parts) == 1 else declared
    return declared


def _meant(value: str, declared: Any) -> object:
    """Return what a text of the environment or of a flag is for a setting; what does not fit is
    left for the check."""
    bare = _bare(declared)
    found = parsed(value)
    if get_origin(bare) in _SEQUENCES and not isinstance(found, list):
        if _bare(get_args(bare)[0]) is str:
            return [part.strip() for part in value.split(",") if part.strip()]
        return parsed(f"[{value}]")
    if bare in (str, Path) or get_origin(bare) is Literal:
        return found if isinstance(found, str) else str(value)
    return found


def _rooted(addresses: Any, base: Path) -> Any:
    """Make the path of a relative ipc address absolute, as every other path."""
    if isinstance(addresses, tuple):
        return tuple(_rooted(address, base) for address in addresses)
    path = addresses.removeprefix("ipc://")
    if path == addresses or path in ("", "*") or path[0] in "/@":
        return addresses
    return f"ipc://{os.path.normpath(base / path)}"


def _form(declared: Any, rule: str) -> str:
    """Return what a text has to look like, in words where the type has some."""
    if form := mark_of(declared, FORM):
        return text(f"config.form_{form}")
    return rule.removeprefix("matching regex ").strip("'").replace("\\\\", "\\")


def _fail_value(place: Place, value: object, declared: Any, message: str) -> NoReturn:
    message = message.partition(" - at ")[0]
    got = text("config.secret_value") if mark_of(declared, KIND) == SECRET else shown(value)
    if message.startswith("Invalid enum value"):
        choices = ", ".join(f'"{choice}"' for choice in get_args(_bare(declared)))
        place.fail("config.not_a_choice", choices=choices, got=got)
    found = _EXPECTED.match(message)
    if found is None:  # "Invalid decimal string"
        place.fail("config.not_readable", problem=message, got=got)
    rule = found["rule"] or ""
    sign, _, bound = rule.partition(" ")
    if sign in _BOUNDS:
        place.fail(_BOUNDS[sign], bound=bound.removesuffix(".0"), got=got)
    if rule.startswith("of length"):
        place.fail("config.wrong_length", bound=rule.removeprefix("of length "), got=got)
    if rule.startswith("matching regex"):
        place.fail("config.wrong_form", form=_form(declared, rule), got=got)
    kind = found["type"] if found["type"] in _NAMED else "str"
    place.fail("config.wrong_type", expected=text(f"config.type_{kind}"), got=got)
