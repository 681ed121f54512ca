"""Registers against the schemas of a real territory."""

import zipfile
from pathlib import Path

import pytest
from click.testing import CliRunner
from lxml import etree

from connectors.tfoms.command import register
from tests.unit.connectors.tfoms_cases import write_cases

COUNT = 500


@pytest.mark.parametrize(("schema", "letter"), [("OMS-D1-1-NEW.xsd", "H"), ("OMS-D2-NEW.xsd", "L")])
def test_registers_are_valid(data: Path, tmp_path: Path, schema: str, letter: str) -> None:
    file = write_cases(tmp_path / "cases", COUNT)
    arguments = ["build", str(file), "--period", "2026-10", "--facility", "990101", "--payer"]
    arguments += ["99001", "--profile", "extended", "--out", str(tmp_path)]
    arguments += ["--ledger", str(tmp_path / "billed.db")]
    done = CliRunner().invoke(register, arguments)
    assert done.exit_code == 0, done.output
    (archive,) = tmp_path.glob("*.ZIP")
    with zipfile.ZipFile(archive) as opened:
        (name,) = [name for name in opened.namelist() if name.startswith(letter)]
        document = etree.fromstring(opened.read(name))
    rules = etree.XMLSchema(etree.parse(data / "tfoms" / schema))
    rules.assertValid(document)
