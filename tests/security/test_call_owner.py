"""Calls of outside services: each belongs to one, whatever the names and the numbers look like."""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import pytest

from connectors.partners.external import ExternalConnector
from connectors.runtime.door.token import digest_of, new_token
from connectors.runtime.partner.http import HttpAnswer
from connectors.simulators.external import create_app
from connectors.simulators.kit.simulation import SimulatorSettings
from proto import catalogue
from proto.client import Reject
from proto.external_types import HAND_IN
from proto.message import Message
from tests.contract.stage import Bus, Scene, scene
from tests.faults.doorstep import a_bus

NAMES = ("med", "med-evac", "med-evac-2")  # each begins as the next one does
STATUS = catalogue.entry("external.status.v1").example


@dataclass
class House:
    """The connector with clients whose names begin alike."""

    stage: Scene
    bus: Bus
    tokens: dict[str, str]

    async def ask(self, client: str, method: str, path: str, body: Any = None) -> HttpAnswer:
        told = {"authorization": f"Bearer {self.tokens[client]}", "idempotency-key": "1"}
        data = b"" if body is None else msgspec.json.encode(body)
        return await self.stage.http.request(method, f"/external/calls{path}", data, told)

    async def hand_in(self, client: str) -> str:
        answer = await self.ask(client, "POST", "", HAND_IN)
        assert answer.status == 201, answer.body
        return str(msgspec.json.decode(answer.body)["id"])


@contextlib.asynccontextmanager
async def house(bus: Bus, folder: Path) -> AsyncIterator[House]:
    tokens = {name: new_token() for name in NAMES}
    for name, token in tokens.items():
        (folder / name).write_text(digest_of(token), encoding="ascii")
    clients = {name: {"token_file": folder / name} for name in NAMES}
    async with scene(
        bus, ExternalConnector, create_app, SimulatorSettings(),
        state_file=folder / "calls.db", clients=clients,
    ) as stage:  # fmt: skip
        yield House(stage, bus, tokens)


@pytest.mark.fault("S5")
def test_a_call_is_its_own_clients_alone(tmp_path: Path) -> None:
    """Client "med" read and cancelled the calls of "med-evac" under the id "evac-ID"; to anybody
    but its client a call is not there, and nothing is published about it."""

    async def whole(bus: Bus) -> None:
        async with house(bus, tmp_path) as here:
            ids = {name: await here.hand_in(name) for name in NAMES}
            published = len(bus.accepted)
            assert published == len(NAMES)
            for owner, id in ids.items():
                for caller in NAMES:
                    rest = owner.removeprefix(caller).lstrip("-")
                    for tried in {id, f"{rest}-{id}", f"-{id}", f"{owner}-{id}", f"{id}%0A"}:
                        if (caller, tried) == (owner, id):
                            continue
                        for method, path in (("GET", ""), ("GET", "/events"), ("POST", "/cancel")):
                            answer = await here.ask(caller, method, f"/{tried}{path}")
                            assert answer.status == 404, (caller, tried, path)
            assert len(bus.accepted) == published
            answer = await here.ask("med-evac", "POST", f"/{ids['med-evac']}/cancel", {})
            assert answer.status == 202
            assert bus.bodies("external.cancelled.v1")[0]["client"] == "med-evac"
            assert len(bus.accepted) == published + 1

    with a_bus() as bus:
        asyncio.run(whole(bus))


@pytest.mark.fault("S5")
def test_a_number_is_32_hexadecimal_figures(tmp_path: Path) -> None:
    """A status about "med-evac" would have begun a call "evac" of client "med"; what is no number
    of ours is nobody's, and a call whose file is lost is begun anew for its own client."""

    async def whole(bus: Bus) -> None:
        async with house(bus, tmp_path) as here:
            for ref in ("med-evac", "med-", "med-evac-", f"med-{'A' * 32}", f"med-{'0' * 33}"):
                status = Message.new("external.status.v1", "smp", STATUS | {"external": ref})
                with pytest.raises(Reject):
                    await here.stage.handle(status)
            lost = "0" * 32
            status = Message.new(
                "external.status.v1", "smp", STATUS | {"external": f"med-evac-{lost}"}
            )
            await here.stage.handle(status)
            assert (await here.ask("med-evac", "GET", f"/{lost}")).status == 200
            assert (await here.ask("med", "GET", f"/{lost}")).status == 404
            assert (await here.ask("med", "GET", f"/evac-{lost}")).status == 404

    with a_bus() as bus:
        asyncio.run(whole(bus))
