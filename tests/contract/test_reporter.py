"""What a connector tells of itself and its partners, over a real socket and real HTTP."""

import asyncio
import logging
import tempfile
from datetime import date
from pathlib import Path
from typing import Any

import msgspec
import pytest

from connectors.partners.tfoms import TfomsConnector
from connectors.runtime.bus import reporter
from connectors.runtime.bus.connector import Connector
from connectors.runtime.bus.reporter import Reporter
from connectors.simulators.kit.simulation import SimulatorSettings
from connectors.simulators.tfoms.simulator import create_app
from proto import frames, schemas
from proto.errors import RequestFailed
from proto.message import Message
from proto.report import PeerReport, read_report
from tests.contract.stage import Bus, Scene, scene
from tests.until import until

PARTNER = {"system": "Фонд", "breaker": {"failures_max": 2, "open_s": 60.0}}


class Listener(Bus):
    """The obedient end of the wire, which keeps the reports."""

    def __init__(self, address: str) -> None:
        super().__init__(address)
        self.reports: list[PeerReport] = []
        self.raw: list[bytes] = []

    def _answers(self, verb: bytes, payload: bytes) -> Any:
        if verb == frames.REPORT:
            told = msgspec.msgpack.decode(payload, type=frames.Report)
            report = read_report(told.body)
            assert report is not None
            self.reports.append(report)
            self.raw.append(told.body)
        return super()._answers(verb, payload)

    async def hear(self, wanted: Any) -> PeerReport:
        """Return the first report that is as `wanted`."""
        found: PeerReport = await until(
            lambda: next((report for report in self.reports if wanted(report)), None), "a report"
        )
        return found


def play(bus: Bus, act: Any) -> Listener:
    listener = Listener(bus.address)

    async def whole(store: Path) -> None:
        simulated = SimulatorSettings()
        async with scene(
            listener, TfomsConnector, create_app, simulated, partner=PARTNER, store_file=store
        ) as stage:
            running = asyncio.create_task(Reporter(stage.connector).run())
            try:
                await act(stage, listener)
            finally:
                running.cancel()
                await asyncio.gather(running, return_exceptions=True)

    with tempfile.TemporaryDirectory() as folder:
        asyncio.run(whole(Path(folder) / "cards.db"))
    return listener


async def ask(connector: Connector, policy: str = "0") -> Any:
    answered: Any = connector.answer
    body = schemas.InsuranceQuestion(policy_number=policy, on_date=date(2026, 1, 1))
    return await answered(Message.new("insurance.lookup.v1", "ward", body))


def test_it_tells_of_the_partner_when_that_changes_and_of_lookups(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporter, "LOOK_S", 0.01)
    monkeypatch.setattr(reporter, "SELDOM", 0)  # the own figures as they are, however long it takes

    async def act(stage: Scene, listener: Listener) -> None:
        first = await listener.hear(lambda _: True)
        assert [(one.system, one.up) for one in first.partners] == [("Фонд", None)]
        await ask(stage.connector)
        up = await listener.hear(lambda report: report.partners[0].up)
        assert up.partners[0].breaker == "closed"
        await ask(stage.connector)  # from the cache
        await stage.faults(down=True)
        for policy in ("1", "2"):
            with pytest.raises(RequestFailed, match="HTTP 503"):
                await ask(stage.connector, policy)
        down = await listener.hear(lambda report: report.partners[0].breaker == "open")
        (partner,) = down.partners
        assert partner.up is False
        assert partner.since is not None
        assert partner.since >= (up.partners[0].since or 0)
        assert partner.answered_at is not None
        assert partner.failures == {"unready": 2}
        assert (partner.requests, partner.answers) == (3, 3)
        assert partner.p99_ms is not None
        (lookup,) = down.lookups
        assert (lookup.kind, lookup.missed, lookup.near) == ("insured", 1, 1)
        assert lookup.failed >= 1  # the one that opened the breaker is being counted just now

    play(bus, act)


def test_figures_that_cannot_be_had_or_are_without_end_harm_nobody(
    bus: Bus, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(reporter, "LOOK_S", 0.01)
    monkeypatch.setattr(reporter, "EVERY_S", 0.0)
    monkeypatch.setattr(reporter, "SELDOM", 0)
    own: dict[str, Any] = {"documents": 1}

    async def act(stage: Scene, listener: Listener) -> None:
        monkeypatch.setattr(stage.connector, "figures", lambda: own)
        await listener.hear(lambda report: report.figures == {"documents": 1})
        for wrong in ("x" * frames.REPORT_BYTES_MAX, object()):
            listener.reports.clear()
            own["documents"] = wrong
            await listener.hear(lambda report: report.partners and not report.figures)
        listener.reports.clear()
        monkeypatch.setattr(stage.connector, "figures", lambda: 1 / 0)
        await listener.hear(lambda report: report.partners and not report.figures)

    with caplog.at_level(logging.ERROR, "smpbus.connector"):
        listener = play(bus, act)
    told = [one.getMessage().rpartition(" ")[2] for one in caplog.records]
    assert told == ["ValueError", "TypeError", "ZeroDivisionError"]  # each of them once
    assert max(map(len, listener.raw)) <= frames.REPORT_BYTES_MAX


def test_what_partners_send_amiss_and_what_waits_for_the_bus_is_counted(
    bus: Bus, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(reporter, "LOOK_S", 0.01)
    monkeypatch.setattr(reporter, "EVERY_S", 0.0)

    async def act(stage: Scene, listener: Listener) -> None:
        listener.silent = True
        rejected = Message.new("input.rejected.v1", stage.connector.name, {})
        publishing = asyncio.create_task(stage.connector.ingress.publish([rejected]))
        await listener.hear(lambda report: (report.rejected, report.waiting) == (1, 1))
        publishing.cancel()
        await asyncio.gather(publishing, return_exceptions=True)

    play(bus, act)
