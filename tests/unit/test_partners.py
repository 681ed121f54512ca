"""What the router makes of reports: rows, the metrics page with bounded labels, events, tables."""

from itertools import count
from random import Random
from typing import Any

import click
import msgspec
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.parser import text_string_to_metric_families
from prometheus_client.registry import Collector

from proto import frames, wording
from proto.report import LookupReport, PartnerReport, PeerReport
from router.commands import partners as command
from router.core.core import Core, Now
from router.settings import BusSettings, Destination, Permission, Settings
from router.shell.partnermetrics import KINDS_MAX, SYSTEMS_MAX, Labels, partner_metrics
from router.shell.partners import Partners, all_well

NAMES = ("rmis", "rmr", "smp")
WALL_MS = 1_800_000_000_000
GOOD = PeerReport(
    partners=[
        PartnerReport(
            system="МИС", up=True, since=WALL_MS, answered_at=WALL_MS + 1, requests=7, answers=6,
            answer_ms=1500.0, failures={"timeout": 1, "unheard_of": 2}, p50_ms=200.0, p99_ms=700.0,
        )
    ],
    lookups=[LookupReport(kind="patients", near=90, far=7, missed=3, total_ms=250.0, p50_ms=0.1)],
    cache=True, rejected=2, waiting=1, figures={"unconfirmed": {"count": 4}},
)  # fmt: skip
BAD = PeerReport(partners=[PartnerReport(system="МИС", up=False, since=1, breaker="open")])


class Router:
    """A core with sessions at hand, and what reads their reports."""

    def __init__(self, names: tuple[str, ...] = NAMES) -> None:
        settings = Settings(
            bus=BusSettings(sessions_max=5000),
            destinations={name: Destination() for name in names},
            permissions={name: Permission(consume=[name]) for name in names}
            | {"admin": Permission(consume=["admin"], operate=True), "ward": Permission()},
        )
        self.core = Core(settings, "bus", 1, Random(1))
        self.partners = Partners(self.core)
        self.labels = Labels()
        self._peers = count()

    def say(self, peer: bytes, verb: bytes, payload: object) -> None:
        self.core.receive(peer, b"", [verb, frames.encode(payload)], Now(WALL_MS, 1))
        self.core.out.sends.clear()

    def greet(self, name: str) -> bytes:
        peer = f"peer{next(self._peers)}".encode()
        self.say(peer, frames.HELLO, frames.Hello([1], name))
        return peer

    def report(self, peer: bytes, report: PeerReport | bytes) -> None:
        raw = report if isinstance(report, bytes) else msgspec.json.encode(report)
        self.say(peer, frames.REPORT, frames.Report(raw))

    def rows(self) -> dict[str, dict[str, Any]]:
        return {row["connector"]: row for row in self.partners.rows()}

    def page(self) -> str:
        """The part of the metrics page, as a monitor gets it."""
        router = self

        class Page(Collector):
            def collect(self) -> Any:
                return partner_metrics(router.partners.connectors(), router.labels)

        registry = CollectorRegistry(auto_describe=False)
        registry.register(Page())
        return generate_latest(registry).decode()

    def samples(self) -> dict[tuple[str, tuple[str, ...]], float]:
        """What a monitor reads: name and labels' values (in the order of labels) -> value."""
        found: dict[tuple[str, tuple[str, ...]], float] = {}
        for family in text_string_to_metric_families(self.page()):
            for sample in family.samples:
                key = (sample.name, tuple(value for _, value in sorted(sample.labels.items())))
                assert key not in found, f"twice: {key}"
                found[key] = sample.value
        return found


# -- rows -----------------------------------------------------------------------------------------


def test_there_is_a_row_for_everybody_who_consumes_and_for_whoever_reports() -> None:
    router = Router()
    router.report(router.greet("rmis"), GOOD)
    router.greet("rmr")
    router.greet("admin")
    assert {name: row["state"] for name, row in router.rows().items()} == {
        "rmis": "reporting", "rmr": "silent", "smp": "absent",
    }  # fmt: skip
    router.report(router.greet("ward"), b"no report")
    assert router.rows()["ward"]["state"] == "unreadable"
    row = router.rows()["rmis"]
    assert (row["partners"][0]["system"], row["partners"][0]["up"]) == ("МИС", True)
    assert (row["lookups"][0]["count"], row["lookups"][0]["hit_rate"]) == (100, 0.97)
    assert (row["rejected"], row["waiting"], row["cache"]) == (2, 1, True)
    assert row["figures"] == {"unconfirmed": {"count": 4}}
    assert msgspec.json.decode(msgspec.json.encode(row)) == row


