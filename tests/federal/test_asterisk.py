"""Calls of a real Asterisk, as it told of them: what a dispatcher is told, capture by capture.

A capture is NAME.ami, what a manager's connection received. NAME.resync.ami beside it is what the
exchange listed to a connector that began in the middle of it. What is to be told of captures that
are not in `TOLD` is not known here: they have to be sound (`soundness`), and are in the table.
"""

import asyncio
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path

import pytest

from connectors.partners.ats.ami import Packet, Parser
from connectors.simulators.atsmirror import moment
from tests.contract.stage import Bus
from tests.contract.switchboard import (
    connector_of,
    distinct,
    drive,
    exchange,
    figures,
    soundness,
    stories,
)
from tests.until import until

CALL, GROUP = "telephony.call.v1", "telephony.group.v1"
FOLDER = Path(os.environ.get("SMPBUS_CONTRACT_DATA", "")) / "asterisk"
CAPTURES = sorted(
    path for path in FOLDER.glob("*.ami") if not path.name.endswith(".resync.ami")
)  # fmt: skip
IN, OUT = "in: started, ", "out: started "
# What is told, per call, and the figures of the groups: offered/answered/abandoned/left.
TOLD: dict[str, tuple[list[str], dict[str, str]]] = {
    "01": ([IN + "ringing 201, answered 201, ended 201 (16); talked: 201"], {"103": "1/1/0/0"}),
    "03": ([IN + "ringing 201, ended (0); talked: -"], {"103": "1/0/1/0"}),
    "04": (
        [IN + "ringing 201, ringing 202, answered 202, ended 202 (16); talked: 202"],
        {"103": "1/1/0/0"},
    ),
    "05": (
        [IN + "ringing 201, ringing 202, answered 202, ended 202 (16); talked: 202"],
        {"103": "1/1/0/0"},
    ),
    "07": (
        [IN + "ringing 201, ringing 202, ringing 203, answered 203, ended 203 (16); talked: 203"],
        {"103": "1/0/0/1", "303": "1/1/0/0"},
    ),
    "10": ([IN + "ringing 201, answered 201, ended 201 (16); talked: 201"], {}),
    "131": ([IN + "ringing 206, answered 206, ended 206 (16); talked: 206"], {"903": "1/1/0/0"}),
    "139": (
        [
            IN + "ringing 201, answered 201, transferred 201 203, ringing 203, bridged 203, "
            "transferred 203 201, ringing 201, bridged 201, transferred 201 203, ringing 203, "
            "bridged 203, ended 203 (16); talked: 201, 203, 201, 203"
        ],
        {"103": "1/1/0/0"},
    ),
    "14": ([IN + "ringing 201, ringing 202, answered 202, ended 202 (16); talked: 202"], {}),
    "16": (
        [
            IN + "ringing Иванова Мария, ringing Петров Пётр, answered Петров Пётр, "
            "ended Петров Пётр (16); talked: Петров Пётр"
        ],
        {"203": "1/1/0/0"},
    ),
    "18": ([OUT + "201, ringing 201, answered 201, ended 201 (16); talked: 201"], {}),
    "20": (
        [
            IN + "ringing 201, answered 201, transferred 201 203, ringing 203, bridged 203, "
            "ended 203 (16); talked: 201, 203"
        ],
        {"103": "1/1/0/0"},
    ),
    "22": (
        [
            IN + "ringing 201, answered 201, held 201, resumed 201, transferred 201 203, "
            "bridged 203, ended 203 (16); talked: 201, 203",
            OUT + "201, ringing 203, answered 203, ended 203 (merged); talked: 203",
        ],
        {"103": "1/1/0/0"},
    ),
    "25": (
        [
            IN + "ringing 201, answered 201, held 201, resumed 201, held 201, resumed 201, "
            "ended 201 (16); talked: 201"
        ],
        {"103": "1/1/0/0"},
    ),
    "28": (
        [
            IN + "ringing 201, answered 201, transferred 201 700, bridged 203, ended 203 (16); "
            "talked: 201, 203",
            OUT + "203, ended 203 (merged); talked: -",
        ],
        {"103": "1/1/0/0"},
    ),
    "34": (
        [
            IN + "ringing 201, answered 203, ended 203 (16); talked: 203",
            OUT + "203, ended 203 (merged); talked: -",
        ],
        {},
    ),
    "35": (
        [
            IN + "ringing Иванова Мария, answered Иванова Мария, transferred Иванова Мария 203, "
            "ringing 203, bridged 203, ended 203 (16); talked: Иванова Мария, 203"
        ],
        {"203": "1/1/0/0"},
    ),
    "36": (
        [
            IN + "ringing Иванова Мария, answered Иванова Мария, held Иванова Мария, "
            "resumed Иванова Мария, transferred Иванова Мария 203, bridged 203, ended 203 (16); "
            "talked: Иванова Мария, 203",
            OUT + "201, ringing 203, answered 203, ended 203 (merged); talked: 203",
        ],
        {"203": "1/1/0/0"},
    ),
    "40": ([OUT + "201, ringing 201, answered 201, ended 201 (16); talked: 201"], {}),
    "41": ([OUT + "201, ended 201 (17); talked: -"], {}),
    "65": ([IN + "ringing 201, answered 201, ended 201 (16); talked: 201"], {"103": "1/1/0/0"}),
    "80": (
        [
            IN + "answered 201, ended 201 (16); talked: 201",
            IN + "ringing 202, ringing 202, ended (0); talked: -",
            OUT + "203, answered 203, ended 203 (16); talked: 203",
        ],
        {"103": "1/0/1/0"},
    ),
    "98": ([IN + "ringing 201, answered 201, ended 201 (16); talked: 201"], {"103": "1/1/0/0"}),
}


