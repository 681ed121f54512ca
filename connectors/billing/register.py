"""A register of cases: two files in a zip, written as a stream, however many cases there are.

HM... holds the cases (ZL_LIST), LM... the persons (PERS_LIST); both are windows-1251 and say each
other's names. The head of HM holds the count and the sum, so the cases are read twice: first all
are checked, then all are written. Order 79 of the federal fund: docs/domain.md 7.2.
"""

import os
import shutil
import tempfile
import zipfile
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from decimal import Decimal
from pathlib import Path
from typing import IO, Any, Final, Protocol

from lxml import etree

from connectors.billing.billed import Billed, Entry
from connectors.billing.case import Case, Problem, problems
from connectors.billing.profile import Profile, Tables

ENCODING: Final = "windows-1251"
AMBULANCE: Final = 4  # USL_OK, V006
SEXES: Final = {"male": "1", "female": "2"}
STEP: Final = 1_000
PARTS: Final = ".parts"  # ending of the folder in which a register is made


class _Writer(Protocol):
    """What lxml's incremental writer is used for."""

    def write(self, *content: "etree._Element") -> None:
        """Append an element."""


Progress = Callable[[str, int], None]
Fields = dict[str, Any]


@dataclass(frozen=True)
class Order:
    """Which register: of whom, for whom, for which month, the how manyth."""

    facility: str  # CODE_MO, F003
    payer: str  # PLAT: an insurer (F002), or the fund's own code
    to_fund: bool
    year: int
    month: int
    number: int
    dated: date

    @property
    def stem(self) -> str:
        """The common part of both files' names: {МО}{S or T}{payer}_{YYMM}{number}."""
        to = "T" if self.to_fund else "S"
        return f"M{self.facility}{to}{self.payer}_{self.year % 100:02}{self.month:02}{self.number}"


@dataclass
class Survey:
    """What the first reading found."""

    count: int = 0
    total: Decimal = Decimal(0)
    billed: int = 0  # cards that are in another register already
    doubled: int = 0  # cards that came twice
    refused: list[tuple[int, str, Problem]] = field(default_factory=list)  # line, card, problem
    again: set[str] = field(default_factory=set)


class Incomplete(Exception):
    """An element that the profile demands has no value."""


