"""The journal of accesses of one connector: `Accesses` over a thread of its own."""

import asyncio
import contextlib
import os
import pwd
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from connectors.runtime.access import Unrecorded
from connectors.runtime.bus.settings import Loaded, StoreSettings
from connectors.runtime.outside import Outside
from connectors.runtime.statefile import Alarm
from proto.accesses import AccessFiles, accesses_of
from proto.accesswriter import AccessWriter
from proto.client import Retry

MIB: Final = 1024 * 1024
CLOSE_S: Final = 2.0
COMMANDS: Final = "commands"  # the journal of what is run on the command line


class WrittenAccesses:
    """`Accesses` in files of a folder; `alarm` says whether they can be written."""

    def __init__(self, folder: Path, name: str, days: int, file_bytes: int) -> None:
        self._writer = AccessWriter(AccessFiles(folder, name, days, file_bytes))
        self.alarm = _Watched(folder, self._writer)

    async def note(self, what: str, who: str, why: str, ids: Sequence[str] = ()) -> None:
        """See Accesses. While the disk takes nothing it is kept in memory, up to a bound."""
        kept = self._writer.put(accesses_of(what, who, why, list(ids)))
        if not await asyncio.wrap_future(kept):
            raise Unrecorded

    async def close(self) -> None:
        """See Accesses."""
        with contextlib.suppress(Retry):  # what hangs is given up, and has been told
            await Outside("access journal", CLOSE_S).call(self._writer.close)


def written_accesses(name: str, loaded: Loaded) -> WrittenAccesses:
    """Return where a connector writes accesses down, by its settings."""
    store = loaded.store
    folder = loaded.settings.access_folder or store.folder / name / "access"
    return WrittenAccesses(folder, name, store.access_days, store.access_file_mib * MIB)


def note_now(folder: Path, store: StoreSettings, what: str, ids: Sequence[str]) -> None:
    """Write down what the user of this process is about to be shown by a command, in a journal of
    commands. Raises OSError: nothing is shown then."""
    size = store.access_file_mib * MIB
    with AccessFiles(folder, COMMANDS, store.access_days, size) as files:
        files.append(accesses_of(what, whoever(), "", list(ids)))


def whoever() -> str:
    """Return name and number of the user of this process."""
    uid = os.getuid()
    try:
        return f"{pwd.getpwuid(uid).pw_name}/{uid}"
    except KeyError:
        return f"{uid}/{uid}"


class _Watched(Alarm):
    """Says what the writer's thread has found."""

    def __init__(self, folder: Path, writer: AccessWriter) -> None:
        self._writer = writer
        super().__init__(folder)

    @property
    def reason(self) -> str:
        """Why nothing can be written, "" if it can."""
        return self._writer.reason

    @reason.setter
    def reason(self, _: str) -> None:
        pass
