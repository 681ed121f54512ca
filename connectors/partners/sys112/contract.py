"""The contract with System-112: the five operations of the ЦПГ protocol, in JSON.

Field names, their kinds and which are required are those of the protocol (ПИТВ ГИС ЦПГ), with the
block of service 03 (`DdsData03`) in place of that of service 01 (docs/domain.md 4.1 and 4.4).
Fields that the contract does not name are kept (`extensions` of the canonical card).

    PUT  /112/cards/{id112}             UpdateCard
    POST /112/cards/{id112}/cancel      CancelCard
    POST /112/cards/{id112}/close       CloseCard
    POST /112/cards/{id112}/reactions   AddReaction
    POST /112/cards/{id112}/finish      FinishReaction
"""

from datetime import date
from typing import Annotated, Any, Final, Literal

import msgspec

from connectors.runtime.door.body import BadInput
from proto.pattern import exactly
from proto.schemas import Count, Id112, Instant, Required, Short, Text

DDS_TYPE: Final = "Ambulance"
Number = Annotated[int, msgspec.Meta(ge=-1_000_000, le=1_000_000)]
Latitude = Annotated[str, msgspec.Meta(pattern=exactly(r"-?[0-9]{1,2}(\.[0-9]+)?"))]
Longitude = Annotated[str, msgspec.Meta(pattern=exactly(r"-?[0-9]{1,3}(\.[0-9]+)?"))]
IncidentState = Literal["New", "Created", "InWork", "Finished", "Closed", "Assigned", "NotSet"]
ActionType = Literal["Notification", "Departure", "Arrival", "Solution", "Canceled", "Unknown"]
IerType = Literal[0, 1, 2, 4, 5]
Gender = Literal["M", "F"]
AgeUnit = Literal["Y", "M", "D"]


class Part(msgspec.Struct, frozen=True, kw_only=True, rename="pascal", omit_defaults=True):
    """Ground of the contract's structures: PascalCase names, unknown fields allowed."""


class Operator(Part, frozen=True, kw_only=True):
    """Operator of a system."""

    operator_login: Required
    operator_post: Short | None = None
    operator_info: Short | None = None
    operator_dn: Short | None = msgspec.field(default=None, name="OperatorDN")
    operator_workplace: Short | None = None
    operator_name: Short | None = None


class Address(Part, frozen=True, kw_only=True):
    """Address of the incident; codes are KLADR or FIAS."""

    city: Short | None = None
    city_code: Short | None = None
    city_fias_id: Short | None = None
    city_short: Short | None = None
    district: Short | None = None
    street: Short | None = None
    street_code: Short | None = None
    street_fias_id: Short | None = None
    street_short: Short | None = None
    house_number: Short | None = None
    house_code: Short | None = None
    house_fias_id: Short | None = None
    house_fraction: Short | None = None
    building: Short | None = None
    road: Short | None = None
    clarification: Text | None = None
    porch: Number | None = None
    floor: Number | None = None
    flat: Short | None = None
    is_near: bool | None = None
    distance_in_km: Number | None = None
    code: Short | None = None


class Coords(Part, frozen=True, kw_only=True):
    """A point: degrees as texts, as the protocol has it."""

    latitude: Latitude
    longitude: Longitude


class Location(Part, frozen=True, kw_only=True):
    """Where: an address, or a point, or both."""

    address: Address | None = None
    coords: Coords | None = None


class CommonData(Part, frozen=True, kw_only=True):
    """What happened."""

    type_str: Required
    region_str: Required
    hr_id: Short | None = None
    description: Text | None = None
    lost_number: Count | None = None
    injured_number: Count | None = None
    is_danger: bool | None = None
    is_blocking: bool | None = None
    time_iso_str: Instant
    level: Annotated[int, msgspec.Meta(ge=0, le=2)] = 0
    parent_id112: Short | None = msgspec.field(default=None, name="ParentId112")


class ExtPatientPerson(Part, frozen=True, kw_only=True):
    """One injured person; nothing about them need be known. `AgeUnit` is ours: Y, M or D."""

    id: Short | None = msgspec.field(default=None, name="id")
    call_reason_str: Text | None = None
    last_name: Short | None = None
    first_name: Short | None = None
    middle_name: Short | None = None
    gender: Gender | None = None
    move_ability: Short | None = None
    age: Annotated[int, msgspec.Meta(ge=0, le=1500)] | None = None
    age_unit: AgeUnit = "Y"
    birthdate_iso_str: date | None = None