class Register:
    """One register in the making. `read` yields (line, case or problem) anew each time."""

    def __init__(
        self, order: Order, tables: Tables, billed: Billed,
        read: Callable[[], Iterable[tuple[int, Case | Problem]]],
        progress: Progress = lambda stage, count: None,
    ) -> None:  # fmt: skip
        self.order, self.tables, self.profile = order, tables, tables.profile
        self._billed, self._read, self._progress = billed, read, progress
        self._slots = {record: tables.profile.slots(record) for record in tables.profile.order}
        self._passed: set[int] = set()  # lines that do not go in

    @property
    def name(self) -> str:
        """The name of the file with the cases, without its ending."""
        return f"H{self.order.stem}"

    def survey(self) -> Survey:
        """Read and check all cases."""
        survey = Survey()
        seen: set[str] = set()
        for line, case in self._read():
            if line % STEP == 0:
                self._progress("check", line)
            if isinstance(case, Problem):
                survey.refused.append((line, case.about, case))
                self._passed.add(line)
                continue
            wrong = list(self._wrong(case))
            standing = self._billed.standing(case.card_id, self.name)
            survey.refused += [(line, case.card_id, one) for one in wrong]
            survey.doubled += case.card_id in seen
            survey.billed += standing == "billed"
            if wrong or case.card_id in seen or standing == "billed":
                self._passed.add(line)
                continue
            seen.add(case.card_id)
            if standing == "again":
                survey.again.add(case.card_id)
            survey.count += 1
            survey.total += case.total
        return survey

    def _wrong(self, case: Case) -> Iterator[Problem]:
        yield from problems(case, self.tables)
        for record, fields in (("SL", _sl(case, self.profile)), ("PERS", _pers(case))):
            for slot in self._slots[record]:
                if self._value(record, slot.name, fields) is None and not slot.optional:
                    yield Problem(f"{record}.{slot.name}", "is required by the profile")

    def write(self, folder: Path, survey: Survey) -> Path:
        """Write the zip, whole or not at all, and note its cards. Raises OSError."""
        target = folder / f"{self.name}.ZIP"
        mark = f".{self.name}-"
        _clear(folder, mark)
        # A name that nobody can foresee, and a folder of ours: no link laid there is followed.
        with tempfile.TemporaryDirectory(suffix=PARTS, prefix=mark, dir=folder) as made:
            parts = [Path(made, name) for name in (f"{self.name}.XML", f"L{self.order.stem}.XML")]
            with parts[0].open("wb") as cases, parts[1].open("wb") as persons:
                cards = list(self._write_cases(cases, persons, survey))
            packed = Path(made, target.name)
            with packed.open("wb") as whole:
                os.fchmod(whole.fileno(), 0o600)
                with zipfile.ZipFile(whole, "w", zipfile.ZIP_DEFLATED) as archive:
                    for part in parts:
                        archive.write(part, part.name)
                whole.flush()
                os.fsync(whole.fileno())
            packed.replace(target)
        self._billed.note(self.name, cards)
        return target

    def _write_cases(self, cases: IO[bytes], persons: IO[bytes], survey: Survey) -> Iterator[Entry]:
        known: set[str] = set()
        profile = self.profile
        with (
            _listing(cases, "ZL_LIST", profile.namespace) as out,
            _listing(persons, "PERS_LIST", profile.persons_namespace) as people,
        ):
            for record, fields in self._heads(survey):
                self._put(out, record, fields)
            self._put(people, "PERS_ZGLV", self._persons_head(), name="ZGLV")
            number = 0
            for line, case in self._read():
                if line in self._passed or isinstance(case, Problem):
                    continue
                number += 1
                if number % STEP == 0:
                    self._progress("write", number)
                self._put(out, "ZAP", self._zap(case, number, case.card_id in survey.again))
                if case.patient.id not in known:
                    known.add(case.patient.id)
                    self._put(people, "PERS", _pers(case))
                yield Entry(case.card_id, number, case.call_id, case.subject)

    # -- records --------------------------------------------------------------------------------

    def _heads(self, survey: Survey) -> Iterator[tuple[str, Fields]]:
        order = self.order
        yield "ZGLV", {
            "VERSION": self.profile.version, "DATA": order.dated, "FILENAME": self.name,
            "SD_Z": survey.count,
        }  # fmt: skip
        yield "SCHET", {
            "CODE": order.number, "CODE_MO": order.facility, "YEAR": order.year,
            "MONTH": order.month, "NSCHET": f"{order.year}{order.month:02}-{order.number}",
            "DSCHET": order.dated, "PLAT": order.payer, "SUMMAV": _money(survey.total),
        }  # fmt: skip

    def _persons_head(self) -> Fields:
        return {
            "VERSION": self.profile.persons_version, "DATA": self.order.dated,
            "FILENAME": f"L{self.order.stem}", "FILENAME1": self.name,
        }  # fmt: skip

    def _zap(self, case: Case, number: int, again: bool) -> Fields:
        policy, profile, tables = case.policy, self.profile, self.tables
        patient = {
            "ID_PAC": case.patient.id, "VPOLIS": policy.kind, "SPOLIS": policy.series,
            "NPOLIS": policy.number, "ST_OKATO": policy.okato, "SMO": policy.insurer,
            "SMO_OGRN": policy.insurer_ogrn, "NOVOR": case.patient.newborn,
        }  # fmt: skip
        closed = {
            "IDCASE": number, "USL_OK": AMBULANCE, "VIDPOM": profile.kind_of_care,
            "FOR_POM": tables.forms[case.form], "LPU": self.order.facility,
            "DATE_Z_1": case.begins, "DATE_Z_2": case.ends, "RSLT": tables.results[case.result],
            "ISHOD": case.outcome, "IDSP": profile.payment, "SUMV": _money(case.total),
            "SL": _sl(case, profile),
        }  # fmt: skip
        return {"N_ZAP": number, "PR_NOV": int(again), "PACIENT": patient, "Z_SL": closed}

    # -- XML ------------------------------------------------------------------------------------

    def _put(self, out: _Writer, record: str, fields: Fields,
             name: str | None = None) -> None:  # fmt: skip
        people = record.startswith("PERS")
        space = self.profile.persons_namespace if people else self.profile.namespace
        out.write(self._element(record, fields, space, name or record))

    def _element(self, record: str, fields: Fields, space: str, name: str) -> "etree._Element":
        mark = f"{{{space}}}" if space else ""
        element = etree.Element(mark + name, nsmap={None: space} if space else None)
        for slot in self._slots[record]:
            value = self._value(record, slot.name, fields)
            if isinstance(value, dict):
                element.append(self._element(slot.name, value, space, slot.name))
            elif value is not None:
                etree.SubElement(element, mark + slot.name).text = str(value)
            elif not slot.optional:
                raise Incomplete(f"{record}.{slot.name}")
        return element

    def _value(self, record: str, name: str, fields: Fields) -> Any:
        """Return what an element holds, None for nothing: its own, another's, or a constant."""
        value, key = fields.get(name), f"{record}.{name}"
        if value in (None, "") and key in self.profile.same:
            value = fields.get(self.profile.same[key])
        return self.profile.constants.get(key) if value in (None, "") else value