def test_the_newest_session_of_a_name_speaks_and_its_newest_report() -> None:
    router = Router()
    old, new = router.greet("rmis"), router.greet("rmis")
    router.report(old, BAD)
    assert router.rows()["rmis"]["partners"][0]["up"] is False
    router.report(new, GOOD)
    router.report(old, BAD)
    row = router.rows()["rmis"]
    assert (row["partners"][0]["up"], row["sessions"]) == (True, 2)
    router.report(new, BAD)
    assert router.rows()["rmis"]["partners"][0]["up"] is False


def test_who_left_is_absent_since_then_and_its_report_is_forgotten() -> None:
    router = Router()
    peer = router.greet("rmis")
    router.report(peer, GOOD)
    assert router.partners.watch() == []
    assert all_well(router.partners.connectors())  # who never came is perhaps not used here
    router.say(peer, frames.BYE, frames.Bye())
    row = router.rows()["rmis"]
    assert (row["state"], row["since"], row["partners"]) == ("absent", WALL_MS, [])
    assert router.rows()["smp"]["since"] is None
    events = router.partners.watch()
    assert {"name": "rmis", "system": None, "state": "absent"} in events
    assert not all_well(router.partners.connectors())
    router.greet("rmis")
    assert router.rows()["rmis"]["state"] == "silent"
    assert all_well(router.partners.connectors())


def test_who_came_and_left_between_two_looks_is_known_to_have_been_here() -> None:
    router = Router()
    router.say(router.greet("rmr"), frames.BYE, frames.Bye())
    assert router.rows()["rmr"]["since"] == WALL_MS
    assert not all_well(router.partners.connectors())


def test_an_event_for_each_change_and_none_without() -> None:
    router = Router()
    peer = router.greet("rmis")
    router.report(peer, GOOD)
    router.partners.watch()
    router.report(peer, BAD)
    assert router.partners.watch() == [{"name": "rmis", "system": "МИС", "state": "down"}]
    assert not all_well(router.partners.connectors())
    router.report(peer, BAD)
    assert router.partners.watch() == []


def test_a_name_that_would_steer_a_terminal_does_not() -> None:
    router = Router()
    evil = PeerReport(partners=[PartnerReport(system="\x1b[2J\u009b31m\nМИС\u202e")])
    router.report(router.greet("rmis"), evil)
    (partner,) = router.rows()["rmis"]["partners"]
    assert partner["system"] == "?[2J?31m?МИС?"


# -- the metrics page -----------------------------------------------------------------------------


def test_the_page_tells_what_was_reported() -> None:
    router = Router()
    router.report(router.greet("rmis"), GOOD)
    found = router.samples()
    assert found["smpbus_connector_up", ("rmis",)] == 1
    assert found["smpbus_connector_up", ("smp",)] == 0
    assert found["smpbus_connector_report_timestamp_seconds", ("rmis",)] == WALL_MS / 1000
    assert found["smpbus_connector_rejected_inputs_total", ("rmis",)] == 2
    assert found["smpbus_partner_up", ("rmis", "МИС")] == 1
    assert found["smpbus_breaker_open", ("rmis", "МИС")] == 0
    assert found["smpbus_partner_failures_total", ("rmis", "timeout", "МИС")] == 1
    assert found["smpbus_partner_failures_total", ("rmis", "other", "МИС")] == 2
    duration = "smpbus_partner_request_duration_seconds"
    assert found[duration, ("rmis", "0.99", "МИС")] == 0.7
    assert found[f"{duration}_sum", ("rmis", "МИС")] == 1.5
    assert found[f"{duration}_count", ("rmis", "МИС")] == 6
    assert found["smpbus_lookup_requests_total", ("rmis", "patients", "near")] == 90
    assert found["smpbus_lookup_duration_seconds_count", ("rmis", "patients")] == 100


def test_a_peer_that_reports_other_names_every_time_does_not_blow_up_the_page() -> None:
    router = Router()
    peer = router.greet("rmis")
    seen: set[tuple[str, tuple[str, ...]]] = set()
    sizes = []
    for turn in range(100):
        hostile = PeerReport(
            partners=[
                PartnerReport(
                    system=f'{turn}"}}\n\\ {n} {"ы" * 40}'[:64], up=True,
                    failures={f"kind_{turn}_{k}": 1 for k in range(16)},
                )
                for n in range(8)
            ],
            lookups=[LookupReport(kind=f"kind_{turn}_{n}") for n in range(16)],
        )  # fmt: skip
        router.report(peer, hostile)
        sizes.append(len(router.page()))
        seen |= router.samples().keys()
    assert len(seen) <= 10 + SYSTEMS_MAX * (5 + 7 + 4) + KINDS_MAX * (6 + 4)
    assert max(sizes) == sizes[0]  # later names have no series at all


