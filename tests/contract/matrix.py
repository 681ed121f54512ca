"""Every connector × every fault: broken, watched failing, mended, and looked at from all sides."""

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

import msgspec
from lxml import etree

from connectors.partners.sys112 import soapdoor
from connectors.runtime.markup import soap, xml
from connectors.simulators.sys112.samples import day_of_cards
from proto.logs import QUIET
from proto.note import coded
from tests.contract.authority import Authority
from tests.contract.hub import hub
from tests.contract.line import Mode
from tests.contract.rows import CANARIES, ROWS, Row, call_of, message, worker_of
from tests.contract.stand import Attempt, Stand
from tests.until import until

IN_ALL = "in all"
ANOTHER = 500  # added to the number of a cell's own thing
TURNS = 5  # with another one
OUTAGE, BACK = "Unable to complete network request to host", "снова отвечает"
Expected = Literal["again", "at once", "dead", "n/a"]


@dataclass(frozen=True)
class Fault:
    """One way to fail. `away`: the administrator must hear of it (once); of others he may."""

    name: str
    line: Mode = "open"
    switches: dict[str, Any] = field(default_factory=dict)
    away: bool = False


FAULTS = (
    Fault("down", line="refuse", away=True),
    Fault("hang", line="hang", away=True),
    Fault("line cut", line="cut", away=True),
    Fault("certificate", away=True),
    Fault("slow", switches={"delay_s": 2.0}, away=True),
    Fault("stall", switches={"spoil": "stall"}, away=True),
    Fault("503", switches={"down": True}, away=True),
    Fault("500", switches={"fail": 1.0}),
    Fault("422", switches={"refuse": 1.0}),
    Fault("fault", switches={"spoil": "fault"}),
    Fault("sender", switches={"spoil": "sender"}),
    Fault("half", switches={"spoil": "half"}, away=True),
    Fault("cut", switches={"spoil": "cut"}),
    Fault("html", switches={"spoil": "html"}),
    Fault("type", switches={"spoil": "type"}),
    Fault("encoding", switches={"spoil": "encoding"}),
    Fault("redirect", switches={"spoil": "redirect"}),
    Fault("drip", switches={"spoil": "drip"}, away=True),
    Fault("giant", switches={"spoil": "giant"}, away=True),
    Fault("an hour", switches={"spoil": "later"}, away=True),
    Fault("at once", switches={"spoil": "now"}, away=True),
    Fault("cookies", switches={"spoil": "cookies"}),
    Fault("twice"),
    Fault("early"),
)
# The exchange speaks no HTTP: "503" is a line that ends at each action, "html" are packets that are
# none.
AMI = frozenset({"down", "hang", "line cut", "certificate", "slow", "503", "html"})
# Their answers say enough, whatever they are called.
TOLERANT = frozenset({"sys112", "smp"})


@dataclass
class Outcome:
    """What came of one cell."""

    verdict: str
    problems: list[str] = field(default_factory=list)