def _clear(folder: Path, mark: str) -> None:
    """Remove what a register of the same name left when it was killed: patients' data, unpacked."""
    for left in folder.glob(f"{mark}*{PARTS}"):
        if left.is_dir() and not left.is_symlink():
            shutil.rmtree(left)


def _sl(case: Case, profile: Profile) -> Fields:
    tariff = case.total if case.tariff is None else case.tariff
    return {
        "SL_ID": case.card_id, "LPU_1": case.substation, "PROFIL": profile.profile_code,
        "DET": int(case.child), "NHISTORY": case.number, "DATE_1": case.begins,
        "DATE_2": case.ends, "DS1": case.diagnosis, "PRVS": case.speciality,
        "VERS_SPEC": profile.specialities, "IDDOKT": case.doctor, "ED_COL": "1.00",
        "TARIF": _money(tariff), "SUM_M": _money(case.total), **case.extra,
    }  # fmt: skip


def _pers(case: Case) -> Fields:
    patient = case.patient
    return {
        "ID_PAC": patient.id, "FAM": patient.family, "IM": patient.given, "OT": patient.middle,
        "W": SEXES[patient.sex], "DR": patient.birth_date, "TEL": patient.phone,
        "DOCTYPE": patient.document_type, "DOCSER": patient.document_series,
        "DOCNUM": patient.document_number, "SNILS": patient.snils,
        "OKATOG": patient.okato_registered, "OKATOP": patient.okato_lives,
    }  # fmt: skip


def _money(value: Decimal) -> str:
    return f"{value:.2f}"


@contextmanager
def _listing(file: IO[bytes], root: str, space: str) -> Iterator[_Writer]:
    """Open the root element of a file for its records."""
    name = f"{{{space}}}{root}" if space else root
    with etree.xmlfile(file, encoding=ENCODING) as out:
        out.write_declaration()
        with out.element(name, nsmap={None: space} if space else None):
            yield out


def tally(refused: list[tuple[int, str, Problem]]) -> list[tuple[str, str, int]]:
    """Return (path, rule, how often), the most frequent first."""
    counts = Counter((problem.path, problem.rule) for _, _, problem in refused)
    return [(path, rule, count) for (path, rule), count in counts.most_common()]
