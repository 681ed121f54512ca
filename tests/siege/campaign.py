"""The siege: a calm phase, one attack after the other, and the books at the end."""

import contextlib
import json
import math
import os
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from proto.ops import OpsError
from tests.bench import machine
from tests.siege.attacks import Attack
from tests.siege.town import ALL, Town, soon
from tests.siege.verdict import HEAD, Book, Line, cards, row

AFTER_S: Final = 1.0  # the end of an attack belongs to it
RECOVER_S: Final = 15.0
READY_S: Final = 10.0
WELL_S: Final = 0.5
WAITING_MAX: Final = 5  # cards that come and go
STOP_S: Final = 20.0
TAKEN_S: Final = 45.0
ROOM_BYTES: Final = 48 << 20  # what a nearly full disk still takes


@dataclass
class Siege:
    """One run. `by_time`: quantiles are judged, too."""

    attacks: tuple[Attack, ...]
    calm_s: float
    attack_s: float
    by_time: bool = True
    lines: list[Line] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)
    lost: int = 0
    reordered: int = 0
    book: Book = field(default_factory=Book)
    _calm_p99_s: float | None = None

    def run(self, town: Town) -> None:
        """Attack, and judge."""
        town.start_all()
        if not soon(lambda: len(self.book.follow(town.folder).taken) > 10, 20):
            raise AssertionError(f"no good peer: {town.log('good')}")
        time.sleep(1.0)
        print(HEAD, flush=True)
        self._phase(town, Attack("calm"), self.calm_s)
        for attack in self.attacks:
            self._phase(town, attack, self.attack_s)
        self._end(town)

    # -- one phase ------------------------------------------------------------------------------

    def _phase(self, town: Town, attack: Attack, seconds: float) -> None:
        for process in town.processes.values():
            _forget_peak(process.pid)
        line = Line(attack.name, time.monotonic(), 0.0)
        with contextlib.ExitStack() as undo:
            self._prepare(town, attack, undo)
            names = [
                town.start_module("attacker", one, str(seconds), name=f"attacker-{number}-{one}")
                for number, one in enumerate(attack.attackers)
            ]
            soon(lambda: all(town.log(name) for name in names), READY_S)
            line.begin = time.monotonic()
            time.sleep(seconds)
            for name in names:
                town.end(name, 5.0)
        if attack.name != "calm":
            time.sleep(AFTER_S)
        line.end = time.monotonic()
        self._look(town, line)
        recovered = soon(lambda: self._is_well(town, attack), RECOVER_S)
        line.measure(self.book.follow(town.folder), self._calm_p99_s, cards(town.folder))
        if self._calm_p99_s is None:
            self._calm_p99_s = line.p99_s
        else:
            line.judge(by_time=self.by_time)
        if not recovered:
            line.wrong.append(f"not well {RECOVER_S:g} s later")
        self._check(town, line)
        self.lines.append(line)
        print(row(line), flush=True)

    def _prepare(self, town: Town, attack: Attack, undo: contextlib.ExitStack) -> None:
        """Begin what goes on during the attack, and say how it ends."""
        if attack.partner:
            word = town.folder / "evil"
            word.write_text(attack.partner, encoding="ascii")
            undo.callback(word.unlink)
        if attack.reader_stops:
            for name in ("router", *town.connectors):
                town.readers[name].stands_still.set()
                undo.callback(town.readers[name].stands_still.clear)
        if attack.fills:
            shelve = town.folder / "shelve"
            shelve.touch()
            undo.callback(shelve.unlink)
            status = os.statvfs(town.folder)
            self._leave_free(town, status.f_bavail * status.f_frsize - ROOM_BYTES)
            undo.callback(self._leave_free, town, 256 << 20)

    @staticmethod
    def _leave_free(town: Town, bytes_min: int) -> None:
        town.store_bytes_min(bytes_min)
        with contextlib.suppress(OpsError):
            town.ops("reload")

    def _look(self, town: Town, line: Line) -> None:
        """Read what memory each process had at most."""
        for name, process in town.processes.items():
            try:
                peak = machine.memory_mb(process.pid, "VmHWM")
            except (OSError, ValueError):
                continue  # it has ended: `_check` says so
            if name == "router":
                line.router_mb = peak
            elif name in town.connectors and peak > line.connector_mb:
                line.connector_mb, line.largest = peak, name

    def _is_well(self, town: Town, attack: Attack) -> bool:
        """Whether the good peer's newest messages go through as if nothing had been, and a partner
        that is good again gets what waited for it."""
        now = time.monotonic()
        took = self.book.follow(town.folder).took(now - 1.2, now - 0.2)
        if not took or took[-1] >= WELL_S:
            return False
        row = town.queue("smp") if attack.partner else {}
        waiting = sum(int(row.get(key, 0)) for key in ("pending", "in_flight", "retrying"))
        return waiting <= WAITING_MAX

    @staticmethod
    def _check(town: Town, line: Line) -> None:
        """Books and survivors."""
        try:
            line.wrong += [f"books of {name}" for name in town.ops("check", 10.0)["wrong"]]
        except OpsError as error:
            line.wrong.append(f"no check: {error.code}")
        for name, process in list(town.processes.items()):
            if not name.startswith("attacker") and process.poll() is not None:
                line.wrong.append(f"{name} ended with {process.returncode}")
                if name == "good":
                    raise AssertionError(f"the good peer has ended: {town.log('good')[-2000:]}")
                town.start_again(name)

    # -- the end --------------------------------------------------------------------------------

    def _end(self, town: Town) -> None:
        (town.folder / "stop").touch()
        for name in ("good", "caller"):
            process = town.processes.get(name)
            if process is None:
                continue
            with contextlib.suppress(TimeoutError, Exception):
                process.wait(TAKEN_S)
            if code := town.end(name):
                self.wrong.append(f"{name} ended with {code}: {town.log(name)[-300:]}")
        book = self.book.follow(town.folder)
        self.lost, self.reordered = book.lost(), book.reordered()
        if len(book.accepted) + len(book.refused) < len(book.due):
            missing = len(book.due) - len(book.accepted) - len(book.refused)
            self.wrong.append(f"{missing} messages of the good peer have no answer")
        if "smp" in town.connectors and "sys112" in town.connectors:
            self.lost += self._lost_cards(town)
        if town.processes["router"].poll() is None:
            self._stop_router(town)
        if self.lost:
            self.wrong.append(f"{self.lost} lost")
        if self.reordered:
            self.wrong.append(f"{self.reordered} out of order")

    def _lost_cards(self, town: Town) -> int:
        """Return how many cards were answered 2xx and are not with the ambulance."""
        wanted = {one["card"] for one in cards(town.folder)}
        missing = set(wanted)

        def arrived() -> bool:
            calls = (town.ledger("smp") or {"calls": []})["calls"]
            missing.difference_update(card for call in calls for card in call["cards"])
            return not missing

        soon(arrived, TAKEN_S)
        if missing:
            self.wrong.append(f"{len(missing)} of {len(wanted)} cards did not arrive")
        return len(missing)

    def _stop_router(self, town: Town) -> None:
        try:
            self.wrong += [f"books of {name}" for name in town.ops("check", 10.0)["wrong"]]
        except OpsError as error:
            self.wrong.append(f"no check at the end: {error.code}")
        for name in town.connectors:
            code = town.end(name, STOP_S) if name in town.processes else 0
            if code != 0:
                self.wrong.append(f"{name} ended with {code}")
        if code := town.end("router", STOP_S):
            self.wrong.append(f"the router ended with {code}")
        elif code is None:
            self.wrong.append(f"the router did not end within {STOP_S:g} s")

    # -- figures --------------------------------------------------------------------------------

    @property
    def ok(self) -> bool:
        """Whether nothing is wrong."""
        return not self.wrong and not any(line.wrong for line in self.lines)

    def sentences(self) -> list[str]:
        """Return what is wrong."""
        told = [f"{line.name}: {one}" for line in self.lines for one in line.wrong]
        return told + self.wrong

    def figures(self) -> dict[str, Any]:
        """Return the last line."""
        ratios = [line.ratio for line in self.lines if not math.isnan(line.ratio)]
        return {
            "ok": self.ok,
            "lost": self.lost,
            "reordered": self.reordered,
            "worst_p99_ratio": _number(max(ratios, default=0.0)),
            "router_rss_mb": _number(max((line.router_mb for line in self.lines), default=0.0)),
            "connector_rss_mb": _number(
                max((line.connector_mb for line in self.lines), default=0.0)
            ),
            "calm_p99_ms": _number((self._calm_p99_s or 0.0) * 1000),
            "attacks": len(self.lines) - 1,
            "failed": [line.name for line in self.lines if line.wrong],
        }


def _number(value: float) -> float:
    return round(value, 2) if math.isfinite(value) else 1e9


def _forget_peak(pid: int) -> None:
    """Have the kernel count the peak of a process's memory anew."""
    with contextlib.suppress(OSError):
        Path(f"/proc/{pid}/clear_refs").write_text("5")


def besiege(siege: Siege, connectors: tuple[str, ...] = ALL) -> Town:
    """Run a siege in a town of its own, which is closed at the end; its folder is kept when
    something is wrong."""
    town = Town(connectors)
    done = False
    try:
        siege.run(town)
        done = siege.ok
    finally:
        town.close(keep=not done)
        if not done:
            print(f"ledgers and logs: {town.folder}", file=sys.stderr, flush=True)
    return town


def last_line(siege: Siege) -> str:
    """Return the figures as one JSON object."""
    return json.dumps(siege.figures())
