"""The month's end in the demo: a register of the day's calls, and what the fund pays of it.

The commands are those of the administrator. The register goes to the simulated fund as it would to
the real one: as a file.
"""

import asyncio
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Final

from connectors.runtime.partner.http import HttpClient, Unreachable
from connectors.simulators.demo.day import LOOK_S, Day
from connectors.simulators.demo.folder import DemoFolder

FACILITY, PAYER = "990101", "99001"
HEARD_S: Final = 15.0  # from the answer to the ambulance, over the bus
REGISTERED: Final = "RegisterState"  # so begins what the ambulance tells of it
# Runs a command of smpbus and shows it.
Command = Callable[..., None]


async def bill(folder: DemoFolder, day: Day, id112: str, command: Command) -> None:
    """Build the register, have it paid, and wait until the ambulance has heard of one call."""
    here = folder.path / "register"
    here.mkdir(mode=0o700, exist_ok=True)
    ledger = ("--ledger", str(here / "billed.db"))
    # A number of its own for each run: a day that follows in the same folder has other calls.
    command(
        "register", "build", "--from-store", "--period", f"{datetime.now().astimezone():%Y-%m}",
        "--facility", FACILITY, "--payer", PAYER, "--number", str(folder.memory.runs),
        "--tables", str(folder.tables), "--out", str(here), *ledger,
    )  # fmt: skip
    made = max(here.glob("*.ZIP"), key=lambda file: file.stat().st_mtime, default=None)
    if made is None:
        return
    answer = await _ask_fund(folder, made)
    if answer is not None:
        command("register", "answer", str(answer), *ledger)
        await _wait_until_heard(day, id112)


async def _ask_fund(folder: DemoFolder, register: Path) -> Path | None:
    """Return the file of the fund's answer; None when it does not answer."""
    fund = HttpClient(folder.url("sim-tfoms"))
    whole = await asyncio.to_thread(register.read_bytes)
    try:
        answer = await fund.request("POST", "/registers", whole)
    except Unreachable:
        return None
    finally:
        await fund.close()
    if answer.status != 200:
        return None
    file = register.with_name(f"{register.stem}-answer.xml")
    await asyncio.to_thread(file.write_bytes, answer.body)
    return file


async def _wait_until_heard(day: Day, id112: str) -> None:
    deadline = time.monotonic() + HEARD_S
    while time.monotonic() < deadline:
        await day.look()
        if any(one.startswith(REGISTERED) for one in day.told_of(id112)):
            return
        await asyncio.sleep(LOOK_S)