@pytest.fixture
def bus() -> Iterator[Bus]:
    folder = Path(tempfile.mkdtemp(prefix="smpbus-", dir="/tmp"))
    yield Bus(f"ipc://{folder}/bus.sock")
    shutil.rmtree(folder)


def test_there_are_captures() -> None:
    """An empty folder would pass without a look at anything."""
    assert len(CAPTURES) >= len(TOLD)


@pytest.mark.parametrize("capture", CAPTURES, ids=lambda path: path.stem)
def test_a_dispatcher_is_told_what_happened(
    capture: Path, bus: Bus, tmp_path: Path, row: Callable[..., None]
) -> None:
    asyncio.run(_play(capture, bus, tmp_path))
    bodies = distinct(bus, CALL)
    calls, groups = stories(bodies), figures(distinct(bus, GROUP))
    wrong = soundness(bodies)
    number = capture.name.partition("-")[0]
    if number in TOLD:
        stories_, figures_ = TOLD[number]
        wrong += [f"not told: {one}" for one in stories_ if one not in calls.values()]
        wrong += [f"told besides: {one}" for one in calls.values() if one not in stories_]
        counted = {name: told.partition(" ")[0] for name, told in groups.items()}
        wrong += [] if counted == figures_ else [f"groups: {counted}"]
    for at, (id, story) in enumerate(calls.items()):
        numbers = {one["number_from"] + "->" + one["number_to"]
                   for one in bodies if one["call_id"] == id and one["event"] == "ended"
                   and one.get("number_from")}  # fmt: skip
        told = "; ".join(f"{name} {text}" for name, text in groups.items()) if not at else ""
        verdict = ("as expected" if number in TOLD else "sound") if not wrong else "WRONG"
        row("asterisk", "" if at else capture.stem, "" if at else verdict, *numbers or {"->"},
            f"{story}{f'   [{told}]' if told else ''}")  # fmt: skip
    assert wrong == []


async def _play(capture: Path, bus: Bus, folder: Path) -> None:
    packets = _events(capture)
    resync = capture.with_name(f"{capture.stem}.resync.ami")
    texts = _texts(capture, resync)
    begins = moment(packets[0])
    async with exchange(bus, folder) as scene:
        await scene.wait(lambda ledger: ledger["logins"])
        await until(lambda: connector_of(scene)._line.session)
        if resync not in texts:
            await drive(scene, replay=texts[capture])
        else:  # it comes back to an exchange where the calls are going on
            at = _listed_at(packets, _events(resync))
            shift_s = datetime.now(begins.tzinfo).timestamp() - at.timestamp()
            await drive(scene, lists=texts[resync])
            await drive(scene, **{"break": True})
            await until(lambda: len(stories(bus.bodies(CALL))) >= 3)
            await until(lambda: connector_of(scene)._line.session)
            rest = [one for one in packets if moment(one) > at]
            await drive(scene, replay=_text(rest), shift_s=shift_s)
        hearing = connector_of(scene)._hearing
        ends = {one["Uniqueid"] for one in packets if one.event == "Hangup"}
        opened = {one["Uniqueid"] for one in packets if one.event == "Newchannel"}
        if opened <= ends:
            await until(lambda: bus.bodies(CALL) and not hearing.calls.calls)
        told = len(bus.bodies(GROUP))
        await until(lambda: not hearing.unsent.waiting)
        if any(one["Queue"] for one in packets):
            await until(lambda: len(bus.bodies(GROUP)) > told)


def _events(capture: Path) -> list[Packet]:
    data = capture.read_bytes().replace(b"\r\n", b"\n").replace(b"\n", b"\r\n")
    packets = list(Parser().feed(data))
    stamped = [one for one in packets if one.event and one["Timestamp"]]
    return stamped or [one for one in packets if one.event]


def _texts(*captures: Path) -> dict[Path, str]:
    return {path: _text(_events(path)) for path in captures if path.is_file()}


def _listed_at(packets: list[Packet], listed: list[Packet]) -> datetime:
    """When the lists were made: by when each channel began, and how long it is there."""
    began = {one["Uniqueid"]: moment(one) for one in packets if one.event == "Newchannel"}
    ages = {one["Uniqueid"]: one["Duration"] for one in listed if one["Duration"]}
    seconds = {id: sum(int(part) * 60**at for at, part in enumerate(reversed(age.split(":"))))
               for id, age in ages.items()}  # fmt: skip
    newest = max(began[id].timestamp() + seconds[id] for id in seconds if id in began)
    return datetime.fromtimestamp(newest, next(iter(began.values())).tzinfo)


def _text(packets: list[Packet]) -> str:
    parts = ["".join(f"{key}: {value}\n" for key, value in one.items()) for one in packets]
    return "Asterisk Call Manager\n" + "\n".join(parts) + "\n"
