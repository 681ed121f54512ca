"""Texts: the same keys and fields in both languages, and a text for everything that needs one."""

import re
import string

import pytest

from proto import wording
from proto.errors import Code

RU, EN = wording.texts("ru"), wording.texts("en")


@pytest.fixture(autouse=True)
def _language(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wording, "_chosen", None)
    monkeypatch.delenv("SMPBUS_LANG", raising=False)


def fields(template: str) -> set[str]:
    return {name for _, name, _, _ in string.Formatter().parse(template) if name}


def test_both_languages_have_the_same_keys() -> None:
    assert RU.keys() == EN.keys()


@pytest.mark.parametrize("key", sorted(RU))
def test_fields_are_the_same_in_both_languages(key: str) -> None:
    assert fields(RU[key]) == fields(EN.get(key, ""))


def test_english_texts_hold_no_russian_letters() -> None:
    assert [key for key, text in EN.items() if re.search("[а-яё]", text, re.IGNORECASE)] == []


def test_errors_and_warnings_begin_with_their_word() -> None:
    assert RU["log.error"] == "ОШИБКА: {sentence}"
    assert RU["log.warning"] == "ПРЕДУПРЕЖДЕНИЕ: {sentence}"


@pytest.mark.parametrize("code", list(Code))
def test_every_code_of_the_wire_is_explained(code: str) -> None:
    assert len(RU[f"codes.{code}"]) > 20


def test_russian_is_the_default() -> None:
    assert wording.text("log.error", sentence="x") == "ОШИБКА: x"


@pytest.mark.parametrize(
    ("variable", "language"), [("en", "en"), ("en_US.UTF-8", "en"), ("EN", "en"), ("de", "ru")]
)
def test_language_of_the_environment(
    monkeypatch: pytest.MonkeyPatch, variable: str, language: str
) -> None:
    monkeypatch.setenv("SMPBUS_LANG", variable)
    assert wording.language() == language


def test_a_chosen_language_is_above_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SMPBUS_LANG", "ru")
    wording.set_language("en")
    assert wording.text("log.error", sentence="x") == "ERROR: x"


def test_an_unknown_language_is_refused() -> None:
    with pytest.raises(ValueError, match="de"):
        wording.set_language("de")


def test_a_field_may_be_called_key() -> None:
    assert "bus.listen" in wording.text("config.unknown_key", key="bus.listen", known="x")


def test_an_unknown_text_is_an_error() -> None:
    with pytest.raises(KeyError, match=r"cli\.no_such_text"):
        wording.text("cli.no_such_text")
