"""Notes: codes on the wire and in the journal, words for whoever reads them."""

import string

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from proto import wording
from proto.frames import NOTE_LENGTH_MAX
from proto.note import code_of, coded
from proto.wording import in_words


@pytest.fixture(autouse=True)
def _english(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wording, "_chosen", "en")
    wording.texts("en")  # the first use reads a file: longer than one example may take


def test_a_note_is_a_code_with_fields_and_is_read_in_the_language_of_whoever_reads(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    written = coded("bus.attempts_over", count=3)
    assert written == "bus.attempts_over count=3"
    assert in_words(written) == "given up after 3 attempts"
    monkeypatch.setattr(wording, "_chosen", "ru")
    assert in_words(written) == "отказались после попыток: 3"


def test_notes_that_belong_together_are_read_together() -> None:
    of_both = f"{coded('bus.age_over', seconds=5)}: {coded('client.unreadable')}; дубль"
    assert in_words(of_both) == "given up after 5 s: the message cannot be read; дубль"
    assert in_words(f"HTTP 422; {coded('bus.retention_over')}") == (
        "HTTP 422; its retention time is over"
    )


@pytest.mark.parametrize(
    "words",
    [
        "",
        "HTTP 200",
        "отказались после попыток: 3: HTTP 503",  # of an earlier version
        "bus.nonsense count=3",  # of a later one
        "bus.attempts_over",  # a field is missing
        "bus.attempts_over count=3 and more",
        'bus.attempts_over count="3',  # cut off
        "see bus.rejected",
        "bus.rejected.",
    ],
)
def test_what_is_no_code_of_ours_is_shown_as_it_is(words: str) -> None:
    assert in_words(words) == words


def test_a_value_may_be_anything_and_steers_no_terminal() -> None:
    written = coded("bus.attempts_over", count='a "b"; c: \\d\x1b[31m\n\u202e\ud800')
    assert in_words(written) == 'given up after a "b"; c: \\d\\x1b[31m\\n\\u202e? attempts'


def test_a_value_may_be_a_note() -> None:
    assert in_words(coded("bus.poison", count=coded("bus.rejected"))) == (
        "its consumer died rejected by its consumer times with it alone in hand"
    )


def test_a_long_value_leaves_a_note_that_fits_and_can_be_read() -> None:
    written = coded("bus.attempts_over", count="ж, " * 500)
    assert len(written) < NOTE_LENGTH_MAX
    assert in_words(written).startswith("given up after ж, ж")


def test_the_code_is_known_to_programs() -> None:
    assert code_of(coded("bus.attempts_over", count=3) + ": HTTP 503") == "bus.attempts_over"
    assert code_of("HTTP 503: bus.rejected") == ""
    assert code_of("bus.attempts_over of three") == ""


@settings(deadline=None)  # the machine may be busy
@given(st.text(max_size=100))
def test_whatever_is_written_is_read(value: str) -> None:
    written = coded("bus.attempts_over", count=value)
    assert "{count}" not in in_words(written)
    assert in_words(written).startswith("given up after")


@settings(deadline=None)  # the machine may be busy
@given(st.text(string.ascii_lowercase + ' .=":;\\', max_size=60))
def test_any_text_can_be_shown(text: str) -> None:
    assert in_words(f"bus.rejected: {text}").startswith("rejected by its consumer: ")
