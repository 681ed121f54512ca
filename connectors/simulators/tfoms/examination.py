"""What the simulated fund does to a register: the ФЛК's protocol, or the register sent back with
what is paid of each case, and why not (МЭК). Which cases are refused is the same each time."""

import io
import zipfile
from collections.abc import Iterator
from datetime import date
from typing import IO, Any, Final
from zlib import crc32

from lxml import etree

from connectors.billing.answer import FLK, BadAnswer
from proto.wording import text

ENCODING: Final = "windows-1251"
REASON: Final = "905"  # what refuses, in either control
# What the register's schema wants before the fund's own sums and after them.
BEFORE_SL: Final = ("OPLATA", "SUMP", "SANK_IT")


def examine(register: IO[bytes], stage: str, refuse: float) -> Iterator[bytes]:
    """Yield the fund's answer to a register's zip; `refuse` is the share of cases refused, every
    other one of them in part. Raises BadAnswer."""
    try:
        archive = zipfile.ZipFile(register)
        (name,) = (one for one in archive.namelist() if one.upper().startswith("H"))
    except (zipfile.BadZipFile, ValueError):
        raise BadAnswer(text("tfoms.answer_empty_zip")) from None
    with archive.open(name) as file:
        root = etree.parse(file).getroot()
    if stage == FLK:
        yield _protocol(root, name, refuse)
    else:
        yield _paid(root, refuse)


def _chance(record: "etree._Element") -> float:
    """Return a number from 0 to 1 that is the same for this card whenever it comes."""
    card = record.findtext("{*}Z_SL/{*}SL/{*}SL_ID") or ""
    return crc32(card.encode()) / 2**32


def _protocol(root: "etree._Element", name: str, refuse: float) -> bytes:
    answer = etree.Element("FLK_P")
    etree.SubElement(answer, "FNAME").text = f"P{name[1:]}"
    etree.SubElement(answer, "FNAME_I").text = name.removesuffix(".XML")
    for record in root.iterfind("{*}ZAP"):
        if _chance(record) < refuse:
            error = etree.SubElement(answer, "PR")
            for tag, value in (("OSHIB", REASON), ("IM_POL", "NPOLIS"), ("BAS_EL", "PACIENT"),
                               ("N_ZAP", record.findtext("{*}N_ZAP"))):  # fmt: skip
                etree.SubElement(error, tag).text = value
    return etree.tostring(answer, xml_declaration=True, encoding=ENCODING)


def _paid(root: "etree._Element", refuse: float) -> bytes:
    for record in root.iterfind("{*}ZAP"):
        closed = record.find("{*}Z_SL")
        if closed is None:
            raise BadAnswer(text("tfoms.answer_record"))
        _judge(closed, _chance(record), refuse)
    whole = io.BytesIO()
    root.getroottree().write(whole, xml_declaration=True, encoding=ENCODING)
    return whole.getvalue()


def _judge(closed: Any, chance: float, refuse: float) -> None:
    """Put the fund's elements into a case, where the schema wants them."""
    mark = closed.tag.removesuffix("Z_SL")
    wanted = float(closed.findtext(f"{mark}SUMV"))
    oplata, paid = "1", wanted
    if chance < refuse:
        oplata, paid = ("2", 0.0) if chance < refuse / 2 else ("3", wanted / 2)
    values = (oplata, f"{paid:.2f}", f"{wanted - paid:.2f}")
    at = closed.find(f"{mark}SL")
    for tag, value in zip(BEFORE_SL, values, strict=True):
        element = etree.Element(f"{mark}{tag}")
        element.text = value
        at.addprevious(element)
    if oplata == "1":
        return
    reason = etree.SubElement(closed, f"{mark}SANK")
    for tag, value in (
        ("S_CODE", f"S-{closed.findtext(f'{mark}IDCASE')}"), ("S_SUM", f"{wanted - paid:.2f}"),
        ("S_TIP", "1"), ("S_OSN", REASON), ("DATE_ACT", date(2026, 11, 10).isoformat()),
        ("NUM_ACT", "1"), ("S_IST", "1"),
    ):  # fmt: skip
        etree.SubElement(reason, f"{mark}{tag}").text = value
