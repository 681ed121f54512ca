"""REPORT: what a peer says of itself is kept for operators, and nothing else comes of it."""

from random import Random
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from proto import frames
from proto.errors import Code
from proto.peer import Peer
from proto.report import FAILURES, LookupReport, PartnerReport, PeerReport, read_report
from router.core.core import Core, Now
from router.settings import BusSettings, Destination, Permission, Settings

NOW = Now(1_800_000_000_000, 1_000)
WELCOME = frames.Welcome(1, "smp", "bus", 1, 1024, 4096, 1000)
REPORT = PeerReport(
    partners=[PartnerReport(system="ИС СМП", up=True, failures=dict.fromkeys(FAILURES, 1))],
    lookups=[LookupReport(kind="worker", near=97, missed=3)],
)


def core() -> Core:
    """A core with one welcomed session, `peer`."""
    settings = Settings(
        bus=BusSettings(),
        destinations={"smp": Destination()},
        permissions={"smp": Permission(consume=["smp"])},
    )
    made = Core(settings, "bus", 1, Random(1))
    say(made, frames.HELLO, frames.Hello([1], "smp"))
    return made


def say(core: Core, verb: bytes, payload: object) -> list[Any]:
    core.receive(b"peer", b"", [verb, frames.encode(payload)], NOW)
    sends, core.out.sends = core.out.sends, []
    return [frames.read(parts, frames.PEER_READS) for _, parts in sends]


def said(peer: Peer) -> list[bytes]:
    """Return the verbs that a peer has to say."""
    return [parts[0] for parts in peer.take_outbox()]


def hear(peer: Peer, verb: bytes, payload: object) -> list[Any]:
    return peer.receive([verb, frames.encode(payload)])


# -- the router -----------------------------------------------------------------------------------


@given(st.lists(st.binary(max_size=100), min_size=1, max_size=5))
def test_the_newest_is_kept_and_nothing_else_happens(bodies: list[bytes]) -> None:
    here = core()
    here.observed = True
    counters = dict(here.counters)
    for body in bodies:
        assert say(here, frames.REPORT, frames.Report(body)) == []
    session = here.sessions[b"peer"]
    assert (session.report, session.reports) == (bodies[-1], len(bodies))
    assert session.reported_at == NOW.wall_ms
    assert (here.out.batch.writes, here.out.events, here.counters) == (False, [], counters)
    assert here.next_timer_ms() is None


def test_it_is_forgotten_with_the_session() -> None:
    here = core()
    say(here, frames.REPORT, frames.Report(b"{}"))
    say(here, frames.HELLO, frames.Hello([1], "smp"))
    assert here.sessions[b"peer"].report == b""
    assert say(here, frames.BYE, frames.Bye()) == []
    (refused,) = say(here, frames.REPORT, frames.Report(b"{}"))
    assert (refused.code, refused.verb) == (Code.HELLO_REQUIRED, "REPORT")


def test_one_too_long_is_refused_and_the_one_before_stays() -> None:
    here = core()
    say(here, frames.REPORT, frames.Report(b"{}"))
    (refused,) = say(here, frames.REPORT, frames.Report(b" " * (frames.REPORT_BYTES_MAX + 1)))
    assert (refused.code, refused.verb) == (Code.BAD_FRAME, "REPORT")
    assert here.sessions[b"peer"].report == b"{}"


# -- the peer -------------------------------------------------------------------------------------


def test_a_peer_reports_now_and_again_after_each_welcome() -> None:
    peer = Peer("smp", "test/1")
    peer.greet()
    peer.report(b"{}")
    assert said(peer) == [frames.HELLO]  # the newest waits for the welcome
    hear(peer, frames.WELCOME, WELCOME)
    assert said(peer) == [frames.REPORT]
    peer.report(b"{}")
    assert said(peer) == [frames.REPORT]
    peer.greet()
    hear(peer, frames.WELCOME, WELCOME)
    assert said(peer) == [frames.HELLO, frames.REPORT]


def test_a_router_that_knows_no_report_is_told_no_more_until_it_is_another() -> None:
    peer = Peer("smp", "test/1")
    peer.greet()
    hear(peer, frames.WELCOME, WELCOME)
    peer.report(b"{}")
    said(peer)
    unknown = frames.Error(Code.UNKNOWN_VERB, "this verb is not known here", "REPORT")
    assert hear(peer, frames.ERROR, unknown) == []
    peer.report(b"{}")
    assert said(peer) == []
    assert peer.welcome is not None  # the session goes on
    peer.greet()
    hear(peer, frames.WELCOME, WELCOME)
    assert said(peer) == [frames.HELLO, frames.REPORT]


def test_an_unknown_verb_of_another_kind_is_still_told() -> None:
    peer = Peer("smp", "test/1")
    peer.greet()
    unknown = frames.Error(Code.UNKNOWN_VERB, "this verb is not known here", "SETTLE")
    assert hear(peer, frames.ERROR, unknown) == [unknown]


def test_a_report_that_is_too_long_is_not_sent() -> None:
    peer = Peer("smp", "test/1")
    with pytest.raises(ValueError, match="16384"):
        peer.report(b" " * (frames.REPORT_BYTES_MAX + 1))


# -- the shape ------------------------------------------------------------------------------------


def test_what_is_written_is_read_and_what_is_newer_is_passed_over() -> None:
    raw = msgspec.json.encode(REPORT)
    assert read_report(raw) == REPORT
    assert read_report(raw[:-1] + b', "later": [1]}') == REPORT
    assert (REPORT.lookups[0].count, REPORT.lookups[0].hits) == (100, 97)
    assert read_report(b"{}") == PeerReport()


@given(st.binary())
def test_whatever_it_is_reading_it_harms_nobody(body: bytes) -> None:
    assert isinstance(read_report(body), PeerReport | None)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"[]",
        b'{"partners": [{}]}',
        b'{"partners": [{"system": ""}]}',
        b'{"partners": [{"system": "a", "breaker": "ajar"}]}',
        b'{"partners": [{"system": "a", "requests": -1}]}',
        b'{"partners": [{"system": "a", "failures": {"Bad word": 1}}]}',
        b'{"partners": [{"system": "a", "p50_ms": 1e300}]}',
        b'{"partners": [%s]}' % b",".join([b'{"system": "a"}'] * 9),
        b'{"lookups": [%s]}' % b",".join([b'{"kind": "a"}'] * 17),
        b'{"lookups": [{"kind": "a\\n"}]}',
        b'{"figures": %s}' % (b"[" * 5000 + b"]" * 5000),
        b'{"figures": {"a": %s}}' % (b"[" * 5000 + b"]" * 5000),
    ],
)
def test_what_is_not_of_the_shape_is_no_report(body: bytes) -> None:
    assert read_report(body) is None
