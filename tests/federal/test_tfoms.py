"""Registers, the fund's answers and our code tables against real schemas and code lists."""

import csv
import io
import json
import zipfile
from collections.abc import Callable
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner
from lxml import etree

from connectors.billing.answer import MEK, read_answer
from connectors.billing.command import register
from connectors.billing.draft import draft_of
from connectors.billing.profile import load
from connectors.billing.store import Checked, Store
from connectors.simulators.kit.people import people
from connectors.simulators.tfoms.examination import examine
from proto import catalogue, clinical, schemas
from tests.bench.register import COMMON, SCHEMAS
from tests.unit.connectors.tfoms_cases import write_cases

COUNT = 500
NSI = "1.2.643.5.1.13.13."
Build = Callable[..., Path]


@pytest.fixture
def build(tmp_path: Path) -> Build:
    """Build a register of the territory that the schemas are of; return its zip."""

    def built(*more: str) -> Path:
        arguments = ["build", *more, *COMMON, "--profile", "extended", "--out", str(tmp_path)]
        arguments += ["--ledger", str(tmp_path / "billed.db")]
        done = CliRunner().invoke(register, arguments)
        assert done.exit_code == 0, done.output
        (archive,) = tmp_path.glob("*.ZIP")
        return archive

    return built


def check(data: Path, archive: Path) -> None:
    """Both files of a register are valid, and the cases are as many as were to be billed."""
    with zipfile.ZipFile(archive) as opened:
        assert sorted(name[0] for name in opened.namelist()) == ["H", "L"]
        for name in opened.namelist():
            document = etree.fromstring(opened.read(name))
            schema_of(data, name[0]).assertValid(document)
            if name.startswith("H"):
                assert len(document.findall("{*}ZAP")) == COUNT


def schema_of(data: Path, letter: str) -> etree.XMLSchema:
    return etree.XMLSchema(etree.parse(data / "tfoms" / SCHEMAS[letter]))


def store_cards(folder: Path) -> Path:
    """Keep COUNT call cards, as the connector does; return smpbus.toml."""
    store = Store(folder / "cards.db")
    example = catalogue.entry("call.card.v1").example
    for number, person in zip(range(COUNT), people(0, COUNT), strict=True):
        patient = {key: person[key] for key in ("family", "given", "birth_date", "sex", "enp")}
        body = example | {
            "card_id": f"kv-{number}", "patients": [patient],
            "received_at": f"2026-11-{1 + number % 30:02}T12:00:00+00:00",
        }  # fmt: skip
        insured = schemas.InsuredPerson(
            enp=person["enp"], policy_kind=3, policy_number=person["enp"],
            insurer="99001", region="99000",
        )  # fmt: skip
        draft = draft_of(msgspec.convert(body, clinical.CallCard))
        store.keep(draft, f"112-{number}", Checked("", insured))
    store.close()
    config = folder / "smpbus.toml"
    config.write_text(
        '[connectors.tfoms]\nstore_file = "cards.db"\n[connectors.tfoms.partner]\nurl = "http://x"\n'
    )
    return config


def test_registers_of_lines_are_valid(data: Path, tmp_path: Path, build: Build) -> None:
    check(data, build(str(write_cases(tmp_path / "cases", COUNT))))


def test_registers_of_the_store_are_valid(data: Path, tmp_path: Path, build: Build) -> None:
    tables = tmp_path / "tfoms.toml"
    shipped = (Path(__file__).parents[2] / "config" / "tfoms.toml").read_text("utf-8")
    tables.write_text(f'{shipped}\n[[tariffs]]\nsince = 2026-01-01\nsum = "3512.40"\n', "utf-8")
    config = str(store_cards(tmp_path))
    check(data, build("--from-store", "--config", config, "--tables", str(tables)))


@pytest.mark.parametrize("refuse", [0.0, 0.5, 1.0])
def test_what_the_simulated_fund_pays_is_valid_and_read_whole(
    data: Path, tmp_path: Path, build: Build, refuse: float
) -> None:
    archive = build(str(write_cases(tmp_path / "cases", COUNT)))
    answer = b"".join(examine(io.BytesIO(archive.read_bytes()), MEK, refuse))
    schema_of(data, "H").assertValid(etree.fromstring(answer))
    said = read_answer(io.BytesIO(answer))
    assert archive.stem in said.registers
    verdicts = list(said.verdicts)
    assert len(verdicts) == COUNT
    paid = sum(Decimal(one.paid or 0) for one in verdicts)
    assert (paid == Decimal("3512.40") * COUNT) == (refuse == 0.0)
    assert all(one.codes for one in verdicts) == (refuse == 1.0)


# -- code lists -------------------------------------------------------------------------------


def codes_of_fund(data: Path, list: str) -> set[str]:
    with (data / "tfoms" / "ffoms_codes_smp.tsv").open(encoding="utf-8") as file:
        rows = csv.DictReader(file, delimiter="\t")
        return {row["code"] for row in rows if row["classifier"].startswith(list)}


def codes_of_ministry(data: Path, list: str) -> set[str]:
    (file,) = (data / "nsi").glob(f"{NSI}{list}_*_part1.json")
    rows: Any = json.loads(file.read_text(encoding="utf-8"))["list"]
    keyed = [{cell["column"].upper(): cell["value"] for cell in row} for row in rows]
    return {str(row["ID"]) for row in keyed}


def test_every_result_of_the_fund_has_its_place_and_no_other(data: Path) -> None:
    tables = load("federal")
    known = codes_of_fund(data, "V009")
    assert {str(code) for code in tables.results.values()} == known
    assert set(tables.card.result["V009"]) == known
    for code, key in tables.card.result["V009"].items():
        assert tables.results[key] == int(code)


def test_every_form_of_care_has_its_place(data: Path) -> None:
    tables = load("federal")
    known = codes_of_fund(data, "V014")
    assert {str(code) for code in tables.forms.values()} == known
    for code, key in tables.card.form["V014"].items():
        assert tables.forms[key] == int(code)
    assert set(tables.card.form["V014"]) == known
    assert set(tables.card.form[f"{NSI}11.1551"]) == codes_of_ministry(data, "11.1551")


def test_every_code_of_a_card_is_read(data: Path) -> None:
    card = load("federal").card
    assert set(card.result[f"{NSI}11.1545"]) == codes_of_ministry(data, "11.1545")
    assert set(card.outcome[f"{NSI}11.1543"]) == codes_of_ministry(data, "11.1543")
    posts = card.speciality[f"{NSI}11.1002"]
    assert set(posts) <= codes_of_ministry(data, "11.1002")
    assert {str(code) for code in posts.values()} <= codes_of_ministry(data, "11.1066")


def test_the_conditions_are_those_of_an_ambulance(data: Path) -> None:
    with (data / "tfoms" / "ffoms_codes_smp.tsv").open(encoding="utf-8") as file:
        rows = list(csv.DictReader(file, delimiter="\t"))
    (ambulance,) = (row for row in rows if row["code"] == "4" and row["classifier"][:4] == "V006")
    assert ambulance["name"] == "Скорая помощь"
    assert date.fromisoformat(ambulance["date_from"]) <= date(2026, 1, 1)
