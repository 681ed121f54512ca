"""The demo's secrets: a token for each simulated partner that calls at a connector's door."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import Final

from connectors.runtime.door.token import make_token

FOLDER: Final = "tokens"


def token_of(folder: Path, name: str) -> Path:
    """Return the file with the token of the partner of connector `name`."""
    return folder / FOLDER / f"{name}.token"


def make_callers(folder: Path, names: Iterable[str]) -> str:
    """Return the tables of who calls at the connectors `names`; their tokens are made where there
    are none, in an own folder that nobody else reads."""
    (folder / FOLDER).mkdir(mode=0o700, exist_ok=True)
    return "".join(_caller(folder, name) for name in names)


def _caller(folder: Path, name: str) -> str:
    digests, token = folder / FOLDER / name, token_of(folder, name)
    if not (digests.exists() and token.exists()):
        made = make_token(digests, "replace")
        digests.chmod(0o600)  # nobody else runs a connector here
        with open(os.open(token, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600), "w") as file:
            file.write(made)
    return f'\n[connectors.{name}.callers.partner]\ntoken_file = "{digests}"\n'
