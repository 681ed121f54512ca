"""Who asks on the operator's socket, and what he may: look, or change as well.

The kernel tells whose process is at the other end of an ipc connection; libzmq asks it once, when
the connection is made, and gives the answer with each frame. None of it is what the asker claims.
"""

import asyncio
import grp
import logging
import os
import pwd
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Final, NamedTuple

import zmq

from proto.ops import FORBIDDEN
from proto.wording import text
from router.settings import OpsSettings
from router.shell.ops import OpsError

KNOWN_S: Final = 30.0  # so long is an account believed without another look
KNOWN_MAX: Final = 256
LOOK_UP_S: Final = 2.0  # accounts may be kept by another machine
TELL_S: Final = 60.0
ROOT: Final = 0

log = logging.getLogger("smpbus.operators")


class Role(IntEnum):
    """What somebody may do; the greater one includes the lesser."""

    NOTHING = 0
    LOOK = 1
    CHANGE = 2


# Every command of the socket is one of the two; what is not in here may only be asked by those who
# may change.
LOOKS: Final = frozenset(
    ("status", "version", "queues", "sessions", "partners", "metrics", "trace", "dead", "check")
)
CHANGES: Final = frozenset(
    (
        "replay", "drop", "hold", "release", "try_now", "reload", "person_find", "person_erase",
    )
)  # fmt: skip


class Operator(NamedTuple):
    """A person or program at the ops socket: its user, by number and by name."""

    uid: int
    name: str


@dataclass(frozen=True, slots=True)
class Account:
    """What this machine says of a user: its name, and its groups by number and name."""

    name: str
    groups: frozenset[int | str]
    until: float  # monotonic


asking: ContextVar[Operator] = ContextVar("asking")  # whose command is being carried out


class Operators:
    """Knows the roles of users, by settings that may change."""

    def __init__(self, settings: Callable[[], OpsSettings]) -> None:
        self._settings = settings
        self._known: dict[tuple[int, int], Account] = {}
        self._told_at: dict[int, float] = {}
        # Of its own: one that hangs must not hold up what else is done beside the loop.
        self._looking = ThreadPoolExecutor(1, "accounts")

    def close(self) -> None:
        """Look up nobody any more."""
        self._looking.shutdown(wait=False, cancel_futures=True)

    async def admit(self, command: str, frame: zmq.Frame) -> Operator:
        """Return who asks for a command ("": for one that there is not) by this frame; `asking` is
        he from now on, in this task. Raises OpsError unless he may."""
        uid, gid = credentials(frame)
        account = await self._account(uid, gid)
        operator = Operator(uid, account.name)
        role = self._role(uid, account)
        needed = Role.LOOK if command in LOOKS or not command else Role.CHANGE
        if role < needed:
            self._tell(operator, command)
            what = "router.may_not_look" if role is Role.NOTHING else "router.may_not_change"
            sentence = text(what, name=account.name, uid=uid, command=command)
            raise OpsError(FORBIDDEN, sentence)
        asking.set(operator)
        if needed is Role.CHANGE:
            log.info(text("router.operator_changes", command=command, name=account.name, uid=uid))
        return operator

    def _role(self, uid: int, account: Account) -> Role:
        if uid in (ROOT, os.geteuid()):
            return Role.CHANGE
        if uid < 0 or uid == _overflow():  # of another machine, or of another name space: anybody
            return Role.NOTHING
        ops = self._settings()
        if _is_among(account, ops.change):
            return Role.CHANGE
        return Role.LOOK if _is_among(account, ops.look) else Role.NOTHING

    async def _account(self, uid: int, gid: int) -> Account:
        known, now = self._known.get((uid, gid)), time.monotonic()
        if known is None or known.until < now:
            looking = asyncio.get_running_loop().run_in_executor(self._looking, look_up, uid, gid)
            try:
                known = await asyncio.wait_for(asyncio.shield(looking), LOOK_UP_S)
            except (TimeoutError, OSError):
                return Account(str(uid), frozenset((gid,)), now)
            if len(self._known) >= KNOWN_MAX:
                self._known.clear()
            self._known[uid, gid] = known
        return known

    def _tell(self, operator: Operator, command: str) -> None:
        """One line a minute for each user: he may ask in a loop."""
        now = time.monotonic()
        if now - self._told_at.get(operator.uid, -TELL_S) < TELL_S:
            return
        if len(self._told_at) >= KNOWN_MAX:
            self._told_at.clear()
        self._told_at[operator.uid] = now
        who = {"name": operator.name, "uid": operator.uid}
        log.warning(text("router.operator_refused", command=command, **who))


def credentials(frame: zmq.Frame) -> tuple[int, int]:
    """Return the user and group of the process that sent a frame, (-1, -1) when it is not told."""
    try:
        # HOST:UID:GID:PID for ipc; no process of this machine is known by an address of TCP.
        _, uid, gid, _ = str(frame.get("Peer-Address")).split(":")
        return int(uid), int(gid)
    except (zmq.ZMQError, ValueError):
        return -1, -1


def look_up(uid: int, gid: int) -> Account:
    """Return what this machine says of a user; may take as long as the keeper of its accounts."""
    until = time.monotonic() + KNOWN_S
    try:
        name = pwd.getpwuid(uid).pw_name
        numbers = os.getgrouplist(name, gid)
    except (KeyError, OSError):
        return Account(str(uid), frozenset((gid, *_names((gid,)))), until)
    return Account(name, frozenset((*numbers, *_names(numbers))), until)


def _names(groups: Iterable[int]) -> list[str]:
    names = []
    for number in groups:
        try:
            names.append(grp.getgrgid(number).gr_name)
        except KeyError:
            continue
    return names


def _is_among(account: Account, entries: Iterable[str]) -> bool:
    """Whether a user is named, or one of its groups as "@GROUP"."""
    return any(
        one[1:] in account.groups if one.startswith("@") else one == account.name for one in entries
    )


def _overflow() -> int:
    """Return the number by which the kernel speaks of every user that has none here."""
    try:
        return int(Path("/proc/sys/kernel/overflowuid").read_text(encoding="ascii"))
    except (OSError, ValueError):
        return 65534
