"""The router's own journal of accesses: what operators were shown, and what they changed.

It is written here and not by the commands, so that whoever asks the ops socket directly is recorded
as well.
"""

import asyncio
import logging
from pathlib import Path
from typing import Any, Final

from proto.accesses import AccessFiles, accesses_of
from proto.accesswriter import AccessWriter
from proto.wording import text
from router.settings import StoreSettings
from router.shell.operators import asking
from router.shell.ops import OpsError

FOLDER: Final = "access"
NAME: Final = "router"
MIB: Final = 1024 * 1024
# What shows the subjects, notes or heads of messages, and what changes anything.
NOTED: Final = frozenset(
    (
        "trace",
        "dead",
        "replay",
        "drop",
        "hold",
        "release",
        "try_now",
        "reload",
        "person_find",
        "person_erase",
    )
)
NAMES_MAX: Final = 1000

log = logging.getLogger("smpbus.access")


class OperatorAccesses:
    """Writes down what operators do, in the state folder of a router."""

    def __init__(self, settings: StoreSettings) -> None:
        folder, size = settings.folder / FOLDER, settings.access_file_mib * MIB
        self._writer = AccessWriter(AccessFiles(folder, NAME, settings.access_days, size))

    def figures(self) -> dict[str, object]:
        """See AccessWriter.figures."""
        return self._writer.figures()

    async def note(self, name: str, request: dict[str, Any], result: dict[str, Any]) -> None:
        """Write down who asked for a command, before its result is shown. Raises OpsError."""
        what, why = f"ops.{name}", str(request.get("reason") or "")
        operator = asking.get(None)
        who = "?" if operator is None else f"{operator.name}/{operator.uid}"
        kept = self._writer.put(accesses_of(what, who, why, _ids(request, result)))
        if not await asyncio.wrap_future(kept):
            raise OpsError("unrecorded", text("access.unrecorded"))

    async def close(self) -> None:
        """Write down what is left."""
        await asyncio.to_thread(self._writer.close)


def _ids(request: dict[str, Any], result: dict[str, Any]) -> list[str]:
    """Return which objects an answer shows, or a request is about: never a value of theirs."""
    told = [str(result[key]) for key in ("subject", "destination") if result.get(key)]
    told += [str(one) for one in result.get("others", ())]
    told += [f"dead {one['delivery']}" for one in result.get("letters", ())]
    if "next" in result:  # person_find
        told += dict.fromkeys(str(one["subject"] or one["id"]) for one in result["messages"])
    told += [f"message {one}" for one in result.get("erased", ())]
    if not told:
        told += [str(request[key]) for key in ("destination", "subject") if request.get(key)]
        told += [f"dead {one}" for one in request.get("deliveries") or ()]
    return told[:NAMES_MAX]


def folders(store: Path) -> list[Path]:
    """Return the folders below a state folder where processes keep their journals of accesses."""
    return [one for one in (store / FOLDER, *sorted(store.glob(f"*/{FOLDER}"))) if one.is_dir()]
