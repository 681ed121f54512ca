"""What may be looked up, for how long an answer holds, and what an answer looks like."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import date
from typing import Annotated, Final, Generic, TypeVar

import msgspec

from proto import clinical, schemas
from proto.pattern import exactly

Value = TypeVar("Value")

MINUTE: Final = 60.0
HOUR: Final = 3600.0
DAY: Final = 86_400.0


@dataclass(frozen=True)
class Kind(Generic[Value]):
    """One kind of question. Times are seconds.

    An answer is given for `ttl_s`; after that, for `stale_s` more, the old one is still given while
    a new one is asked for behind it. That there is no answer is remembered for `absent_s`.
    `version` grows whenever `shape` changes its meaning: entries of another version are not read.
    """

    name: str
    version: int
    shape: type[Value]
    ttl_s: float
    absent_s: float
    stale_s: float = 0.0


class Insurance(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A policy of obligatory medical insurance: `policy_kind` is a code of
    1.2.643.5.1.13.13.11.1035, `insurer` the insurer's number in the register of insurers."""

    enp: schemas.Short | None = None
    policy_kind: schemas.Short | None = None
    policy_number: schemas.Short | None = None
    insurer: schemas.Short | None = None
    region: schemas.Short | None = None
    begins: date | None = None
    ends: date | None = None


class CodeList(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=True):
    """A code list of one version: rows by their code, each as the list's own columns.

    `key` is the column of the code, `title` that of the name people read; both differ from list to
    list.
    """

    oid: Annotated[str, msgspec.Meta(pattern=exactly(r"[0-9]+(\.[0-9]+)+"), max_length=128)]
    version: schemas.Required
    name: schemas.Text
    key: schemas.Required
    title: schemas.Required
    rows: dict[str, dict[str, str | None]]

    def name_of(self, code: str) -> str | None:
        """Return what people read for `code`; None when the list has no such code."""
        row = self.rows.get(code)
        return None if row is None else row.get(self.title)


# A person's identity and insurance change rarely, a refused card costs a night: an hour, half a
# day. Registers are reconciled nightly. A number of another system never changes once given.
PATIENT: Final = Kind("patient", 1, schemas.Person, HOUR, MINUTE)
PATIENTS: Final = Kind("patients", 1, clinical.PatientAnswer, HOUR, MINUTE)
# A brigade is on its way for half an hour: what it read once may hold so long.
SUMMARY: Final = Kind("summary", 1, clinical.PatientSummary, 30 * MINUTE, MINUTE)
INSURANCE: Final = Kind("insurance", 1, Insurance, 12 * HOUR, 5 * MINUTE)
INSURED: Final = Kind("insured", 1, schemas.InsuranceAnswer, 12 * HOUR, 5 * MINUTE)
WORKER: Final = Kind("worker", 1, schemas.Worker, DAY, 5 * MINUTE)
CODE_LIST: Final = Kind("code_list", 1, CodeList, DAY, HOUR, stale_s=29 * DAY)
NUMBER: Final = Kind("number", 1, str, 7 * DAY, 5.0)
KINDS: Final = (
    PATIENT, PATIENTS, SUMMARY, INSURANCE, INSURED, WORKER, CODE_LIST, NUMBER,
)  # fmt: skip


def kept_s(ttl_s: Mapping[str, float]) -> float:
    """Return after how many seconds the last answer about a person is gone from every cache, with
    the times that a connector's settings change."""
    return max(ttl_s.get(one.name, one.ttl_s) + one.stale_s for one in KINDS if one != CODE_LIST)
