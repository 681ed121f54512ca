"""Registers: what is in them, what never gets in, and what the fund answers."""

import io
import os
import stat
import zipfile
from decimal import Decimal
from pathlib import Path
from typing import Any

import apsw
import msgspec
import pytest
from click.testing import CliRunner, Result
from lxml import etree

from connectors.billing.answer import BadAnswer, read_answer
from connectors.billing.command import register
from connectors.billing.profile import load
from proto.exits import StartError
from tests.unit.connectors.tfoms_cases import cases, write_cases

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


@pytest.mark.fault("S14")
def test_a_register_is_its_owners_alone_and_follows_no_link(here: Path) -> None:
    """A folder that others may write: what they laid under a foreseeable name is left alone."""
    victim = here / "victim"
    victim.write_text("another's")
    for number in range(3):
        (here / f".H{STEM}.part{number}").symlink_to(victim)
    left = here / f".H{STEM}-killed.parts"
    left.mkdir()
    (left / f"H{STEM}.XML").write_text("<FAM>")
    outside = here / "outside"
    outside.mkdir()
    (here / f".H{STEM}-link.parts").symlink_to(outside)
    old = os.umask(0o000)
    try:
        assert build(write_cases(here / "cases", COUNT)).exit_code == 0
    finally:
        os.umask(old)
    assert victim.read_text() == "another's"
    assert stat.S_IMODE((here / f"H{STEM}.ZIP").stat().st_mode) == 0o600
    for file in here.glob("billed.db*"):
        assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert not left.exists()  # of a build that was killed
    assert outside.is_dir()


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
    assert "принято карт 8, оплачено 0, отклонено 2" in answered.output

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
    change(file, 1, extra={})
    assert build(file, "--profile", "extended").exit_code == 0
    line = xml_of(here / f"H{STEM}.ZIP", f"H{STEM}").find("f:ZAP/f:Z_SL/f:SL", space)
    assert line.findtext("f:PRVS_R", namespaces=space) == "80"  # that of PRVS, by the profile
    change(file, 2, substation=None)
    missing = build(file, "--profile", "extended", "--number", "3")
    assert missing.exit_code == 65
    assert "SL.LPU_1: is required by the profile" in missing.output


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


def take(answer: Path) -> Result:
    return CliRunner().invoke(register, ["answer", str(answer)])


def judge(here: Path, *cases: str, number: int = 1) -> Result:
    """Have the МЭК's answer taken; each case is N_ZAP, SL_ID, and what stands in Z_SL."""
    file = here / "mek.xml"
    account = f"<CODE>{number}</CODE><CODE_MO>990101</CODE_MO><YEAR>2026</YEAR><MONTH>10</MONTH>"
    account += "<PLAT>99001</PLAT>"
    file.write_text(
        "<ZL_LIST><ZGLV><FILENAME>HS99001M990101_26101</FILENAME></ZGLV>"
        f"<SCHET>{account}</SCHET>{''.join(cases)}</ZL_LIST>"
    )
    return take(file)


def case(number: int, card: str, oplata: str, paid: str = "", *reasons: str) -> str:
    sums = f"<OPLATA>{oplata}</OPLATA>" + (paid and f"<SUMP>{paid}</SUMP>")
    sanctions = "".join(f"<SANK><S_TIP>1</S_TIP><S_OSN>{one}</S_OSN></SANK>" for one in reasons)
    return (
        f"<ZAP><N_ZAP>{number}</N_ZAP><Z_SL>{sums}<SL><SL_ID>{card}</SL_ID></SL>{sanctions}"
        "</Z_SL></ZAP>"
    )


def states(here: Path) -> dict[str, tuple[str, str, str | None]]:
    rows = apsw.Connection(str(here / "billed.db")).execute(
        "select card, state, codes, paid from billed"
    )
    return {card: (state, codes, paid) for card, state, codes, paid in rows}


