"""What the fund answers to a register, as a stream: the protocol of format and logic control (ФЛК,
FLK_P), or the register sent back with what is paid (МЭК, ZL_LIST with OPLATA, SUMP and SANK).

The file comes from outside: no entities, no network, no DTD, nothing huge.
"""

import zipfile
from collections.abc import Iterator
from decimal import Decimal, InvalidOperation
from pathlib import Path
from typing import IO, Final, Literal, NamedTuple

from lxml import etree

from proto.wording import text

FILE_BYTES_MAX: Final = 512 * 1024 * 1024
CODE_LENGTH_MAX: Final = 36
FLK, MEK = "flk", "mek"
Judged = Literal["accepted", "refused", "paid"]
# OPLATA: nothing decided yet, paid whole, refused whole, paid in part.
OPLATA: Final[dict[str, Judged]] = {"0": "accepted", "1": "paid", "2": "refused", "3": "paid"}


class BadAnswer(Exception):
    """The file is no answer; says why, never what is in it."""


class Verdict(NamedTuple):
    """What is said to one card, by its N_ZAP; None when it concerns the whole file. `card` is ""
    where only the number is told, `paid` is in roubles, `field` the one that a code is about."""

    number: int | None
    card: str
    state: Judged
    codes: tuple[str, ...]
    paid: str | None = None
    field: str = ""


class Answer(NamedTuple):
    """An answer: by which control, to which register (a name, or several it may have)."""

    stage: str
    registers: tuple[str, ...]
    verdicts: Iterator[Verdict]


def open_answer(file: Path) -> IO[bytes]:
    """Open an answer, that of the cases in a zip if it is one. Raises BadAnswer or OSError."""
    if not zipfile.is_zipfile(file):
        return file.open("rb")
    archive = zipfile.ZipFile(file)
    names = [one for one in archive.infolist() if one.filename.upper().endswith(".XML")]
    names.sort(key=lambda one: one.filename.upper().startswith("L"))  # persons come second
    if not names:
        raise BadAnswer(text("tfoms.answer_empty_zip"))
    if names[0].file_size > FILE_BYTES_MAX:
        raise BadAnswer(text("tfoms.answer_too_long", bytes=FILE_BYTES_MAX))
    return archive.open(names[0])


def read_answer(file: IO[bytes]) -> Answer:
    """Return what an answer says; its verdicts are read as they are asked for. Raises BadAnswer,
    also while they are."""
    elements = _elements(file)
    root = next(elements)
    if root == "FLK_P":
        return _protocol(elements)
    if root == "ZL_LIST":
        return _paid(elements)
    raise BadAnswer(text("tfoms.answer_root"))


Elements = Iterator["str | etree._Element"]


def _elements(file: IO[bytes]) -> Elements:
    """Yield the name of the root, then each of its children, whole; nothing of it is kept."""
    try:
        reader = etree.iterparse(
            file, events=("start", "end"), resolve_entities=False, no_network=True,
            load_dtd=False, huge_tree=False, remove_comments=True, remove_pis=True,
        )  # fmt: skip
        root = None
        for event, element in reader:
            if not _has_name(element):
                raise BadAnswer(text("tfoms.answer_not_xml", line=element.sourceline))
            if root is None:
                root = element
                if element.getroottree().docinfo.doctype:
                    raise BadAnswer(text("tfoms.answer_doctype"))
                yield _name(element)
            elif event == "end" and element.getparent() is root:
                yield element
                element.clear()
                while element.getprevious() is not None:
                    del root[0]
    except etree.XMLSyntaxError as error:
        raise BadAnswer(text("tfoms.answer_not_xml", line=error.lineno)) from None
    if root is None:
        raise BadAnswer(text("tfoms.answer_empty"))


def _has_name(element: "etree._Element") -> bool:
    """Whether its name can be asked for: not of an undeclared prefix, nor of braces."""
    try:
        _name(element)
    except ValueError:
        return False
    return True


def _name(element: "etree._Element") -> str:
    return etree.QName(element).localname


def _said(element: "etree._Element") -> dict[str, str]:
    """Return the children that hold text; of those that repeat, the last."""
    return {_name(child): (child.text or "").strip() for child in element if not len(child)}


def _number(said: dict[str, str], name: str) -> int | None:
    value = said.get(name, "")
    return int(value) if value.isascii() and value.isdigit() and len(value) < 12 else None


# -- format and logic ---------------------------------------------------------------------------


def _protocol(elements: Elements) -> Answer:
    about = ""
    for element in elements:
        if isinstance(element, str) or _name(element) == "PR":
            break
        if _name(element) == "FNAME_I":
            about = (element.text or "").strip().upper().removesuffix(".XML").removesuffix(".ZIP")
            break
    if not about:
        raise BadAnswer(text("tfoms.answer_no_name"))
    refusals = (_refusal(_said(one)) for one in elements
                if not isinstance(one, str) and _name(one) == "PR")  # fmt: skip
    return Answer(FLK, (about,), refusals)


def _refusal(said: dict[str, str]) -> Verdict:
    number = _number(said, "N_ZAP") or _number(said, "IDCASE")  # we number both alike
    code = said.get("OSHIB", "")[:CODE_LENGTH_MAX].replace(" ", "_")
    return Verdict(number, "", "refused", (code,), field=said.get("IM_POL", ""))


# -- what is paid -------------------------------------------------------------------------------


def _paid(elements: Elements) -> Answer:
    for element in elements:
        if not isinstance(element, str) and _name(element) == "SCHET":
            registers = _registers(_said(element))
            cases = (one for one in elements if not isinstance(one, str) and _name(one) == "ZAP")
            return Answer(MEK, registers, (_verdict(one) for one in cases))
    raise BadAnswer(text("tfoms.answer_no_account"))


def _registers(said: dict[str, str]) -> tuple[str, ...]:
    """Return the names of the register: the fund names its own file otherwise, and does not tell
    whether ours was for an insurer or for the fund."""
    year, month, number = (_number(said, name) for name in ("YEAR", "MONTH", "CODE"))
    facility, payer = said.get("CODE_MO", ""), said.get("PLAT", "")
    if year is None or month is None or number is None or not facility or not payer:
        raise BadAnswer(text("tfoms.answer_account"))
    return tuple(
        f"HM{facility}{to}{payer}_{year % 100:02}{month:02}{number}".upper() for to in "ST"
    )


def _verdict(record: "etree._Element") -> Verdict:
    number = _number(_said(record), "N_ZAP")
    closed = record.find("{*}Z_SL")
    if number is None or closed is None:
        raise BadAnswer(text("tfoms.answer_record"))
    said = _said(closed)
    state = OPLATA.get(said.get("OPLATA") or "0")
    if state is None:
        raise BadAnswer(text("tfoms.answer_oplata"))
    reasons = [_said(one) for one in closed.iterfind("{*}SANK")]
    codes = dict.fromkeys(one.get("S_OSN") or one.get("S_TIP", "") for one in reasons)
    paid = _sum(said.get("SUMP", "")) if state == "paid" else None
    card = closed.findtext("{*}SL/{*}SL_ID") or ""
    return Verdict(
        number, card.strip(), state, tuple(code[:CODE_LENGTH_MAX] for code in codes), paid
    )


def _sum(value: str) -> str:
    try:
        amount = Decimal(value)
    except InvalidOperation:
        raise BadAnswer(text("tfoms.answer_no_sum")) from None
    if not amount.is_finite() or amount < 0:
        raise BadAnswer(text("tfoms.answer_sum"))
    return f"{amount:.2f}"
