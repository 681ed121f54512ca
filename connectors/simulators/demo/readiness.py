"""Wait until every program of the demo answers, and say which one does not."""

import asyncio
import contextlib
import socket
import time
from collections.abc import Callable
from functools import partial
from typing import Final
from urllib.parse import urlsplit

from connectors.simulators.demo.folder import LISTENERS, PARTNERS, DemoFolder
from connectors.simulators.demo.screen import Screen
from connectors.simulators.demo.supervision import Supervisor
from proto.exits import EX_UNAVAILABLE, StartError
from proto.ops import OpsError, ops_request
from proto.wording import text

LOOK_S: Final = 0.1
TAIL_LINES: Final = 5


async def wait_ready(
    folder: DemoFolder, screen: Screen, supervisor: Supervisor, wait_s: float
) -> None:
    """Return when all answer. Raises StartError with the end of the silent program's log."""
    begun = time.monotonic()
    for program, answers in _checks(folder).items():
        while not answers():
            waited_s = time.monotonic() - begun
            name = text(f"demo.program_{program.replace('-', '_')}")
            screen.live(text("demo.waiting", name=name, seconds=int(waited_s)))
            if waited_s > wait_s or not supervisor.running:
                raise StartError(_sentence(folder, program, name), EX_UNAVAILABLE)
            await asyncio.sleep(LOOK_S)
        name = text(f"demo.program_{program.replace('-', '_')}")
        screen.line(text("demo.answers", name=name, seconds=f"{time.monotonic() - begun:.1f}"))


def _checks(folder: DemoFolder) -> dict[str, Callable[[], bool]]:
    answers: dict[str, Callable[[], bool]] = {"router": lambda: _sessions(folder) is not None}
    for name in PARTNERS:
        answers[name] = partial(_serves, folder, name)
    for name in PARTNERS:
        answers[f"sim-{name}"] = partial(_accepts, folder, f"sim-{name}")
    return answers


def _serves(folder: DemoFolder, name: str) -> bool:
    """Whether a connector is on the bus, and listens where its partner would call."""
    on_bus = name in (_sessions(folder) or ())
    return on_bus and (name not in LISTENERS or _accepts(folder, name))


def _sessions(folder: DemoFolder) -> list[str] | None:
    """Return the names of the peers on the bus, or None while there is no router."""
    try:
        return [row["name"] for row in ops_request(folder.ops, "sessions")["sessions"]]
    except OpsError:
        return None


def _accepts(folder: DemoFolder, port: str) -> bool:
    address = urlsplit(folder.url(port))
    with contextlib.suppress(OSError):
        socket.create_connection((address.hostname or "", address.port or 0), 1).close()
        return True
    return False


def _sentence(folder: DemoFolder, program: str, name: str) -> str:
    log = folder.logs / f"{program}.log"
    said = ""
    with contextlib.suppress(OSError):
        lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
        said = "\n".join(f"  {line}" for line in lines[-TAIL_LINES:])
    return text("demo.silent", name=name, log=log, said=said)
