"""A connector's door with its partner's side before it, and a bus behind it that is obedient."""

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Awaitable, Callable, Iterator
from pathlib import Path
from typing import Any

from connectors.partners.external import ExternalConnector
from connectors.partners.remd import RemdConnector
from connectors.partners.rmis import RmisConnector
from connectors.partners.rmr import RmrConnector
from connectors.partners.smp import SmpConnector
from connectors.partners.sys112 import Sys112Connector
from connectors.simulators import external, remd
from connectors.simulators.kit.simulation import SimulatorSettings
from connectors.simulators.rmis import simulator as rmis
from connectors.simulators.rmr import simulator as rmr
from connectors.simulators.smp import simulator as smp
from connectors.simulators.sys112 import simulator as sys112
from connectors.simulators.sys112.samples import Sample, day_of_cards
from tests.contract.stage import Bus, Scene, scene

CARD: Sample = next(one for one in day_of_cards(11, 5) if one.kind == "new")
CARD_PATH = f"/112/cards/{CARD.id112}"
KINDS: dict[str, tuple[Any, Any]] = {
    "sys112": (Sys112Connector, sys112.create_app),
    "smp": (SmpConnector, smp.create_app),
    "rmis": (RmisConnector, rmis.create_app),
    "rmr": (RmrConnector, rmr.create_app),
    "external": (ExternalConnector, external.create_app),
    "remd": (RemdConnector, remd.create_app),
}


@contextlib.contextmanager
def a_bus() -> Iterator[Bus]:
    """Give a bus in a folder with a short name, as the address of a socket has to have."""
    folder = Path(tempfile.mkdtemp(prefix="smpbus-", dir="/tmp"))
    try:
        yield Bus(f"ipc://{folder}/bus.sock")
    finally:
        shutil.rmtree(folder)


def play(name: str, act: Callable[[Scene, Bus], Awaitable[None]], **settings: Any) -> Bus:
    """Act with connector `name`; return the bus with what it has accepted."""
    shape, create_app = KINDS[name]
    told = SimulatorSettings(repeat_s=0.05, strict=False)

    async def whole(bus: Bus) -> None:
        async with scene(bus, shape, create_app, told, **settings) as stage:
            await act(stage, bus)

    with a_bus() as bus:
        asyncio.run(whole(bus))
    return bus
