"""The tables of words: each meaning has a row, each row every vocabulary, and a fault is named."""

import re
import tomllib
from pathlib import Path
from typing import get_args

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from connectors.billing.profile import load as load_fund
from connectors.partners.cssi112.contract import load_terms
from connectors.services.document import load_plan
from connectors.services.vocabulary import NO_WORD, load_codes, load_statuses
from connectors.services.vocabulary.table import MEANINGS
from proto import schemas
from proto.configuration.find import find_table
from proto.exits import StartError

CHAIN = load_statuses()
CODES = load_codes()


def test_the_chain_has_every_status_in_every_vocabulary() -> None:
    assert set(CHAIN.rows) == set(get_args(schemas.StatusCode))
    assert CHAIN.columns == {
        "form110", "adis", "callcard", "semd", "riams_event", "riams_brigade", "fhir", "nemsis",
        "cssi112", "sys112", "sys112_goes_on", "sys112_urgent",
    }  # fmt: skip
    # A time, an event or a field belongs to one status only; nemsis has one for both endings.
    for column in ("form110", "adis", "callcard", "semd", "riams_event", "riams_brigade", "fhir"):
        words = list(CHAIN.words(column).values())
        assert words
        assert len(words) == len(set(words)), column


@settings(deadline=None)
@given(st.sampled_from(sorted(CODES)), st.data())
def test_a_word_comes_back_as_what_it_meant(name: str, data: st.DataObject) -> None:
    table = CODES[name]
    column = data.draw(st.sampled_from(sorted(table.columns)))
    for meaning, word in table.words(column).items():
        back = table.meaning(column, word)
        assert back is not None
        assert table.words(column)[back] == word
        assert meaning in table.rows


def test_the_traps_of_the_two_ministries() -> None:
    forms, policies = CODES["form_of_care"], CODES["policy_kind"]
    fund = load_fund("federal").forms
    assert set(forms.rows) == set(fund)
    both = {forms.words("nsi")[form]: str(fund[form]) for form in forms.rows}
    assert both == {"1": "3", "2": "1", "3": "2"}  # 11.1551 -> V014
    kinds = {policies.words("nsi")[kind]: policies.words("vpolis")[kind] for kind in policies.rows}
    assert kinds == {"1": "1", "2": "3", "3": "3", "4": "2"}  # 11.1035 -> VPOLIS


def test_a_document_that_no_row_names_is_another_one() -> None:
    documents = CODES["identity_document"]
    assert documents.meaning("nsi", "1") == "passport"
    assert documents.meaning("nsi", "36") == "other"
    assert documents.words("f011")["other"] == "18"
    assert documents.meaning("f011", "99") is None


def test_the_document_takes_its_times_from_the_chain() -> None:
    sources = {field.code: field.source for field in load_plan().fields}
    times = {code: source for code, source in sources.items() if source.startswith("time:")}
    assert len(times) == 7
    for code, source in times.items():
        assert CHAIN.words("semd")[source.removeprefix("time:")] == code
    assert set(CHAIN.words("semd").values()) - set(times) == {"12026"}  # received_at of the card


@pytest.mark.parametrize(
    ("told", "instead", "named"),
    [
        ("[chain.arrived]", "[chain.came]", "chain.arrived: строки нет"),
        (
            "[chain.received]",
            '[chain.odd]\nsemd = "-"\n[chain.received]',
            "chain.odd: шина не знает",
        ),
        ('adis = "VYEZ"\n', "", "chain.departed.adis: нет слова для adis"),
        ('adis = "VYEZ"', "adis = 7", "chain.departed.adis: ожидается строка"),
        ("[chain", "[line", "[chain]"),
    ],
    ids=["missing", "invented", "a word is missing", "no text", "no table"],
)
def test_a_broken_chain_is_named_by_file_and_key(
    told: str, instead: str, named: str, tmp_path: Path
) -> None:
    file = tmp_path / "statuses.toml"
    text = CHAIN.file.read_text(encoding="utf-8")
    assert told in text
    file.write_text(text.replace(told, instead), encoding="utf-8")
    with pytest.raises(StartError) as caught:
        load_statuses(file)
    assert re.match(rf"{re.escape(str(file))}(, строка [0-9]+)?: ", str(caught.value))
    assert named in str(caught.value)


@pytest.mark.parametrize("name", sorted(MEANINGS))
def test_a_table_without_one_of_our_words_is_refused(name: str, tmp_path: Path) -> None:
    file = tmp_path / "code_systems.toml"
    for meaning in MEANINGS[name]:
        lines = CODES[name].file.read_text(encoding="utf-8").split("\n")
        start = lines.index(f"[{name}]")
        gone = next(n for n in range(start, len(lines)) if lines[n].startswith(f"{meaning} = "))
        del lines[gone]
        file.write_text("\n".join(lines), encoding="utf-8")
        with pytest.raises(StartError, match=f"{name}.{meaning}"):
            load_codes(file)


def test_a_step_that_the_centre_does_not_have_is_named(tmp_path: Path) -> None:
    file = tmp_path / "statuses.toml"
    text = CHAIN.file.read_text(encoding="utf-8")
    file.write_text(text.replace('cssi112 = "dtArrival"', 'cssi112 = "dtArrive"'), encoding="utf-8")
    with pytest.raises(StartError, match=r"chain.arrived.cssi112: .*dtArrive"):
        load_terms(chain=load_statuses(file))


def test_a_region_has_a_table_of_its_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    ours = tmp_path / "statuses.toml"
    ours.write_text(CHAIN.file.read_text(encoding="utf-8").replace("DPRM", "PRIEM"), "utf-8")
    for told in (tmp_path, tmp_path / "smpbus.toml"):
        monkeypatch.setenv("SMPBUS_CONFIG", str(told))
        assert find_table("statuses.toml") == ours
        assert load_statuses().words("adis")["received"] == "PRIEM"
        assert find_table("code_systems.toml") == CODES["sex"].file


def test_nothing_is_said_twice() -> None:
    """What the chain says stands in no other file of the configuration."""
    for name in ("cssi112.toml", "semd115.toml", "tfoms.toml"):
        tree = tomllib.loads(find_table(name).read_text(encoding="utf-8"))
        assert not {"statuses", "states"} & set(tree), name
    assert NO_WORD not in CHAIN.words("sys112").values()
