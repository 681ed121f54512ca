"""Registers: what is in them, what never gets in, and what the fund answers."""

import io
import zipfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result
from lxml import etree
from tfoms_cases import cases, write_cases

from connectors.tfoms.answer import BadAnswer, read_protocol
from connectors.tfoms.command import register
from connectors.tfoms.profile import load
from proto.exits import StartError

COUNT = 50
STEM = "M990101S99001_26101"


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("TFOMS_TF_CODE", raising=False)
    return tmp_path


def build(file: Path, *more: str, period: str = "2026-10") -> Result:
    common = ["build", str(file), "--period", period, "--facility", "990101", "--payer", "99001"]
    return CliRunner().invoke(register, [*common, *more])


def xml_of(archive: Path, name: str) -> Any:
    with zipfile.ZipFile(archive) as opened:
        data = opened.read(f"{name}.XML")
    assert data.startswith(b"<?xml version='1.0' encoding='windows-1251'?>")
    return etree.fromstring(data)


def change(file: Path, line: int, **fields: Any) -> None:
    lines = file.read_bytes().splitlines()
    lines[line - 1] = msgspec.json.encode(msgspec.json.decode(lines[line - 1]) | fields)
    file.write_bytes(b"\n".join(lines))


def test_a_register_holds_every_case_once_and_every_person_once(here: Path) -> None:
    done = build(write_cases(here / "cases", COUNT))
    assert done.exit_code == 0, done.output
    assert "случаев 50 на 175620.00 руб." in done.output
    archive = here / f"H{STEM}.ZIP"
    register = xml_of(archive, f"H{STEM}")
    assert register.findtext("ZGLV/FILENAME") == f"H{STEM}"
    assert register.findtext("ZGLV/SD_Z") == "50"
    assert Decimal(register.findtext("SCHET/SUMMAV")) == sum(
        Decimal(one.text) for one in register.iterfind("ZAP/Z_SL/SUMV")
    )
    assert [one.text for one in register.iterfind("ZAP/N_ZAP")] == [str(n) for n in range(1, 51)]
    first = register.find("ZAP")
    assert (first.findtext("PR_NOV"), first.findtext("Z_SL/USL_OK")) == ("0", "4")
    forms = {one["card_id"]: {"emergency": "1", "urgent": "2"}[one["form"]] for one in cases(COUNT)}
    for zap in register.iterfind("ZAP"):
        assert zap.findtext("Z_SL/FOR_POM") == forms[zap.findtext("Z_SL/SL/SL_ID")]
    persons = xml_of(archive, f"L{STEM}")
    ids = [one.text for one in persons.iterfind("PERS/ID_PAC")]
    assert len(ids) == len(set(ids)) == 45
    assert set(ids) == {one.text for one in register.iterfind("ZAP/PACIENT/ID_PAC")}
    assert persons.findtext("ZGLV/FILENAME1") == f"H{STEM}"
    assert persons.findtext("PERS/FAM") in {one["patient"]["family"] for one in cases(COUNT)}


def test_a_wrong_case_is_named_without_its_values_and_nothing_is_written(here: Path) -> None:
    file = write_cases(here / "cases", COUNT)
    patient = msgspec.json.decode(file.read_bytes().splitlines()[6])["patient"]
    change(file, 7, patient=patient | {"birth_date": "1999-09-09"})
    change(file, 8, diagnosis="воспаление")
    change(file, 9, result="77", total=-1)
    done = build(file)
    assert done.exit_code == 65
    assert "policy.number: is of another date of birth: случаев 1, первый в строке 7" in done.output
    assert "diagnosis: is no code of ICD-10: случаев 1, первый в строке 8" in done.output
    assert "total: " in done.output
    assert "воспаление" not in done.output
    assert "1999" not in done.output
    assert not list(here.glob("*.ZIP"))
    done = build(file, "--skip-wrong")
    assert done.exit_code == 0
    assert "случаев 47 " in done.output


def test_no_card_is_billed_twice_unless_it_was_refused(here: Path) -> None:
    file = write_cases(here / "cases", 10)
    assert build(file).exit_code == 0
    again = build(file, "--number", "2")
    assert again.exit_code == 1
    assert "нет случаев, которые ещё не поданы" in again.output
    assert build(file).exit_code == 0  # the same register may be rebuilt

    refused = "".join(f"<PR><OSHIB>904</OSHIB><IM_POL>NPOLIS</IM_POL><N_ZAP>{n}</N_ZAP></PR>"
                      for n in (2, 5, 5))  # fmt: skip
    protocol = here / "flk.xml"
    protocol.write_text(f"<FLK_P><FNAME>F</FNAME><FNAME_I>H{STEM}</FNAME_I>{refused}</FLK_P>")
    answered = CliRunner().invoke(register, ["answer", str(protocol)])
    assert answered.exit_code == 0, answered.output
    assert "ошибка 904, поле NPOLIS: 3" in answered.output
    assert "принято карт 8, отклонено 2" in answered.output

    corrected = build(file, "--number", "2")
    assert corrected.exit_code == 0
    assert "случаев 2 " in corrected.output
    second = xml_of(here / f"H{STEM[:-1]}2.ZIP", f"H{STEM[:-1]}2")
    cards = [one.text for one in second.iterfind("ZAP/Z_SL/SL/SL_ID")]
    assert cards == ["2026-2", "2026-5"]
    assert {one.text for one in second.iterfind("ZAP/PR_NOV")} == {"1"}


def test_a_territory_has_its_own_elements_in_their_places(here: Path) -> None:
    file = write_cases(here / "cases", 3)
    assert build(file, "--profile", "extended").exit_code == 0
    register = xml_of(here / f"H{STEM}.ZIP", f"H{STEM}")
    space = {"f": "OMS-D1"}
    assert register.findtext("f:SCHET/f:PODR", namespaces=space) == "1"
    line = register.find("f:ZAP/f:Z_SL/f:SL", space)
    names = [etree.QName(child).localname for child in line]
    assert names.index("PRVS_R") + 1 == names.index("PRVS")
    change(file, 2, extra={})
    missing = build(file, "--profile", "extended", "--number", "3")
    assert missing.exit_code == 65
    assert "SL.PRVS_R: is required by the profile" in missing.output


def test_settings_that_cannot_be_are_one_sentence(here: Path) -> None:
    file = write_cases(here / "cases", 1)
    for arguments, code, said in (
        (["--profile", "nowhere"], 78, "нет профиля nowhere; есть: extended, federal"),
        (["--out", "missing"], 73, "missing"),
        (["--tables", "missing"], 78, "missing"),
    ):
        done = build(file, *arguments)
        assert (done.exit_code, said in done.output) == (code, True), done.output
    assert build(file, period="октябрь").exit_code == 65
    assert build(here / "none").exit_code == 73
    with pytest.raises(StartError, match="nowhere"):
        load("nowhere")


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not XML",
        b"<OTHER/>",
        b"<FLK_P><PR/></FLK_P>",
        b"<!DOCTYPE FLK_P [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><FLK_P><FNAME_I>&a;</FNAME_I></FLK_P>",
        b"<FLK_P><FNAME_I>H1</FNAME_I><PR>",
    ],
)
def test_a_protocol_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(BadAnswer) as refused:
        list(read_protocol(io.BytesIO(data))[1])
    assert "root:" not in str(refused.value)