def test_what_is_paid_is_known_card_by_card(here: Path) -> None:
    assert build(write_cases(here / "cases", 5)).exit_code == 0
    done = judge(
        here,
        case(1, "2026-1", "1", "3512.40"),
        case(2, "2026-2", "2", "0.00", "905", "57", "905"),
        case(3, "2026-3", "3", "1000", "57"),
        case(4, "2026-4", "0"),
        case(5, "somebody else's", "1", "3512.40"),
    )
    assert done.exit_code == 0, done.output
    assert "ошибка 57, поле -: 2" in done.output
    assert "принято карт 1, оплачено 2, отклонено 1" in done.output
    assert states(here) == {
        "2026-1": ("paid", "", "3512.40"),
        "2026-2": ("unpaid", "905 57", None),
        "2026-3": ("paid", "57", "1000.00"),
        "2026-4": ("accepted", "", None),
        "2026-5": ("sent", "", None),  # another card stood under its number
    }
    corrected = build(here / "cases", "--number", "2")
    assert "случаев 1 " in corrected.output  # what was refused, and nothing that was paid


def test_a_late_protocol_changes_nothing_of_what_is_paid(here: Path) -> None:
    assert build(write_cases(here / "cases", 3)).exit_code == 0
    judge(here, case(1, "2026-1", "1", "3512.40"), case(2, "2026-2", "2", "0", "905"))
    flk = here / "flk.xml"
    flk.write_text(
        f"<FLK_P><FNAME_I>H{STEM}</FNAME_I><PR><OSHIB>904</OSHIB><N_ZAP>1</N_ZAP></PR></FLK_P>"
    )
    assert take(flk).exit_code == 0
    assert [one[0] for one in states(here).values()] == ["paid", "unpaid", "accepted"]


def test_an_error_of_the_whole_file_refuses_every_card(here: Path) -> None:
    assert build(write_cases(here / "cases", 3)).exit_code == 0
    flk = here / "flk.xml"
    flk.write_text(
        f"<FLK_P><FNAME_I>H{STEM}</FNAME_I><PR><OSHIB>801</OSHIB><IM_POL>DATA</IM_POL></PR>"
        "<PR><OSHIB>904</OSHIB><IDCASE>2</IDCASE></PR></FLK_P>"
    )
    done = take(flk)
    assert "принято карт 0, оплачено 0, отклонено 3" in done.output, done.output
    assert {one[:2] for one in states(here).values()} == {("rejected", "801"), ("rejected", "904")}
    flk.write_text(f"<FLK_P><FNAME_I>H{STEM}</FNAME_I></FLK_P>")  # the fund has mended its error
    assert "принято карт 3, оплачено 0, отклонено 0" in take(flk).output


def test_an_answer_breaks_off_and_nothing_of_it_holds(here: Path) -> None:
    assert build(write_cases(here / "cases", 3)).exit_code == 0
    broken = judge(here, case(1, "2026-1", "1", "3512.40"), case(2, "2026-2", "7"))
    assert broken.exit_code == 65
    assert "OPLATA" in broken.output
    assert {one[0] for one in states(here).values()} == {"sent"}
    assert "в учёте нет реестра HM990101S99001_26109" in judge(here, number=9).output


def test_a_ledger_of_the_first_edition_goes_on(here: Path) -> None:
    file = write_cases(here / "cases", 2)
    with apsw.Connection("billed.db") as old:
        old.execute("create table billed (card text primary key, register text not null,"
                    " number integer not null, state text not null) without rowid")  # fmt: skip
        old.execute("insert into billed values ('2026-1', 'HM_OTHER', 1, 'accepted')")
    assert "случаев 1 " in build(file).output


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"not XML",
        b"<OTHER/>",
        b"<ZL_LIST><ZAP/></ZL_LIST>",
        b"<ZL_LIST><SCHET><CODE>1</CODE></SCHET></ZL_LIST>",
        b"<FLK_P><PR/></FLK_P>",
        b"<!DOCTYPE FLK_P [<!ENTITY a SYSTEM 'file:///etc/passwd'>]><FLK_P><FNAME_I>&a;</FNAME_I></FLK_P>",
        b"<FLK_P><FNAME_I>H1</FNAME_I><PR>",
    ],
)
def test_a_protocol_that_is_none_is_refused(data: bytes) -> None:
    with pytest.raises(BadAnswer) as refused:
        list(read_answer(io.BytesIO(data)).verdicts)
    assert "root:" not in str(refused.value)
