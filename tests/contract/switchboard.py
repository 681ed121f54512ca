"""The exchange's connector at work on a stand-in for Asterisk, and what it tells in few words."""

import asyncio
import contextlib
from collections import defaultdict
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import msgspec

from connectors.partners.ats import AtsConnector
from connectors.runtime.door.serving import HttpServer, bind
from connectors.runtime.partner.http import HttpClient
from connectors.simulators.ats import SECRET, USER, create_app
from connectors.simulators.kit.simulation import SimulatorSettings
from proto.client import BusClient
from proto.message import Message
from tests.contract.stage import Bus, Scene
from tests.ports import free_port

PACE_S = 0.02


def connector_of(scene: Scene) -> AtsConnector:
    """The connector of a scene, by its kind."""
    assert isinstance(scene.connector, AtsConnector)
    return scene.connector


@contextlib.asynccontextmanager
async def exchange(
    bus: Bus, folder: Path, secret: str = SECRET, login: str = "auto", **settings: Any
) -> AsyncIterator[Scene]:
    """The bus's end, the connector at work, and the exchange."""
    port, pages = free_port(), free_port()
    password = folder / "ats.password"
    password.write_text(f"{USER}:{secret}\n")
    password.chmod(0o600)
    table = {
        "partner": {"url": f"tcp://127.0.0.1:{port}", "credentials_file": str(password),
                    "timeout_s": 2.0, "login": login,
                    "breaker": {"failures_max": 3, "open_s": 0.1, "open_max_s": 0.2}},
        "ping_s": 0.2, "statistics_s": 0.3, "ring_s": 5.0,
        "live_calls_file": str(folder / "live"), **settings,
    }  # fmt: skip
    typed = msgspec.convert(table, AtsConnector.Settings, dec_hook=lambda _, value: Path(value))
    client = BusClient(bus.address, name="ats")
    serving = asyncio.create_task(bus.serve())
    await client.start()
    await client.wait_welcomed()
    told = SimulatorSettings(connector_url=f"tcp://127.0.0.1:{port}", pace_s=PACE_S)
    server = HttpServer(create_app(told), bind(f"127.0.0.1:{pages}", "test"))
    await server.start()
    connector = AtsConnector("ats", typed, client)
    staying = asyncio.create_task(connector.stay())
    http = HttpClient(f"http://127.0.0.1:{pages}")
    try:
        yield Scene(connector, http, http)
    finally:
        staying.cancel()
        await asyncio.gather(staying, return_exceptions=True)
        await connector.close()
        await http.close()
        await server.stop()
        await client.close()
        serving.cancel()
        await asyncio.gather(serving, return_exceptions=True)


async def drive(scene: Scene, **order: Any) -> None:
    assert (await scene.http.request("POST", "/drive", msgspec.json.encode(order))).status == 202


def distinct(bus: Bus, type: str) -> list[Any]:
    """Return the bodies as the bus delivers them: of one id only the first."""
    first: dict[str, Message] = {}
    for message in bus.accepted:
        if message.type == type:
            first.setdefault(message.id, message)
    return [message.json() for message in first.values()]


def stories(bodies: list[Any]) -> dict[str, str]:
    """Return what was told of each call, as a dispatcher would say it."""
    told: dict[str, list[str]] = defaultdict(list)
    ends: dict[str, str] = {}
    for one in bodies:
        words = [one["event"], one.get("operator", ""), one.get("transferred_to", "")]
        told[one["call_id"]].append(" ".join(word for word in words if word))
        if one["event"] == "ended":
            talks = [talk.get("operator") or "outside" for talk in one.get("talks", ())]
            ends[one["call_id"]] = f" ({one.get('cause', '')}); talked: {', '.join(talks) or '-'}"
    first: dict[str, str] = {}
    for one in bodies:
        first.setdefault(one["call_id"], one["direction"])
    return {id: f"{first[id]}: {', '.join(words)}{ends.get(id, '')}" for id, words in told.items()}


def figures(bodies: list[Any]) -> dict[str, str]:
    """Return the sums of each group: offered/answered/abandoned/left, and who waits at the end."""
    names = ("offered", "answered", "abandoned", "left")
    groups: dict[str, list[Any]] = defaultdict(list)
    for one in bodies:
        groups[one["group"]].append(one)
    return {
        group: "/".join(str(sum(one.get(name, 0) for one in told)) for name in names)
        + f" waiting {told[-1]['waiting']}"
        for group, told in groups.items()
        if any(one.get(name) for one in told for name in names) or told[-1]["waiting"]
    }


def soundness(bodies: list[Any]) -> list[str]:
    """Return what cannot be, whatever the exchange did: a call that does not begin and end once,
    talks outside of it or before its answer, numbers that are words, an operator who is a number of
    the world outside."""
    wrong = []
    by_call: dict[str, list[Any]] = defaultdict(list)
    for one in bodies:
        by_call[one["call_id"]].append(one)
    for id, told in by_call.items():
        kinds = [one["event"] for one in told]
        if kinds.count("started") != 1 or kinds[0] != "started":
            wrong.append(f"{id}: does not begin once, first")
        if kinds.count("ended") != 1 or kinds[-1] != "ended":
            wrong.append(f"{id}: does not end once, last")
        if kinds.count("answered") > 1:
            wrong.append(f"{id}: is answered twice")
        wrong += [f"{id}: {problem}" for problem in _talks_wrong(told[-1])]
        for one in told:
            if any("unknown" in one.get(name, "") for name in ("number_from", "operator")):
                wrong.append(f"{id}: a word for nobody is told as somebody")
            if len(one.get("operator", "").strip("+")) >= 10 and one["operator"][-7:].isdigit():
                wrong.append(f"{id}: the operator is a number of the world outside")
    return wrong


def _talks_wrong(ended: Any) -> list[str]:
    wrong = []
    talks = ended.get("talks", [])
    if talks and not ended.get("answered_at"):
        wrong.append("talk without an answer")
    for talk in talks:
        since, until_ = talk.get("since"), talk.get("until")
        if talk.get("goes_on"):
            wrong.append("a talk goes on in a call that has ended")
        if since and until_ and since > until_:
            wrong.append("a talk ends before it begins")
        if since and since < ended["started_at"]:
            wrong.append("a talk begins before the call")
        if until_ and until_ > ended["at"]:
            wrong.append("a talk ends after the call")
    return wrong
