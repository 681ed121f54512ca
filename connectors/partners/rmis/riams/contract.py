"""What is said to РИАМС: forms, answered by JSON.

`POST {url}/?c=SERVICE&m=OPERATION`:
    AmbulanceService  getPersonByPolis, getPersonByFIOPolis, getPersonByFIODR,
                      getPersonByAddress                               -> Found
                      getStacList       LpuSectionProfile_Code         -> Wards
                      getProfileList                                   -> Profiles
                      bookEmergencyBed                                 -> Reply
    AmbulanceCard     saveAmbulanceCard  the fields of CARD            -> Saved
                      getAmbulanceCard   AmbulanceCard_id              -> a list of Stored
With a session of "rish", whose id is `sess_id`:
    POST {url}/api/User/mlogin              login, password            -> Session
    POST {url}/api/HomeVisit/HomeVisit                                 -> Visited
    GET  {url}/api/HomeVisit/HomeVisitById  HomeVisit_id               -> Visits

Dates are dd.mm.yyyy, times dd.mm.yyyy HH:MM of the region's own clock. No request has an
idempotency key. A card's key is NUMV, NGOD, the date of DPRM and the station: saved again it is the
same card; a field that is left out or empty keeps its value; a card that nothing changes in, and
one that is in a register of the fund already, is answered `success` false with `exists` true. A
booking and a visit have no key at all.
"""

from typing import Any, Final, Literal

import msgspec

Kind = Literal["int", "float", "time", "str"]

# The fields of a card that we fill in, and of what kind they are.
CARD: Final[dict[str, Kind]] = {
    "NUMV": "int", "NGOD": "int", "PRTY": "int", "CITY": "str", "ULIC": "str", "DOM": "str",
    "KVAR": "str", "PODZ": "int", "ETAJ": "int", "KODP": "str", "TELF": "str", "PLC": "str",
    "PLS": "str", "REAC": "str", "REAS": "str", "FAM": "str", "IMYA": "str", "OTCH": "str",
    "VOZR": "int", "POL": "int", "PBDD": "time", "PPNS": "str", "personID": "int", "KTOV": "str",
    "SMPT": "int", "STAN": "int", "SMPB": "int", "STBR": "int", "NUMB": "int", "Tabn": "str",
    "TAB2": "str", "TAB3": "str", "TAB4": "str", "DSP1": "str", "DSP2": "str", "DPRM": "time",
    "TPER": "time", "VYEZ": "time", "PRZD": "time", "TGSP": "time", "TSTA": "time", "TISP": "time",
    "TVZV": "time", "DIAGC": "str", "DIAGS": "str", "DIAGC1": "str", "DGUC": "str",
    "REZLC": "str", "REZLS": "str", "TRAVC": "str", "TRAVS": "str", "ALK": "int", "CLTPC": "str",
    "CLTPS": "str", "LPUC": "str", "KILO": "float", "DLIT": "int", "KAKP": "int", "POLI": "int",
    "MEDS": "str", "INF1": "str", "COMM": "str",
}  # fmt: skip


class Reply(msgspec.Struct, frozen=True, kw_only=True):
    """Every answer; `Error_Msg` is for people and may quote what was asked."""

    success: bool | None = None
    Error_Code: int | str | None = None
    Error_Msg: str | None = None


class Found(Reply, frozen=True, kw_only=True):
    """A person; nobody is `identity` 0, or none."""

    identity: int | None = None
    person_SurName: str | None = None
    person_FirName: str | None = None
    person_SecName: str | None = None
    person_BirthDay: str | None = None
    person_EdNum: str | None = None
    orgSmo_Code: str | None = None
    polis_Ser: str | None = None
    polis_Num: str | None = None
    uAddress_Address: str | None = None
    pAddress_Address: str | None = None


class Ward(msgspec.Struct, frozen=True, kw_only=True):
    """A ward with emergency beds today."""

    Lpu_id: int
    Lpu_Name: str
    LpuSection_id: int
    LpuSection_Name: str | None = None
    Address_Address: str | None = None
    EmergencyBedTotal: int
    EmergencyBedFree: int


class Wards(Reply, frozen=True, kw_only=True):
    """The wards of a profile."""

    data: list[Ward] = []


class Profiles(Reply, frozen=True, kw_only=True):
    """The profiles that an ambulance may ask a bed of."""

    data: list[dict[str, Any]] = []


class Saved(Reply, frozen=True, kw_only=True):
    """A card was stored under this id, or it was there already."""

    CmpCallCard_id: int | None = None
    exists: bool = False


class Stored(msgspec.Struct, frozen=True, kw_only=True):
    """The card as РИАМС has it now, as far as we look at it."""

    NUMV: int | None = None
    NGOD: int | None = None


class Answer(msgspec.Struct, frozen=True, kw_only=True):
    """An answer of "rish": 0 is well, 3 wrong input, 6 a refusal, 100 a wrong login."""

    error_code: int = 0
    error_msg: str | None = None


class Session(Answer, frozen=True, kw_only=True):
    """A session was opened."""

    sess_id: str = ""


class Visited(Answer, frozen=True, kw_only=True):
    """A visit was written down; `data` holds HomeVisit_id, or is "" after a refusal."""

    data: dict[str, Any] | str | None = None


class VisitNow(msgspec.Struct, frozen=True, kw_only=True):
    """A visit as it stands; none of the states is "not confirmed yet"."""

    HomeVisitStatus_id: int | None = None
    HomeVisit_LpuComment: str | None = None


class Visits(Answer, frozen=True, kw_only=True):
    """The visit that was asked for."""

    data: list[VisitNow] | str | None = None
