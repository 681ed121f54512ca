"""Which rows of the outbox go at once: order per subject, and what is held meanwhile."""

from pathlib import Path

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from connectors.partners.smpsql import SmpSqlSettings
from connectors.partners.smpsql.lines import HELD_MAX, Held, waves
from connectors.partners.smpsql.tables import Row

SUBJECTS = st.sampled_from(["", "112-1", "112-2", "call-3"])


def row(seq: int, subject: str) -> Row:
    return Row(seq, f"id-{seq}", "a.b", subject, 1, 0, None, None, None, "{}")


@st.composite
def rows(draw: st.DrawFn) -> list[Row]:
    return [row(seq, subject) for seq, subject in enumerate(draw(st.lists(SUBJECTS, max_size=40)))]


@given(rows())
def test_waves_hold_every_row_once_one_of_a_subject_at_a_time_in_order(given: list[Row]) -> None:
    found = waves(given)
    assert sorted(one for wave in found for one in wave) == given
    for wave in found:
        subjects = [one.subject for one in wave if one.subject]
        assert len(set(subjects)) == len(subjects)
    for subject in {one.subject for one in given} - {""}:
        line = [one.seq for wave in found for one in wave if one.subject == subject]
        assert line == sorted(line)


@given(rows())
def test_there_are_no_more_waves_than_the_longest_line_needs(given: list[Row]) -> None:
    counts = [sum(one.subject == other.subject for other in given) for one in given if one.subject]
    assert len(waves(given)) == max([*counts, bool(given)])


@given(rows(), st.integers(0, 100))
def test_what_is_held_is_named_until_its_time(given: list[Row], now: int) -> None:
    held = Held()
    for one in given:
        held.hold(one, float(one.seq))
    last = {one.subject or one.seq: one.seq for one in given}
    subjects, seqs = held.release(now)
    assert {*subjects, *seqs} == {key for key, until in last.items() if until > now}
    assert all(held.holds(one) == (last[one.subject or one.seq] > now) for one in given)


def test_a_held_row_without_a_subject_holds_no_other() -> None:
    held = Held()
    held.hold(row(1, ""), 10)
    assert held.holds(row(1, ""))
    assert not held.holds(row(2, ""))
    held.hold(row(3, "112-1"), 5)
    assert held.holds(row(4, "112-1"))
    assert held.next_at() == 5


def test_around_too_many_there_is_no_asking() -> None:
    held = Held()
    for seq in range(HELD_MAX):
        assert not held.full
        held.hold(row(seq, ""), 1)
    assert held.full


@pytest.mark.parametrize(
    ("url", "good"),
    [
        ("postgresql://10.0.0.5:6432/smp", True),
        ("postgres://db1,db2/smp?target_session_attrs=read-write", True),
        ("postgresql://%2Frun%2Fpostgresql/smp", True),
        ("postgresql://user:secret@10.0.0.5/smp", False),
        ("postgresql://user@10.0.0.5/smp", False),
        ("http://10.0.0.5/smp", False),
    ],
)
@pytest.mark.parametrize("key", ["url", "listen_url"])
def test_an_address_of_a_database_holds_no_secret(key: str, url: str, good: bool) -> None:
    partner = {"url": "postgresql://10.0.0.5/smp", key: url, "credentials_file": "x"}
    told = {"partner": partner}
    if good:
        settings = msgspec.convert(told, SmpSqlSettings, dec_hook=lambda _, value: Path(value))
        assert getattr(settings.partner, key) == url
    else:
        with pytest.raises(msgspec.ValidationError, match=key):
            msgspec.convert(told, SmpSqlSettings, dec_hook=lambda _, value: Path(value))
