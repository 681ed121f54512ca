"""A day of System-112 in some seconds: cards go in, calls are lived, statuses come back.

The cards are posted by the simulator of 112, to the connector, as 112 itself would.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Final

import msgspec

from connectors.runtime.partner.http import HttpClient, Unreachable
from connectors.simulators.demo.folder import DemoFolder
from connectors.simulators.sys112.samples import Sample, day_of_cards
from proto.ops import OpsError, ops_request

DAY_S: Final = 24 * 3600.0
CARD_S: Final = 0.2
LOOK_S: Final = 0.3
# Nothing has moved for so long: the day will not end by itself any more.
STUCK_S: Final = 20.0
PARTNER_QUEUES: Final = ("smp", "sys112", "rmis", "ats", "tfoms")
OPEN_STATES: Final = ("pending", "in_flight", "retrying")


@dataclass(frozen=True)
class Progress:
    """How far the day is, counted where it happened: at 112, on the bus, at the ambulance."""

    posted: int = 0
    accepted: int = 0
    refused: int = 0
    calls: int = 0
    living: int = 0
    statuses: int = 0
    reactions: int = 0
    open: int = 0

    def ended(self, cards: int) -> bool:
        """Whether all cards are answered, all calls lived and the partners' queues empty."""
        answered = self.accepted + self.refused == cards
        return answered and self.living == 0 and self.open == 0


@dataclass
class Day:
    """A run of one day of cards through the demo."""

    folder: DemoFolder
    seed: int
    count: int
    samples: list[Sample] = field(init=False)
    ambulance: dict[str, Any] = field(default_factory=dict)
    system112: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.samples = day_of_cards(self.seed, self.count)
        self._posted = 0
        self._http112 = HttpClient(self.folder.url("sim-sys112"))
        self._http_smp = HttpClient(self.folder.url("sim-smp"))
        self._http_ats = HttpClient(self.folder.url("sim-ats"))
        self._http_rmis = HttpClient(self.folder.url("sim-rmis"))

    async def close(self) -> None:
        """Close the connections to the simulators."""
        await self._http112.close()
        await self._http_smp.close()
        await self._http_ats.close()
        await self._http_rmis.close()

    async def run(self, show: Callable[[Progress], None]) -> bool:
        """Feed the day; return whether all of it came to its end."""
        begun = moved = time.monotonic()
        last, length_s = Progress(), self.count * CARD_S
        while time.monotonic() - moved < STUCK_S:
            await self._post_until((time.monotonic() - begun) / length_s * DAY_S)
            now = await self.look()
            show(now)
            if now != last:
                last, moved = now, time.monotonic()
            elif now.ended(len(self.samples)):
                return True
            await asyncio.sleep(LOOK_S)
        return False

    async def post(self, samples: list[Sample]) -> None:
        """Have the callers ring, then System-112 send these."""
        if callers := [sample.phone for sample in samples if sample.phone]:
            body = msgspec.json.encode({"callers": callers})
            await self._http_ats.request("POST", "/drive", body)
        body = msgspec.json.encode({"cards": [sample.push() for sample in samples]})
        await self._http112.request("POST", "/drive", body)
        self._posted += len(samples)

    async def look(self) -> Progress:
        """Return how far everybody is."""
        self.system112 = await _ledger(self._http112)
        self.ambulance = await _ledger(self._http_smp)
        hospitals = await _ledger(self._http_rmis)
        answers = self.system112.get("answers", [])
        accepted = sum(200 <= answer["status"] < 300 for answer in answers)
        calls = self.ambulance.get("calls", [])
        open_, settled = self._queues()
        return Progress(
            posted=self._posted,
            accepted=accepted,
            refused=len(answers) - accepted,
            calls=len(calls),
            living=self.ambulance.get("living", 0) + hospitals.get("living", 0),
            statuses=settled,
            reactions=len(self.system112.get("entries", [])),
            open=open_,
        )

    def told_of(self, id112: str) -> list[str]:
        """Return what the ambulance was told of a card's call, as of the last look."""
        for call in self.ambulance.get("calls", []):
            if id112 in call["cards"]:
                return list(call["told"])
        return []

    async def _post_until(self, offset_s: float) -> None:
        due = self._posted
        while due < len(self.samples) and self.samples[due].offset_s <= offset_s:
            due += 1
        if due > self._posted:
            await self.post(self.samples[self._posted : due])

    def _queues(self) -> tuple[int, int]:
        """Return how many deliveries to partners are open, and how many to 112 are settled."""
        try:
            rows = ops_request(self.folder.ops, "queues")["queues"]
        except OpsError:
            return -1, -1  # restarting: surely not the end of the day
        queues = {row["destination"]: row for row in rows}
        open_ = sum(queues[name][state] for name in PARTNER_QUEUES for state in OPEN_STATES)
        return open_, queues["sys112"]["settled"]


async def _ledger(client: HttpClient) -> dict[str, Any]:
    try:
        answer = await client.request("GET", "/ledger")
        return msgspec.json.decode(answer.body, type=dict[str, Any])
    except (Unreachable, msgspec.DecodeError):
        return {}
