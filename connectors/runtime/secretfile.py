"""A secret in a file of its own, which only its owner may read."""

from pathlib import Path

from proto.exits import StartError
from proto.ownership import is_open_to_others
from proto.wording import text


def read_secret(path: Path) -> bytes:
    """Return what the file holds, without the white space around it. Raises StartError."""
    try:
        open_to_others = is_open_to_others(path)
        secret = path.read_bytes().strip()
    except OSError as error:
        raise StartError(f"{path}: {error.strerror}") from None
    if open_to_others:
        raise StartError(text("connector.secret_too_open", path=path))
    return secret


def read_secret_text(path: Path) -> str:
    """Return what the file holds, as `read_secret`. Raises StartError also for what is no UTF-8:
    in another encoding a password would be another one."""
    try:
        return read_secret(path).decode()
    except UnicodeDecodeError:
        raise StartError(text("connector.secret_not_text", path=path)) from None
