"""One change of a disk, as its log has it."""

from typing import NamedTuple


class Op(NamedTuple):
    """One change: `inode` is a file for ever, `name` an entry of the folder."""

    kind: str  # create, write, truncate, sync, lose, unlink, rename, sync folder
    inode: int = 0
    offset: int = 0
    data: bytes = b""
    name: str = ""


def put(content: bytearray, offset: int, data: bytes) -> None:
    """Write into a file that may be shorter than that."""
    gap = offset - len(content)
    if gap > 0:
        content.extend(bytes(gap))
    content[offset : offset + len(data)] = data
