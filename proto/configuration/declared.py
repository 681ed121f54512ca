"""Types to declare settings with, where `str` or `Path` does not say enough."""

from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Final

import msgspec

from proto.pattern import exactly

KIND: Final = "setting"
FORM: Final = "form"
ADDRESS: Final = "address"
SECRET: Final = "secret"
READ: Final = "read"
READ_SECRET: Final = "read_secret"

# An address of ZeroMQ; the path of a relative ipc:// one starts from the folder of the file.
Address = Annotated[str, msgspec.Meta(extra={KIND: ADDRESS})]
# Text that no sentence and no command may show. Better is a file of its own: `SecretFile`.
SecretText = Annotated[str, msgspec.Meta(extra={KIND: SECRET})]
# Where somebody is listened to, HOST:PORT.
Listen = Annotated[str, msgspec.Meta(pattern=exactly(r".+:[0-9]{1,5}"), extra={FORM: "host_port"})]
# A file that has to be there when the process starts; `SecretFile` is its owner's alone.
ReadFile = Annotated[Path, msgspec.Meta(extra={KIND: READ})]
SecretFile = Annotated[Path, msgspec.Meta(extra={KIND: READ_SECRET})]


def mark_of(declared: Any, mark: str) -> str:
    """Return what a type is marked with, alone, with None or in a tuple: `KIND` says which of the
    types above it is, `FORM` which text (config.form_...) tells what it has to look like."""
    for meta in getattr(declared, "__metadata__", ()):
        if isinstance(meta, msgspec.Meta) and meta.extra and mark in meta.extra:
            return str(meta.extra[mark])
    parts = (part for part in getattr(declared, "__args__", ()) if part is not Ellipsis)
    return next((found for part in parts if (found := mark_of(part, mark))), "")


def marked(settings: Any, *marks: str, key: str = "") -> Iterator[tuple[str, Any, str]]:
    """Yield dotted key, value and mark of what is declared as one of the marked types and is set,
    wherever in the settings it is."""
    for field in msgspec.structs.fields(settings):
        value = getattr(settings, field.name)
        here = f"{key}.{field.encode_name}" if key else field.encode_name
        if (mark := mark_of(field.type, KIND)) in marks and value is not None:
            yield here, value, mark
        inner = value.items() if isinstance(value, dict) else [("", value)]
        for name, one in inner:
            if isinstance(one, msgspec.Struct):
                yield from marked(one, *marks, key=f"{here}.{name}" if name else here)
