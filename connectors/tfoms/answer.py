"""What the fund answers to a register: the protocol of format and logic control (ФЛК), as a stream.

The file comes from outside: no entities, no network, no DTD, nothing huge.
"""

import zipfile
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Final, NamedTuple

from lxml import etree

FILE_BYTES_MAX: Final = 512 * 1024 * 1024
FIELDS: Final = ("OSHIB", "IM_POL", "BAS_EL", "N_ZAP", "IDCASE", "SL_ID", "COMMENT")


class BadAnswer(Exception):
    """The file is not a protocol; says why, never what is in it."""


class Refusal(NamedTuple):
    """One error of one case; `number` is its N_ZAP, None when it concerns the whole file."""

    number: int | None
    code: str
    field: str
    record: str
    comment: str


def open_protocol(file: Path) -> IO[bytes]:
    """Open a protocol, the first one of a zip if it is one. Raises BadAnswer or OSError."""
    if not zipfile.is_zipfile(file):
        return file.open("rb")
    archive = zipfile.ZipFile(file)
    names = [one for one in archive.infolist() if one.filename.upper().endswith(".XML")]
    if not names:
        raise BadAnswer("the zip holds no XML")
    if names[0].file_size > FILE_BYTES_MAX:
        raise BadAnswer(f"the XML is longer than {FILE_BYTES_MAX} bytes")
    return archive.open(names[0])


def read_protocol(file: IO[bytes]) -> tuple[str, Iterator[Refusal]]:
    """Return the name of the register that is answered, and its refusals. Raises BadAnswer."""
    elements = _elements(file)
    about = ""
    for tag, element in elements:
        if tag == "FNAME_I":
            about = (element.text or "").strip().upper().removesuffix(".XML").removesuffix(".ZIP")
            break
        if tag == "PR":
            break
    if not about:
        raise BadAnswer("FNAME_I, the name of the register, is missing")
    return about, (_refusal(element) for tag, element in elements if tag == "PR")


def _elements(file: IO[bytes]) -> "Iterator[tuple[str, etree._Element]]":
    try:
        reader = etree.iterparse(
            file, events=("start", "end"), resolve_entities=False, no_network=True,
            load_dtd=False, huge_tree=False, remove_comments=True, remove_pis=True,
        )  # fmt: skip
        root = None
        for event, element in reader:
            if root is None:
                root = element
                if element.getroottree().docinfo.doctype:
                    raise BadAnswer("it has a document type")
                if etree.QName(element).localname != "FLK_P":
                    raise BadAnswer("its root is not FLK_P")
            if event == "end" and element.getparent() is root:
                yield etree.QName(element).localname, element
                element.clear()
                while element.getprevious() is not None:
                    del root[0]
    except etree.XMLSyntaxError as error:
        raise BadAnswer(f"it is not XML, line {error.lineno}") from None
    if root is None:
        raise BadAnswer("it is empty")


def _refusal(element: "etree._Element") -> Refusal:
    said = {etree.QName(child).localname: (child.text or "").strip() for child in element}
    code, field, record, number, _, _, comment = (said.get(name, "") for name in FIELDS)
    return Refusal(int(number) if number.isdigit() else None, code, field, record, comment)