class DdsData03(Part, frozen=True, kw_only=True):
    """The block of service 03, the ambulance."""

    dds_type_str: Required
    is_consultation: bool = False
    caller_type_str: Short | None = None
    ext_patient_person: list[ExtPatientPerson] = []


class FullName(Part, frozen=True, kw_only=True):
    """A name."""

    last_name: Short | None = None
    first_name: Short | None = None
    middle_name: Short | None = None


class Ier(Part, frozen=True, kw_only=True):
    """One contact: a phone call, an SMS, ERA-GLONASS."""

    id: Short | None = None
    ier_iso_time: Instant
    cg_pn: Required
    cd_pn: Short | None = None
    full_name: FullName | None = None
    accept_operator: Operator
    text: Text | None = None
    era: dict[str, Any] | None = None
    sms: dict[str, Any] | None = None
    ier_type: IerType
    hr_id: Short | None = None
    birthdate: date | None = None
    location: Location


class Card(Part, frozen=True, kw_only=True):
    """The card of a call and its incident."""

    id112: Short = msgspec.field(default="", name="Id112")
    ext_id: Short | None = None
    location: Location
    common_data: CommonData
    dds_data03: DdsData03 | None = msgspec.field(default=None, name="DdsData03")
    era_glonass_card_id: Short | None = None
    create_operator: Operator
    last_change_operator: Operator
    incident_state: IncidentState
    created: Instant
    changed: Instant


class UpdateCard(Part, frozen=True, kw_only=True):
    """A new or changed card, and the contact that made it."""

    sys_code: Required
    card: Card
    ier: Ier | None = None


class CancelCard(Part, frozen=True, kw_only=True):
    """The work on a card is cancelled for every service."""

    sys_code: Required
    id112: Id112 = msgspec.field(name="Id112")
    reason: Text
    cancel_operator: Operator
    ext_id: Short | None = None


class CloseCard(Part, frozen=True, kw_only=True):
    """The work on a card is done for every service."""

    sys_code: Required
    id112: Id112 = msgspec.field(name="Id112")
    close_operator: Operator
    reason: Text | None = None
    ext_id: Short | None = None


class AddReaction(Part, frozen=True, kw_only=True):
    """A brigade's step."""

    sys_code: Required
    id112: Id112 = msgspec.field(name="Id112")
    unit_name: Required
    unit_membership: Text | None = None
    action_type: ActionType
    remark: Text | None = None
    react_operator: Operator
    action_time_iso_str: Instant
    dds_type: Required
    ext_id: Short | None = None


class FinishReaction(Part, frozen=True, kw_only=True):
    """The ambulance's work on a card is done."""

    sys_code: Required
    id112: Id112 = msgspec.field(name="Id112")
    finish_operator: Operator
    dds_type: Required
    ext_id: Short | None = None


class Reply(msgspec.Struct, frozen=True):
    """The answer to every operation; `Code` follows HTTP."""

    Id112: str
    Code: str
    CodeDescr: str = ""


def check_id(path: str, id112: str) -> None:
    """Raise BadInput for a number of a card that could not stand in an address: what is told of it
    would reach another one."""
    if any(step in (".", "..") for step in id112.split("/")) or not id112.isprintable():
        raise BadInput(path, "is no number of a card: it has a line end, or a step like ..")


def check_card(update: UpdateCard) -> None:
    """Check the rules that types cannot express (docs/domain.md 4.4). Raises BadInput."""
    card = update.card
    _check_location(card.location, "Card.Location", settlement_required=True)
    if update.ier is not None:
        _check_location(update.ier.location, "Ier.Location", settlement_required=False)
    if card.changed < card.created:
        raise BadInput("Card.Changed", "is before Card.Created")


def _check_location(location: Location, path: str, settlement_required: bool) -> None:
    address, coords = location.address, location.coords
    if settlement_required and address is None and coords is None:
        raise BadInput(f"{path}.Address", "is required when there are no Coords")
    if coords is not None:
        if abs(float(coords.latitude)) > 90:
            raise BadInput(f"{path}.Coords.Latitude", "is not between -90 and 90 degrees")
        if abs(float(coords.longitude)) > 180:
            raise BadInput(f"{path}.Coords.Longitude", "is not between -180 and 180 degrees")
    # A point alone is enough to send a brigade: its address may be as vague as it was told.
    if not settlement_required or address is None or coords is not None:
        return
    if not (address.city_code or address.city_fias_id):
        raise BadInput(f"{path}.Address.CityFiasId", "or CityCode (KLADR) is required")
