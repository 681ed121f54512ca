"""The tables of words against the lists of the ministry and of the fund: whole, the same names."""

import csv
import json
from pathlib import Path

import pytest

from connectors.billing.profile import load as load_fund
from connectors.services.vocabulary import load_codes, load_statuses

OID = "1.2.643.5.1.13.13."
CODES = load_codes()


def ministry(data: Path, list: str, name: str = "NAME") -> dict[str, str]:
    """Names by code."""
    (part,) = (data / "nsi").glob(f"{OID}{list}_*_part1.json")
    rows = [
        {cell["column"]: cell["value"] for cell in row}
        for row in json.loads(part.read_text(encoding="utf-8"))["list"]
    ]
    return {str(row["ID"]): row[name] for row in rows}


def fund(data: Path, classifier: str) -> dict[str, str]:
    """Names by code."""
    with (data / "tfoms" / "ffoms_codes_smp.tsv").open(encoding="utf-8") as file:
        rows = [*csv.DictReader(file, delimiter="\t")]
    return {row["code"]: row["name"] for row in rows if row["classifier"].startswith(classifier)}


@pytest.mark.parametrize(
    ("table", "list"), [("sex", "11.1040"), ("policy_kind", "11.1035"), ("form_of_care", "11.1551")]
)
def test_every_code_of_the_ministry_has_a_row(data: Path, table: str, list: str) -> None:
    names = ministry(data, list, "S_NAME" if list == "11.1551" else "NAME")
    CODES[table].check("nsi", names, whole=True)


def test_forms_of_care_are_the_same_words_at_both(data: Path) -> None:
    theirs, funds = ministry(data, "11.1551", "S_NAME"), fund(data, "V014")
    forms = load_fund("federal").forms
    assert {str(code) for code in forms.values()} == set(funds)
    for form, code in CODES["form_of_care"].words("nsi").items():
        assert theirs[code].casefold() == funds[str(forms[form])].casefold()


def test_documents(data: Path) -> None:
    documents = CODES["identity_document"]
    theirs, funds = ministry(data, "99.2.48"), fund(data, "F011")
    documents.check("f011", funds, whole=True)
    documents.check("nsi", {*theirs, "*"})
    for code, name in theirs.items():
        meaning = documents.meaning("nsi", code)
        assert meaning is not None
        told = funds[documents.words("f011")[meaning]]
        if meaning != "other":
            stems = [word[:5] for word in told.casefold().split() if len(word) > 4]
            assert any(stem in name.casefold() for stem in stems), (code, name, told)


def test_every_field_of_the_document_is_of_the_list(data: Path) -> None:
    (path,) = (data / "nsi").glob("coded_fields_*.tsv")
    with path.open(encoding="utf-8") as file:
        names = {row["ID"]: row["NAME"] for row in csv.DictReader(file, delimiter="\t")}
    chain = load_statuses()
    chain.check("semd", names)
    times = {
        code
        for code, name in names.items()
        if code[:3] == "120" and name.startswith("Дата и время")
    }
    assert set(chain.words("semd").values()) == times
    assert len(times) == 8