def test_the_same_name_twice_is_told_once() -> None:
    router = Router()
    twice = PeerReport(
        partners=[PartnerReport(system="МИС", requests=n) for n in range(5)],
        lookups=[LookupReport(kind="patients", near=n) for n in range(5)],
    )
    router.report(router.greet("rmis"), twice)
    assert router.samples()["smpbus_partner_requests_total", ("rmis", "МИС")] >= 0


@settings(deadline=None, max_examples=40)
@given(st.lists(st.text(min_size=1, max_size=64), min_size=1, max_size=8))
def test_whatever_a_system_is_called_the_page_can_be_read(systems: list[str]) -> None:
    router = Router()
    report = PeerReport(partners=[PartnerReport(system=name) for name in systems])
    try:
        raw = msgspec.json.encode(report)
    except UnicodeEncodeError:  # a lone surrogate: no peer can send it
        return
    router.report(router.greet("rmis"), raw)
    assert router.samples()["smpbus_connector_up", ("rmis",)] == 1


# -- the table ------------------------------------------------------------------------------------

LONG = PeerReport(
    partners=[
        PartnerReport(
            system="Медицинская информационная система области", up=False,
            since=WALL_MS - 3 * 3_600_000, answered_at=WALL_MS - 11_000_000, breaker="open",
            failures={"connect": 123_456, "reply": 7}, p50_ms=12_000.0, p99_ms=70_000.0,
        )
    ],
    lookups=[
        LookupReport(kind="a_kind_with_the_longest_name_ofa", near=12_345_678, failed=123_456,
                     p50_ms=0.05, p99_ms=70_000.0)
    ],
    cache=False, rejected=12, waiting=2000,
)  # fmt: skip


@pytest.fixture
def shown(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Any:
    """Return how a router is shown: the table, and the lines of `smpbus status`."""
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv("NO_COLOR", "1")
    monkeypatch.setenv("SMPBUS_LANG", "ru")
    monkeypatch.setattr(wording, "_chosen", None)
    monkeypatch.setattr("time.time", lambda: WALL_MS / 1000 + 1)

    def show(router: Router) -> tuple[list[str], list[str]]:
        rows = msgspec.json.decode(msgspec.json.encode(router.partners.rows()))
        monkeypatch.setattr(command, "ask", lambda *_: {"partners": rows})
        click.Context(command.partners).invoke(command.partners, path=None, as_json=False)
        table = capsys.readouterr().out.splitlines()
        command.print_summary(rows)
        return table, capsys.readouterr().out.splitlines()

    return show


def test_the_table_says_who_answers_and_who_does_not(shown: Any) -> None:
    router = Router()
    router.report(router.greet("rmis"), GOOD)
    router.report(router.greet("rmr"), BAD)
    table, summary = shown(router)
    head, rmis, rmr, smp, *rest = table
    assert head.split() == ["коннектор", "система", "связь", "уже", "ответила", "p50", "p99"]
    assert rmis.split()[:3] == ["rmis", "МИС", "есть"]
    assert "НЕТ, пауза" in rmr
    assert smp.split()[:3] == ["smp", "-", "отключён"]
    assert any("patients" in line and "97.0 %" in line for line in rest)
    assert any("не отвечает с" in line for line in rest)
    assert summary[0].startswith("  rmis       отвечает уже")
    assert summary[0].endswith("200 мс / 700 мс: МИС")
    assert "из кэша 97.0 %" in summary[1]
    assert "НЕ ОТВЕЧАЕТ" in summary[2]
    assert summary[3].split() == ["не", "было", "smp"]


def test_whatever_is_reported_fits_the_terminal(shown: Any) -> None:
    names = ("a" * 64, "replication")
    router = Router(names)
    for name in names:
        router.report(router.greet(name), LONG)
    table, summary = shown(router)
    notes = [line for line in table if line.startswith(tuple(f"{name}:" for name in names))]
    assert len(notes) == 2 * 4  # these are sentences, and wrap
    assert max(len(line) for line in table if line not in notes) <= 80
    assert max(map(len, summary)) <= 80
    assert "нет соединения 123456, ответ не по договору 7" in "\n".join(notes)