class Lines(logging.Handler):
    """Every line that a connector's process would write, as it would be written."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        if record.name.partition(".")[0] not in QUIET or record.levelno >= logging.ERROR:
            self.lines.append(self.format(record))


def expected(row: Row, fault: Fault) -> Expected:
    """Return what a cell must come to."""
    name = fault.name
    if name in ("twice", "early"):
        return "at once" if name in row.callbacks else "n/a"
    if (row.name == "ats" and name not in AMI) or (name in ("fault", "sender") and not row.soap):
        return "n/a"
    if name == "an hour" and row.kind in ("load", "client"):
        return "n/a"  # nobody waits for them: they do as they are told, for half a minute at most
    if name in row.dead:
        return "dead"
    at_once = (
        name == "cookies"
        or (name == "type" and (row.soap or row.name in TOLERANT))
        or (row.name == "ats" and name == "html")
    )
    return "at once" if at_once else "again"


async def play(folder: Path) -> dict[tuple[str, str], Outcome]:
    """Return the outcome of every cell. Rows go beside each other, the cells of a row one after
    another: each connector has to come back from every fault."""
    region = Authority(folder / "tls")
    with _listening() as lines:
        async with hub([row.name for row in ROWS if row.shape is not None]) as bus:
            stands = [Stand(row, bus, _folder(folder, row), region) for row in ROWS]
            async with contextlib.AsyncExitStack() as stack:
                # All are up before anything breaks: making them keeps the loop from answering.
                for stand in stands:
                    await stack.enter_async_context(stand.at_work())
                found = await asyncio.gather(*(_row(stand, lines) for stand in stands))
            leaked = _leaks(bus.logs())
    outcomes = {(name, fault): outcome for one in found for (name, fault), outcome in one.items()}
    if leaked:
        outcomes["router", "log"] = Outcome("leaked", [f"the router's log tells {leaked}"])
    return outcomes


def _folder(folder: Path, row: Row) -> Path:
    made = folder / row.name
    made.mkdir()
    return made


@contextlib.contextmanager
def _listening() -> Iterator[Lines]:
    lines, root = Lines(), logging.getLogger()
    level = root.level
    root.addHandler(lines)
    root.setLevel(logging.INFO)
    try:
        yield lines
    finally:
        root.removeHandler(lines)
        root.setLevel(level)


async def _row(stand: Stand, lines: Lines) -> dict[tuple[str, str], Outcome]:
    outcomes: dict[tuple[str, str], Outcome] = {}
    begun, done = await stand.applied(), 0
    for number, fault in enumerate(FAULTS, 1):
        wanted = expected(stand.row, fault)
        if wanted == "n/a":
            outcome = Outcome("–")
        else:
            try:
                await until(stand.is_well, "for the partner")
                cell = Cell(stand, fault, number, lines)
                outcome = await cell.play(wanted)
                done += cell.effects
            except Exception as error:
                outcome = Outcome("broken", [f"{type(error).__name__}: {error}"])
                await stand.mend()
        outcomes[stand.row.name, fault.name] = outcome
    # Slow requests that nobody waited for have been worked on by now.
    count = await stand.applied() - begun
    wrong = [] if count == done else [f"done {count} times at the partner, not {done}"]
    outcomes[stand.row.name, IN_ALL] = Outcome(str(count), wrong)
    return outcomes


class Cell:
    """One connector and one fault."""

    def __init__(self, stand: Stand, fault: Fault, number: int, lines: Lines) -> None:
        self._stand = stand
        self._fault = fault
        self._number = number
        self._lines = lines
        self._first = len(lines.lines)
        self._problems: list[str] = []
        self.effects = 0  # at the partner, so far
        self._mended = False

    async def play(self, wanted: Expected) -> Outcome:
        """Break, bring, watch it fail, mend, and look."""
        stand, fault = self._stand, self._fault
        before = await stand.applied()
        if fault.name == "twice" and not stand.row.told:
            await self._inbound()
            return Outcome("once", self._problems)
        await self._break()
        attempt = await stand.bring(self._number)
        if wanted == "again":
            # A register that calls back although its answer was lost need not be asked again.
            enough = 1 if stand.row.told else 2
            await until(lambda: len(attempt.failures) >= enough or attempt.end, "for it to fail")
            self._must(len(attempt.failures) >= enough, f"ended at once: {attempt.end}")
            told = self._told()
            self._must(not fault.away or told == "!", f"told {told} while it failed")
            await self._mend()
        await until(lambda: attempt.end, "for its end")
        await self._mend()
        # A machine with much to do may let the answer be late, whatever it was.
        late = coded("connector.no_answer", why="timeout")
        others = set(attempt.failures) - {late}
        self._must(wanted != "at once" or not others, f"failed: {others}")
        self._must((attempt.end == "dead") == (wanted == "dead"), f"ended {attempt.end}")
        await self._check_lines(attempt)
        if stand.row.kind == "delivery":
            await self._check_effect(before, attempt)
        elif stand.row.kind == "load":
            self._check_load()
        if fault.name in ("twice", "early"):
            await self._check_told()
        shown = {"at once": "once", "again": f"{len(attempt.failures)}+1", "dead": "dead"}
        return Outcome(shown[wanted], self._problems)

    def _must(self, true: bool, otherwise: str) -> None:
        if not true:
            self._problems.append(otherwise)

    async def _break(self) -> None:
        stand, fault = self._stand, self._fault
        if fault.name == "certificate":
            await stand.show_bad_certificate()
        elif fault.line != "open":
            await stand.line.set(fault.line)
        elif fault.switches and (stand.row.name != "ats" or fault.name != "html"):
            await stand.faults(**fault.switches)
        if stand.row.name == "ats":
            await self._break_exchange()
        if stand.row.name in ("rmr", "rmr-questions"):
            await stand.drive(put=[worker_of(self._number)])
        if fault.name in ("twice", "early"):
            await stand.drive(**{fault.name: True})

    async def _mend(self) -> None:
        if not self._mended:
            self._mended = True
            certificate = self._fault.name == "certificate"
            await self._stand.mend(line=certificate or self._fault.line != "open")

    async def _break_exchange(self) -> None:
        connector: Any = self._stand.connector
        if self._fault.name == "html":
            await until(lambda: connector._line.session, "for the exchange")
            await self._stand.drive(garbage=5)
            return
        # A click while the line breaks is dialled once or not at all: test_ats_contract.py. Here
        # it comes while the line is down.
        await until(lambda: connector._line.session is None, "for the line to be missed")

    async def _inbound(self) -> None:
        """The partner brings the same thing three times, twice at once."""
        stand = self._stand
        method, path, body, type = _brought(stand.row)
        asks = [stand.door.request(method, path, body) for _ in range(2)]
        answers = [*await asyncio.gather(*asks), await stand.door.request(method, path, body)]
        self._must({one.status for one in answers} == {200}, "was not taken three times")
        heard = stand.hub.heard[stand.row.name]
        await until(lambda: any(one.type == type for one in heard), "for the bus to hear of it")
        await asyncio.sleep(0.1)
        self._must(sum(one.type == type for one in heard) == 1, "is on the bus twice")
        self._must(not _leaks("\n".join(self._lines.lines[self._first :])), "the log tells a name")

    # -- what must be true now ------------------------------------------------------------------

    async def _check_effect(self, before: int, attempt: Attempt) -> None:
        """Once at the partner, or not at all; and the operator can read why."""
        stand = self._stand
        once = 0 if attempt.end == "dead" else 1
        self.effects += once
        count = await stand.applied() - before
        self._must(count == self.effects, f"done {count} times at the partner")
        fate: Any = {}

        async def ended() -> bool:
            fate.update(await stand.hub.fate(stand.row.name, f"case-{self._number}"))
            return bool(fate["state"] == attempt.end)

        with contextlib.suppress(AssertionError):
            await until(ended, "the settlement, which is on its way")
        self._must(fate["state"] == attempt.end, f"the router has it as {fate['state']}")
        self._must(bool(fate["note"]), "there is no note")
        notes = [one["note"] for one in fate["history"]]
        self._must(len(notes) >= len(attempt.failures) - (not once), f"reasons lost: {notes}")
        self._must(not _leaks(msgspec.json.encode(fate).decode()), "the trace tells a name")

    def _check_load(self) -> None:
        heard = self._stand.hub.heard[self._stand.row.name]
        id = worker_of(self._number)["id"]
        count = sum(one.json()["id"] == id for one in heard)  # type: ignore[index]
        self._must(count == 1, f"is on the bus {count} times")

    async def _check_told(self) -> None:
        """Whatever crossed or came twice, each step is told once."""
        stand, call = self._stand, call_of(self._number)
        heard = stand.hub.heard[stand.row.name]

        def states() -> Counter[str]:
            bodies: list[Any] = [one.json() for one in heard]
            about = [one for one in bodies if one.get("call_id") == call]
            return Counter(one["state"] for one in about)

        await until(lambda: set(stand.row.told) <= set(states()), f"for {stand.row.told}")
        await stand.applied()
        await asyncio.sleep(0.1)
        ledger = await stand.ledger()
        self._must(set(states().values()) == {1}, f"told {dict(states())}")
        self._must(not ledger.get("wrong"), f"the partner complains: {ledger.get('wrong')}")
        await stand.drive(early=False)

    def _told(self) -> str:
        """Return what the administrator was told of this partner: "!" gone, "." back."""
        system = self._stand.row.system
        ends = (f"{system};", f"{system} ")  # "sys112" is the beginning of "sys112-soap"
        mine = [one for one in self._lines.lines[self._first :] if any(end in one for end in ends)]
        marks = ["!" if OUTAGE in one else "." for one in mine if OUTAGE in one or BACK in one]
        return "".join(marks)

    async def _check_lines(self, attempt: Attempt) -> None:
        """One line for each outage and one for its end; nothing of a person, ever."""
        for turn in range(TURNS if self._stand.row.told else 0):
            if not self._told().endswith("!"):
                break
            # The register called back meanwhile: there was nothing more to ask it. With much to do
            # beside it, it may seem gone once more while it is asked.
            await self._bring_another(turn)
        await until(lambda: not self._told().endswith("!"), "for its return")
        # A machine with much to do may see a second, real outage: never two lines of one.
        told = self._told()
        self._must(told == "!." * (len(told) // 2), f"told {told}")
        said = "\n".join([*attempt.failures, *self._lines.lines[self._first :]])
        self._must(not _leaks(said), f"a log or reason tells {_leaks(said)}")
        self._must(all(attempt.failures), "a failure without a reason")

    async def _bring_another(self, turn: int) -> None:
        another = await self._stand.bring(self._number + ANOTHER * (turn + 1))
        await until(lambda: another.end, "for another one")
        await self._stand.applied()
        self.effects += 1


def _leaks(said: str) -> list[str]:
    return [canary for canary in CANARIES if canary in said]


def _brought(row: Row) -> tuple[str, str, bytes, str]:
    """Return what a partner may bring twice: method, path, body, and the type it becomes."""
    if row.name == "smp":
        return "POST", "/bus/status", message("call.status.v1", 999).body, "call.status.v1"
    card = next(one for one in day_of_cards(5, 5) if one.kind == "new")
    if row.soap:
        root = etree.Element(f"{{{soapdoor.NAMESPACE}}}UpdateCardRequest")
        xml.write(root, card.body, soapdoor.NAMESPACE)
        return "POST", soapdoor.PATH, soap.envelope(root), "incident.card.v1"
    body = msgspec.json.encode(card.body)
    return "PUT", f"/112/cards/{card.id112}", body, "incident.card.v1"


def table(outcomes: dict[tuple[str, str], Outcome]) -> str:
    """Return the matrix for people: "2+1" is failed twice and then done once; the last line counts
    what was done at the partner."""
    width = max(len(row.name) for row in ROWS) + 2
    lines = [" " * 12 + "".join(f"{row.name:>{width}}" for row in ROWS)]
    for fault in FAULTS:
        cells = (outcomes[row.name, fault.name] for row in ROWS)
        shown = ("FAILED" if one.problems else one.verdict for one in cells)
        lines.append(f"{fault.name:12}" + "".join(f"{one:>{width}}" for one in shown))
    totals = (outcomes[row.name, IN_ALL].verdict for row in ROWS)
    lines.append(f"{IN_ALL:12}" + "".join(f"{one:>{width}}" for one in totals))
    return "\n".join(lines)
