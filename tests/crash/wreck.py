"""What a power loss may leave of a disk.

Kept for sure: what was synced. Of everything since then each write may have reached the disk,
not, in part, or with garbage in its place; each cut, and each change of the folder's entries,
may have happened or not. Nothing need have come in the order it was asked for.
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import pairwise
from random import Random
from typing import Final, NamedTuple

from tests.crash.op import Op, put

SECTORS: Final = (512, 4096)
WHOLE: Final = -1  # a mask with every piece in it
ENTRY_KINDS: Final = frozenset({"create", "unlink", "rename"})


class Fate(NamedTuple):
    """What became of one change: which of its pieces came, and which came as garbage."""

    pieces: int = 0
    sector: int = SECTORS[0]
    garbage: int = 0


LOST: Final = Fate()
KEPT: Final = Fate(WHOLE)
# How often something had been synced, and what came of the changes since. Equal keys of one log
# mean equal images.
Key = tuple[int, tuple[tuple[int, Fate], ...]]


class Platter:
    """Replays a log; at any point of it, tells what a power loss would leave."""

    def __init__(self, born: Mapping[str, bytes]) -> None:
        self._names = {name: inode for inode, name in enumerate(born, 1)}
        self._contents = {
            inode: bytearray(content) for inode, content in enumerate(born.values(), 1)
        }
        self._waiting: list[tuple[int, Op]] = []  # (place in the log, what is not synced yet)
        self._version = 0
        self._at = 0

    def replay(self, log: Iterable[Op]) -> "Platter":
        """Apply the changes of a log."""
        for op in log:
            self.apply(op)
        return self

    def apply(self, op: Op) -> None:
        """Apply the next change."""
        if op.kind == "sync folder":
            self._land(lambda one: one.kind in ENTRY_KINDS)
        elif op.kind == "sync":
            self._land(lambda one: one.kind not in ENTRY_KINDS and one.inode == op.inode)
        elif op.kind == "lose":
            self._lose(op)
        else:
            self._waiting.append((self._at, op))
        self._at += 1

    def _lose(self, op: Op) -> None:
        """A sync failed: what it was for comes never, but for what came before it failed."""
        random = Random(self._at)
        if op.offset:
            self._land(
                lambda one: (
                    one.kind not in ENTRY_KINDS and one.inode == op.inode and random.random() < 0.5
                )
            )
        self._version += 1
        self._waiting = [
            (at, one)
            for at, one in self._waiting
            if one.kind in ENTRY_KINDS or one.inode != op.inode
        ]

    def _land(self, chosen: Callable[[Op], bool]) -> None:
        staying = []
        for at, op in self._waiting:
            if chosen(op):
                _apply(op, KEPT, self._names, self._contents, None)
            else:
                staying.append((at, op))
        if len(staying) < len(self._waiting):
            self._version += 1
        self._waiting = staying

    def synced(self, inode: int) -> bytearray:
        """Return what the disk surely has of a file."""
        return bytearray(self._contents.get(inode, b""))

    @property
    def waiting(self) -> list[Op]:
        """Return what is not synced."""
        return [op for _, op in self._waiting]

    def key(self, fates: Sequence[Fate]) -> Key:
        """Return what tells this image from the others of the same log."""
        came = [
            (at, fate) for (at, _), fate in zip(self._waiting, fates, strict=True) if fate.pieces
        ]
        return self._version, tuple(came)

    def image(self, fates: Sequence[Fate], random: Random | None) -> dict[str, bytes]:
        """Return the files of the disk on which the waiting changes met these fates.

        Garbage needs chance.
        """
        names = dict(self._names)
        contents = {inode: bytearray(content) for inode, content in self._contents.items()}
        for (_, op), fate in zip(self._waiting, fates, strict=True):
            if fate.pieces:
                _apply(op, fate, names, contents, random)
        return {name: bytes(contents.get(inode, b"")) for name, inode in names.items()}


def _apply(
    op: Op, fate: Fate, names: dict[str, int], contents: dict[int, bytearray], random: Random | None
) -> None:
    if op.kind == "write":
        content = contents.setdefault(op.inode, bytearray())
        if fate.pieces == WHOLE and not fate.garbage:
            put(content, op.offset, op.data)
        else:
            _put_pieces(content, op, fate, random)
    elif op.kind == "truncate":
        del contents.setdefault(op.inode, bytearray())[op.offset :]
    elif op.kind == "create":
        names[op.name] = op.inode
    elif op.kind == "unlink":
        if names.get(op.name) == op.inode:
            del names[op.name]
    else:
        names.pop(op.data.decode(), None)
        names[op.name] = op.inode


def _put_pieces(content: bytearray, op: Op, fate: Fate, random: Random | None) -> None:
    for number, (start, end) in enumerate(_pieces(op, fate.sector)):
        if fate.pieces >> number & 1:
            piece = op.data[start:end]
            if random is not None and fate.garbage >> number & 1:
                piece = random.randbytes(len(piece))
            put(content, op.offset + start, piece)


def _pieces(op: Op, sector: int) -> list[tuple[int, int]]:
    """Cut a write where the sectors of the disk are."""
    first = sector - op.offset % sector
    cuts = [0, *range(first, len(op.data), sector), len(op.data)]
    return list(pairwise(cuts))


# -- fates ----------------------------------------------------------------------------------------


def fates(waiting: Sequence[Op], variant: int, random: Random) -> list[Fate]:
    """Return the variant's way of losing power: first the extremes, then chance.

    Variant 0 loses everything, 1 keeps everything; from 2 on see WAYS.
    """
    if variant == 0:
        return [LOST] * len(waiting)
    if variant == 1 or not waiting:
        return [KEPT] * len(waiting)
    return WAYS[(variant - 2) % len(WAYS)](waiting, random)


def _only_last(waiting: Sequence[Op], random: Random) -> list[Fate]:
    return [*[LOST] * (len(waiting) - 1), KEPT]


def _only_first(waiting: Sequence[Op], random: Random) -> list[Fate]:
    return [KEPT, *[LOST] * (len(waiting) - 1)]


def _one_lost(waiting: Sequence[Op], random: Random) -> list[Fate]:
    found = [KEPT] * len(waiting)
    found[random.randrange(len(found))] = LOST
    return found


def _one_kept(waiting: Sequence[Op], random: Random) -> list[Fate]:
    found = [LOST] * len(waiting)
    found[random.randrange(len(found))] = KEPT
    return found


def _in_order(waiting: Sequence[Op], random: Random) -> list[Fate]:
    """As a disk without a cache would: the first few, and a part of the next."""
    came = random.randrange(len(waiting))
    torn = _torn(waiting[came], random, 0.5, 0.0)
    return [*[KEPT] * came, torn, *[LOST] * (len(waiting) - came - 1)]


def _one_torn(waiting: Sequence[Op], random: Random) -> list[Fate]:
    found = [KEPT] * len(waiting)
    at = random.randrange(len(found))
    found[at] = _torn(waiting[at], random, 0.5, 0.0)
    return found


def _one_garbage(waiting: Sequence[Op], random: Random) -> list[Fate]:
    found = [KEPT] * len(waiting)
    at = random.randrange(len(found))
    found[at] = _torn(waiting[at], random, 1.0, 0.5)
    return found


def _all_torn(waiting: Sequence[Op], random: Random) -> list[Fate]:
    share = random.random()
    return [_torn(op, random, share, 0.0) for op in waiting]


def _entries_only(waiting: Sequence[Op], random: Random) -> list[Fate]:
    return [KEPT if op.kind in ENTRY_KINDS else LOST for op in waiting]


def _contents_only(waiting: Sequence[Op], random: Random) -> list[Fate]:
    return [LOST if op.kind in ENTRY_KINDS else KEPT for op in waiting]


def _any(waiting: Sequence[Op], random: Random) -> list[Fate]:
    kept, torn = random.random(), random.random() * 0.5
    found = []
    for op in waiting:
        if random.random() < torn:
            found.append(_torn(op, random, 0.5, 0.2))
        else:
            found.append(KEPT if random.random() < kept else LOST)
    return found


def _torn(op: Op, random: Random, share: float, garbage: float) -> Fate:
    """Some pieces of a write; what is no write happens or not."""
    if op.kind != "write":
        return KEPT if random.random() < share else LOST
    sector = random.choice(SECTORS)
    count = len(_pieces(op, sector))
    pieces = sum((random.random() < share) << number for number in range(count))
    bad = sum((random.random() < garbage) << number for number in range(count))
    return Fate(pieces, sector, pieces & bad)


WAYS: Final = (
    _any, _one_lost, _in_order, _one_torn, _all_torn, _only_last, _any, _one_garbage,
    _entries_only, _one_kept, _any, _contents_only, _only_first, _all_torn, _in_order,
)  # fmt: skip
