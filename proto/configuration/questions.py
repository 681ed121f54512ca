"""Which destination answers which question: [questions] of routes.toml.

The router only passes questions on to whom they are put; this is for who puts them.
"""

from pathlib import Path
from typing import Annotated, Final

import msgspec

from proto.configuration.declared import FORM
from proto.configuration.layers import Layers, read_layers
from proto.configuration.typed import read
from proto.pattern import exactly

KEY: Final = "questions"
Type = Annotated[
    str, msgspec.Meta(pattern=exactly(r"[a-z0-9_]+(\.[a-z0-9_]+)+"), extra={FORM: "type"})
]
Questions = dict[Type, str]
# Where routes.toml has no such table.
BUILT_IN: Final[Questions] = {
    "patient.lookup.v1": "rmis",
    "patient.summary.v1": "rmis",
    "hospital.list.v1": "rmis",
    "insurance.lookup.v1": "tfoms",
    "worker.lookup.v1": "rmr",
}


def questions_of(routes: Layers) -> Questions:
    """Return the table of routes.toml, or the one that is built in. Raises ConfigError."""
    return read(routes, Questions, KEY) if routes.is_set(KEY) else dict(BUILT_IN)


def questions_beside(main: Path) -> Questions:
    """Return the same for the routes.toml beside a smpbus.toml, also when there is none. Raises
    ConfigError."""
    file = main.with_name("routes.toml")
    return questions_of(read_layers(file)) if file.exists() else dict(BUILT_IN)
