"""Reports through a real router: the commands, the pages, the events, and who has gone."""

import asyncio
import json
import os
import subprocess
import urllib.request
from collections.abc import Iterator
from typing import Any

import msgspec
import pytest
import zmq

from proto import frames
from proto.report import LookupReport, PartnerReport, PeerReport
from tests.integration.bus import SMPBUS, RouterProcess
from tests.ports import free_port

UP = PeerReport(
    partners=[PartnerReport(system="МИС", up=True, since=1, p50_ms=20.0, p99_ms=150.0)],
    lookups=[LookupReport(kind="patients", near=97, missed=3, p50_ms=0.1, p99_ms=20.0)],
)
DOWN = PeerReport(
    partners=[PartnerReport(system="МИС", up=False, since=1, failures={"connect": 12})]
)


class Site:
    """A router with its pages."""

    def __init__(self) -> None:
        self.router = RouterProcess()
        self.port = free_port()
        config = self.router.config
        text = config.read_text().replace('http = ""', f'http = "127.0.0.1:{self.port}"')
        config.write_text(text)

    def get(self, page: str) -> tuple[int, bytes]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}{page}", timeout=10) as answer:
            return answer.status, answer.read()

    def run(self, *arguments: str) -> str:
        """Return what a command prints in an 80-column terminal."""
        done = subprocess.run(
            [SMPBUS, *arguments, "--config", str(self.router.config)],
            capture_output=True, text=True, timeout=60, check=True,
            env=os.environ | {"SMPBUS_LANG": "ru", "COLUMNS": "80", "NO_COLOR": "1"},
        )  # fmt: skip
        return done.stdout

    def row(self, name: str, wanted: Any) -> dict[str, Any]:
        """Return the row of `name` as soon as it is as `wanted`."""

        def found(answer: dict[str, Any]) -> list[dict[str, Any]]:
            return [r for r in answer["partners"] if r["connector"] == name and wanted(r)]

        return found(self.router.wait_until("partners", found))[0]


@pytest.fixture
def site() -> Iterator[Site]:
    site = Site()
    with site.router:
        yield site


def test_what_is_reported_is_seen_everywhere_and_forgotten_with_the_session(site: Site) -> None:
    async def act() -> None:
        do = asyncio.to_thread  # the session lives on while commands run
        async with site.router.client("consumer") as bus:
            bus.report(UP)
            row = await do(site.row, "consumer", lambda row: row["partners"])
            assert (row["state"], row["lookups"][0]["hit_rate"]) == ("reporting", 0.97)
            assert "20 мс / 150 мс: МИС" in await do(site.run, "status")
            assert "97.0 %" in await do(site.run, "partners")
            (session,) = (await do(site.router.ask, "sessions"))["sessions"]
            assert session["reported_at"] == row["reported_at"]
            metrics = (await do(site.get, "/metrics"))[1].decode()
            assert 'smpbus_partner_up{connector="consumer",system="МИС"} 1.0' in metrics
            bus.report(DOWN)
            await do(site.row, "consumer", lambda row: row["partners"][0]["up"] is False)
            assert "НЕ ОТВЕЧАЕТ" in await do(site.run, "status")
            # A dead partner is no reason to restart the router.
            assert (await do(site.get, "/readyz"))[0] == 200
            status, page = await do(site.get, "/partners")
            assert (status, json.loads(page)["ok"]) == (200, False)

    asyncio.run(act())
    row = site.row("consumer", lambda row: row["state"] == "absent" and row["since"])
    assert row["partners"] == []
    assert "отключён" in site.run("partners")
    assert json.loads(site.run("partners", "--json"))["partners"] == [row]


def test_a_partner_that_falls_silent_is_an_event(site: Site) -> None:
    with zmq.Context() as context, context.socket(zmq.SUB) as events:
        events.subscribe(b"partner")
        events.connect(site.router.events)
        with site.router.blocking("consumer") as bus:
            bus.report(UP)
            site.row("consumer", lambda row: row["partners"])
            assert events.poll(10_000)  # it has come
            bus.report(DOWN)
            told: list[Any] = []
            while {"name": "consumer", "system": "МИС", "state": "down"} not in told:
                assert events.poll(10_000), told
                told.append(msgspec.json.decode(events.recv_multipart()[1]))


@pytest.mark.fault("A13")
def test_a_state_file_that_is_away_is_shown_to_people_too(site: Site) -> None:
    """It stood in the JSON alone. A report of another shape is no reason to show nothing."""
    with site.router.blocking("consumer") as bus:
        for away in ({"/var/lib/smpbus/x.db": "database is locked"}, [1], "x"):
            bus.report(msgspec.structs.replace(UP, figures={"state_files_away": away}))
            site.row("consumer", lambda row, away=away: row["figures"]["state_files_away"] == away)
            shown = site.run("partners")
            assert "МИС" in shown
            assert ("x.db: database is locked" in shown) is isinstance(away, dict)


def test_a_report_too_long_or_senseless_harms_nobody(site: Site) -> None:
    with site.router.blocking("consumer") as bus:
        bus._peer._send(frames.REPORT, frames.Report(b" " * (frames.REPORT_BYTES_MAX + 1)))
        bus.report(b"\x1b[2J")
        row = site.row("consumer", lambda row: row["reported_at"])
        assert row["state"] == "unreadable"
        assert "отчёт?" in site.run("partners")
        assert site.get("/metrics")[0] == 200
        bus.report(UP)
        site.row("consumer", lambda row: row["state"] == "reporting")
