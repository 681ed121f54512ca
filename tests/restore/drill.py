"""One seed of the drill: run, copy, run on, put the copy back, run on, compare with the partners.

A partner's ledger remembers what it applied, by idempotency key. Whatever the journal says was
delivered with an answer of the partner must stand there under the key of that very delivery, and
must be about the same call: an old answer under a key that came twice is found by that.
"""

import os
import shutil
import signal
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from random import Random
from typing import Any, Final, NamedTuple

import apsw

from proto.frames import key_of
from proto.message import decode_message
from router.core.delivery import State
from router.core.generations import Generations
from tests.integration.house import House, without_cancels

PARTNERS: Final = ("smp", "sys112", "rmis")
CARDS: Final = 4
PHASES: Final = 3
STATE_FILES: Final = ("sys112.db", "rmis.db", "remd.db", "vimis.db", "tfoms.db", "ats.calls")


class Way(NamedTuple):
    """What is copied, and how: of a folder at rest, or as a snapshot of a machine sees it."""

    router: bool
    connectors: bool
    frozen: bool

    def __str__(self) -> str:
        what = " and ".join(name for name, is_wanted in (
            ("the journal", self.router), ("the connectors' files", self.connectors)
        ) if is_wanted)  # fmt: skip
        return f"{what}, {'frozen' if self.frozen else 'at rest'}"


WAYS: Final = tuple(
    Way(router, connectors, frozen)
    for frozen in (False, True)
    for router, connectors in ((True, False), (True, True), (False, True))
)


class Delivered(NamedTuple):
    """A delivery that the journal says was settled, with the partner's answer."""

    key: str
    destination: str
    type: str
    about: bytes  # the message's subject, its numbers and its body
    note: str


@dataclass
class Verdict:
    """What came of one seed."""

    seed: int
    way: Way
    checked: int = 0
    missing: list[str] = field(default_factory=list)


def drill(house: House, seed: int) -> Verdict:
    """Play one seed in a house that is at work."""
    random = Random(seed)
    way = WAYS[seed % len(WAYS)]
    verdict = Verdict(seed, way)
    run_on(house, seed, 0, wait=random.random() < 0.5)
    copied = take_copy(house, way)
    run_on(house, seed, 1)
    judge(house, verdict)
    put_back(house, way, copied)
    run_on(house, seed, 2)
    judge(house, verdict)
    return verdict


def run_on(house: House, seed: int, phase: int, wait: bool = True) -> None:
    """Let System-112 send some cards, and the calls be lived to their ends."""
    house.drive(without_cancels(1 + (seed * PHASES + phase) % 9_999, CARDS))
    if wait:
        house.settle()


def take_copy(house: House, way: Way) -> Path:
    """Copy what may be put back later."""
    target = house.folder / "copy"
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    names = _affected(house, way)
    if way.frozen:
        for name in names:
            os.kill(house.processes[name].pid, signal.SIGSTOP)
    else:
        _stop(house, names)
    try:
        for path in _files(house.folder, way):
            copy = shutil.copytree if path.is_dir() else shutil.copy2
            copy(path, target / path.name)
    finally:
        if way.frozen:
            for name in names:
                os.kill(house.processes[name].pid, signal.SIGCONT)
        else:
            house.start(*names)
    return target


def put_back(house: House, way: Way, copied: Path) -> None:
    """Put the copy in the place of what has come since."""
    names = _affected(house, way)
    _stop(house, names)
    for path in _files(house.folder, way):
        shutil.rmtree(path) if path.is_dir() else path.unlink()
    for path in copied.iterdir():
        copy = shutil.copytree if path.is_dir() else shutil.copy2
        copy(path, house.folder / path.name)
    house.start(*names)


def _affected(house: House, way: Way) -> list[str]:
    names = list(house.connectors) if way.connectors else []
    return ["router", *names] if way.router else names


def _stop(house: House, names: list[str]) -> None:
    for name in reversed(names):
        status = house.stop(name)
        if status not in (0, -signal.SIGTERM):
            raise AssertionError(f"{name} ended with {status}: {house.log(name)[-2_000:]}")


def _files(folder: Path, way: Way) -> Iterator[Path]:
    if way.router:
        yield folder / "data"
    if way.connectors:
        for name in STATE_FILES:
            yield from sorted(folder.glob(f"{name}*"))


# -- comparing ------------------------------------------------------------------------------------


def judge(house: House, verdict: Verdict) -> None:
    """Compare what the journal says was delivered with what the partners have."""
    house.ops("check")  # what was settled a moment ago is on the disk
    ledgers = {name: _by_key(house.ledger(name)["entries"]) for name in PARTNERS}
    for one in delivered(house):
        entry = ledgers[one.destination].get(one.key)
        verdict.checked += 1
        if entry is None:
            verdict.missing.append(f"{one.destination}: {one.type} {one.key} ({one.note})")
        elif not any(str(number).encode() in one.about for number in _numbers(entry)):
            verdict.missing.append(f"{one.destination}: {one.type} {one.key} is about another call")


def _by_key(entries: list[dict[str, Any]]) -> dict[str, dict[str, Any]]:
    return {entry["key"]: entry for entry in entries}


def _numbers(entry: dict[str, Any]) -> list[Any]:
    return [entry[name] for name in ("id112", "call", "call_id", "id") if entry.get(name)]


def delivered(house: House) -> list[Delivered]:
    """Return what the journal of a house says its partners have answered well."""
    folder = house.folder / "reading"
    os.kill(house.processes["router"].pid, signal.SIGSTOP)
    try:
        shutil.copytree(house.folder / "data", folder)
    finally:
        os.kill(house.processes["router"].pid, signal.SIGCONT)
    db = apsw.Connection(str(folder / "journal.db"))
    try:
        bus = next(db.execute("select value from meta where key = 'bus'"))[0]
        generations = Generations(
            list(db.execute("select first_delivery, word from generation order by 1"))
        )
        rows = list(db.execute(
            "select delivery, destination, note, raw from outcome join message using (n)"
            " where state = ? and note like 'HTTP 2%'", (int(State.SETTLED),),
        ))  # fmt: skip
    finally:
        db.close()
        shutil.rmtree(folder)
    found = []
    for delivery, destination, note, raw in rows:
        if destination in PARTNERS:
            message = decode_message(raw)
            about = f"{message.subject} {message.correlation_id} ".encode() + message.body
            key = key_of(bus, delivery, generations.of(delivery))
            if not message.type.startswith("telephony."):  # the partner keeps no book of those
                found.append(Delivered(key, destination, message.type, about, note))
    return found
