"""What ЦССИ-112 is sent: SOAP 1.1, `send_ukio(Ukios)` -> `Response` (its ПИТВ, editions 4.3, 5;
docs/domain.md 4.2).

A card (УКИО) may come in parts: what is left out keeps its value there. Of several with one
`globalId` the newest `dtSend` holds. Up to a thousand go in one request. The structures have what
an ambulance knows; the order of fields is that of the partner's schema.
"""

from datetime import date, datetime
from pathlib import Path
from typing import Annotated, Final, Literal, get_args

import msgspec

from connectors.services.vocabulary import Table, load_codes, load_statuses
from proto.configuration.typed import read_table

NAMESPACE: Final = "s112"
WSDL: Final = Path(__file__).with_name("cssi.wsdl")
FILE: Final = "cssi112.toml"
COLUMN: Final = "cssi112"
CARDS_MAX: Final = 1000
SERVICE: Final = "03"  # the ambulance, eosClassTypeId

Step = Literal["reception", "dtDepart", "dtConfirmDepart", "dtArrival", "dtComplete", "dtCancel"]
Gender = Literal["M", "F"]


class Terms(msgspec.Struct, frozen=True):
    """The words of the centre by ours (column cssi112 of config/statuses.toml and
    code_systems.toml): what a status of a call sets there, how states of a card, sources of a call
    and sexes are said; and the answers that mean "taken" (config/cssi112.toml)."""

    steps: dict[str, Step]
    states: dict[str, str]
    sources: dict[str, str]
    genders: dict[str, Gender]
    success: frozenset[int]


class Part(msgspec.Struct, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """Ground of the structures."""


class CallContent(Part, frozen=True, kw_only=True):
    """Who told it, and what."""

    call_content_id: str
    str_name: str | None = None
    str_cg_pn: str | None = msgspec.field(default=None, name="strCgPN")
    str_incident_description: str
    app_loc_address: str


class Address(Part, frozen=True, kw_only=True):
    """Where it is; degrees."""

    address_id: str
    str_address: str
    geo_latitude: float | None = None
    geo_longitude: float | None = None
    str_district: str
    str_city: str
    str_street: str | None = None
    str_house: str | None = None
    str_corps: str | None = None
    str_entrance: str | None = None
    n_floor: int | None = None
    str_room: str | None = None
    str_entrance_code: str | None = None
    str_road: str | None = None
    n_km: int | None = None
    b_near: bool | None = None
    str_place: str | None = None
    str_city_kladr: str | None = msgspec.field(default=None, name="strCityKLADR")
    str_street_kladr: str | None = msgspec.field(default=None, name="strStreetKLADR")
    str_city_fias: str | None = msgspec.field(default=None, name="strCityFIAS")
    str_street_fias: str | None = msgspec.field(default=None, name="strStreetFIAS")
    str_house_fias: str | None = msgspec.field(default=None, name="strHouseFIAS")


class ReceptionItem(Part, frozen=True, kw_only=True):
    """A dispatcher of a service has the card."""

    reception_item_id: str
    eos_class_type_id: str = msgspec.field(name="eosClassTypeId")
    dt_confirm_message: datetime
    b_success: bool


class DispatchService(Part, frozen=True, kw_only=True):
    """The service that reacts."""

    dispatch_service_id: str
    eos_class_type_id: str
    str_dispatch_service_name: str | None = None


class EosResource(Part, frozen=True, kw_only=True):
    """A brigade."""

    eos_resource_id: str
    eos_class_type_id: str
    str_resource_unit_name: str | None = None


class EosItem(Part, frozen=True, kw_only=True):
    """The reaction of one brigade; each status sets one time."""

    assign_id: str
    dispatch_service: DispatchService = msgspec.field(name="DispatchService")
    eos_resources: list[EosResource] = []
    dt_depart: datetime | None = None
    dt_confirm_depart: datetime | None = None
    dt_arrival: datetime | None = None
    dt_complete: datetime | None = None
    dt_cancel: datetime | None = None


class Patient(Part, frozen=True, kw_only=True):
    """One patient (edition 5)."""

    patient_id: str
    str_last_name: str | None = None
    str_name: str | None = None
    str_middle_name: str | None = None
    dt_date_birth: date | None = None
    i_age: int | None = None
    str_gender: Gender | None = None
    str_occasion: str | None = None
    str_ability_move_independently: str | None = None


class Card03(Part, frozen=True, kw_only=True):
    """The part of the ambulance; edition 4.3 knows only its number and time."""

    card03_id: str = msgspec.field(name="card03Id")
    dt_create: datetime | None = None
    str_incident_type: str | None = None
    str_who_called: str | None = None
    b_consultation: bool | None = None
    patient: list[Patient] = msgspec.field(default_factory=list, name="Patient")


class Ukio(Part, frozen=True, kw_only=True):
    """A card, or a part of it."""

    global_id: str
    parent_global_id: str | None = None
    str_card_state: str | None = None
    str_incident_type: str | None = None
    dt_send: datetime
    dt_create: datetime | None = None
    dt_update: datetime | None = None
    n_casualties: int | None = None
    b_human_threat: bool | None = None
    b_chs: bool | None = None
    str_call_source: str | None = None
    b_wrong: bool = msgspec.field(name="bWrong")
    b_child_play: bool = msgspec.field(name="bChildPlay")
    call_content: CallContent | None = msgspec.field(default=None, name="CallContent")
    address: Address | None = msgspec.field(default=None, name="Address")
    reception_item: list[ReceptionItem] = msgspec.field(default_factory=list, name="ReceptionItem")
    eos_item: list[EosItem] = msgspec.field(default_factory=list, name="EosItem")
    card03: Card03 | None = msgspec.field(default=None, name="Card03")


class Ukios(msgspec.Struct, frozen=True):
    """A request."""

    Ukio: list[Ukio]


class Reply(msgspec.Struct, frozen=True):
    """The answer; `errorCode` is left out when all is well."""

    status: Annotated[str, msgspec.Meta(min_length=1)]
    errorCode: int | None = None
    description: str | None = None
    warnings: list[str] = []


class _Own(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    success: frozenset[int]


def load_terms(
    file: Path | None = None, codes: dict[str, Table] | None = None, chain: Table | None = None
) -> Terms:
    """Read the tables. Raises StartError naming the file and the key."""
    codes = load_codes() if codes is None else codes
    chain = load_statuses() if chain is None else chain
    own, _ = read_table(_Own, FILE, file)
    chain.check(COLUMN, get_args(Step))
    codes["sex"].check(COLUMN, get_args(Gender), whole=True)
    return Terms(
        steps=msgspec.convert(chain.words(COLUMN), dict[str, Step]),
        states=codes["card_state"].words(COLUMN),
        sources=codes["contact_kind"].words(COLUMN),
        genders=msgspec.convert(codes["sex"].words(COLUMN), dict[str, Gender]),
        success=own.success,
    )
