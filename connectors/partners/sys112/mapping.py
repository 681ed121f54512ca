"""Between System-112's words and the bus's: cards in, cards and reactions out.

Pure: nothing here knows of HTTP or of the bus. What a card says beyond the contract goes into
`extensions`, keyed by its path, and comes back from there untouched.
"""

from collections.abc import Iterator
from datetime import datetime
from functools import cache
from typing import Any, Final, get_args, get_origin

import msgspec

from connectors.partners.sys112 import contract
from connectors.partners.sys112.words import FINISH, Reaction, Words
from proto import schemas

TYPE_LIST: Final = "sys112.incident_type"
SERVICE_LIST: Final = "sys112.dds_type"


# -- in -------------------------------------------------------------------------------------------


def card_in(update: contract.UpdateCard, raw: dict[str, Any], words: Words) -> schemas.IncidentCard:
    """Return the canonical card of a request; `raw` is the same request as plain JSON."""
    card, common, service = update.card, update.card.common_data, update.card.dds_data03
    return schemas.IncidentCard(
        id112=card.id112,
        system=update.sys_code,
        ext_id=card.ext_id or None,
        short_number=common.hr_id,
        incident_type=_coded(common.type_str, TYPE_LIST),
        service_type=_coded(service.dds_type_str, SERVICE_LIST) if service else None,
        region=common.region_str,
        description=common.description,
        level=common.level,
        danger=common.is_danger,
        blocked=common.is_blocking,
        injured_number=common.injured_number,
        dead_number=common.lost_number,
        consultation=bool(service and service.is_consultation),
        address=_address_in(card.location),
        contact=_contact_in(update.ier, service, words) if update.ier else None,
        patients=[_person_in(p, words) for p in service.ext_patient_person] if service else [],
        repeat_of=common.parent_id112,
        era_card=card.era_glonass_card_id,
        era=update.ier.era if update.ier else None,
        state=words.states.back[card.incident_state],
        occurred_at=common.time_iso_str,
        created_at=card.created,
        created_by=_operator_in(card.create_operator),
        changed_at=card.changed,
        changed_by=_operator_in(card.last_change_operator),
        extensions=unknown_fields(raw, contract.UpdateCard),
    )


def cancelled_in(
    request: contract.CancelCard | contract.CloseCard, raw: dict[str, Any], now: datetime
) -> schemas.IncidentCancelled:
    """Return the canonical end of a card."""
    cancelled = isinstance(request, contract.CancelCard)
    by = request.cancel_operator if cancelled else request.close_operator  # type: ignore[union-attr]
    return schemas.IncidentCancelled(
        id112=request.id112,
        system=request.sys_code,
        ext_id=request.ext_id,
        kind="cancelled" if cancelled else "closed",
        reason=request.reason,
        operator=_operator_in(by),
        recorded_at=now,
        extensions=unknown_fields(raw, type(request)),
    )


def _coded(text: str, system: str) -> schemas.Coded:
    return schemas.Coded(code=text, system=system, text=text)


def _operator_in(operator: contract.Operator) -> schemas.Operator:
    return schemas.Operator(
        login=operator.operator_login,
        name=operator.operator_name,
        post=operator.operator_post,
        phone=operator.operator_dn,
        workplace=operator.operator_workplace,
    )


def _address_in(location: contract.Location) -> schemas.Address:
    geo = None
    if location.coords is not None:
        coords = location.coords
        geo = schemas.Geo(lat=float(coords.latitude), lon=float(coords.longitude))
    address = location.address
    if address is None:
        return schemas.Address(text="", geo=geo)
    return schemas.Address(
        text=_address_text(address),
        district=address.district,
        settlement=address.city,
        settlement_kladr=address.city_code,
        settlement_fias=address.city_fias_id,
        street=address.street,
        street_kladr=address.street_code,
        street_fias=address.street_fias_id,
        house=address.house_number,
        house_kladr=address.house_code,
        house_fias=address.house_fias_id,
        building=address.building or address.house_fraction,
        flat=address.flat,
        entrance=address.porch,
        floor=address.floor,
        entry_code=address.code,
        road=address.road,
        road_km=address.distance_in_km,
        clarification=address.clarification,
        approximate=address.is_near,
        geo=geo,
    )


def _address_text(address: contract.Address) -> str:
    parts = [
        f"{address.city_short or 'н.п.'} {address.city}" if address.city else None,
        f"{address.street_short or 'ул.'} {address.street}" if address.street else None,
        f"д. {address.house_number}" if address.house_number else None,
        f"корп. {address.house_fraction}" if address.house_fraction else None,
        f"кв. {address.flat}" if address.flat else None,
        f"{address.road}, {address.distance_in_km} км" if address.road else None,
        address.clarification,
    ]
    return ", ".join(part for part in parts if part)


def _contact_in(
    ier: contract.Ier, service: contract.DdsData03 | None, words: Words
) -> schemas.Contact:
    name = ier.full_name
    names = (name.last_name, name.first_name, name.middle_name) if name else ()
    return schemas.Contact(
        id=ier.id,
        at=ier.ier_iso_time,
        kind=words.kinds.back[str(ier.ier_type)],
        caller=schemas.Caller(
            name=" ".join(part for part in names if part) or None,
            phone=ier.cg_pn,
            relation=service.caller_type_str if service else None,
        ),
        text=ier.text,
        accepted_by=_operator_in(ier.accept_operator),
        address=_address_in(ier.location),
    )


def _person_in(person: contract.ExtPatientPerson, words: Words) -> schemas.Person:
    age = None
    if person.age is not None:
        age = schemas.Age(value=person.age, unit=words.units.back[person.age_unit])
    return schemas.Person(
        id=person.id,
        family=person.last_name,
        given=person.first_name,
        middle=person.middle_name,
        birth_date=person.birthdate_iso_str,
        age=age,
        sex=words.sexes.back.get(person.gender or "", "unknown"),
        reason=person.call_reason_str,
        can_move=person.move_ability,
    )


def unknown_fields(raw: Any, shape: Any, path: str = "") -> dict[str, Any]:
    """Return what `raw` holds beyond `shape`, by path ("Card.CommonData.Foo")."""
    return dict(_unknown(raw, shape, path))


def _unknown(raw: Any, shape: Any, path: str) -> Iterator[tuple[str, Any]]:
    if get_origin(shape) is list and isinstance(raw, list):
        for index, item in enumerate(raw):
            yield from _unknown(item, get_args(shape)[0], f"{path}[{index}]")
        return
    if not isinstance(shape, type):  # X | None
        shape = next((kind for kind in get_args(shape) if _is_part(kind)), None)
    if not _is_part(shape) or not isinstance(raw, dict):
        return
    known = _known(shape)
    for key, value in raw.items():
        here = f"{path}.{key}" if path else key
        if key in known:
            yield from _unknown(value, known[key], here)
        else:
            yield here, value


@cache
def _known(shape: type[contract.Part]) -> dict[str, Any]:
    """Return the fields of a part: looking them up anew took most of the time of a card."""
    return {field.encode_name: field.type for field in msgspec.structs.fields(shape)}


def _is_part(shape: Any) -> bool:
    return (
        isinstance(shape, type) and get_origin(shape) is None and issubclass(shape, contract.Part)
    )


# -- out ------------------------------------------------------------------------------------------


def reaction_out(
    status: schemas.StatusEvent, id112: str, reaction: Reaction, sys_code: str, dds_type: str
) -> contract.AddReaction | contract.FinishReaction:
    """Return what to send to System-112 for a status: the reaction that its words have for it."""
    operator = status.operator or schemas.Operator(login=status.source or sys_code)
    if reaction.word == FINISH:
        return contract.FinishReaction(
            sys_code=sys_code,
            id112=id112,
            finish_operator=_operator_out(operator),
            dds_type=dds_type,
            ext_id=status.call_id,
        )
    return contract.AddReaction(
        sys_code=sys_code,
        id112=id112,
        unit_name=_unit(status.brigade),
        unit_membership=status.brigade.members if status.brigade else None,
        action_type=msgspec.convert(reaction.word, contract.ActionType),
        remark=status.remark or reaction.remark,
        react_operator=_operator_out(operator),
        action_time_iso_str=status.occurred_at,
        dds_type=dds_type,
        ext_id=status.call_id,
    )


def card_out(card: schemas.CardUpdate, sys_code: str, words: Words) -> dict[str, Any]:
    """Return the UpdateCard request that brings a card back to System-112, as plain JSON."""
    update = contract.UpdateCard(
        sys_code=sys_code,
        card=contract.Card(
            id112=card.id112,
            ext_id=card.ext_id,
            location=_location_out(card.address),
            common_data=contract.CommonData(
                type_str=card.incident_type.text or card.incident_type.code,
                region_str=card.region,
                hr_id=card.short_number,
                description=card.description,
                lost_number=card.dead_number,
                injured_number=card.injured_number,
                is_danger=card.danger,
                is_blocking=card.blocked,
                time_iso_str=card.occurred_at,
                level=card.level,
                parent_id112=card.repeat_of,
            ),
            dds_data03=_service_out(card, words),
            era_glonass_card_id=card.era_card,
            create_operator=_operator_out(card.created_by),
            last_change_operator=_operator_out(card.changed_by),
            incident_state=msgspec.convert(words.states.out[card.state], contract.IncidentState),
            created=card.created_at,
            changed=card.changed_at,
        ),
    )
    request: dict[str, Any] = msgspec.to_builtins(update, builtin_types=(datetime,))
    for path, value in card.extensions.items():
        _put_back(request, path, value)
    return request


def _put_back(request: dict[str, Any], path: str, value: Any) -> None:
    """Set an extension where it was, if what held it is still there."""
    *steps, last = path.split(".")
    table: Any = request
    for step in steps:
        name, *indices = step.replace("]", "").split("[")
        table = table.get(name) if isinstance(table, dict) else None
        for index in indices:
            there = isinstance(table, list) and int(index) < len(table)
            table = table[int(index)] if there else None
    if isinstance(table, dict):
        table.setdefault(last, value)


def _unit(brigade: schemas.Brigade | None) -> str:
    return (brigade.name or brigade.id) if brigade else "03"


def _operator_out(operator: schemas.Operator) -> contract.Operator:
    return contract.Operator(
        operator_login=operator.login or "03",
        operator_post=operator.post,
        operator_dn=operator.phone,
        operator_workplace=operator.workplace,
        operator_name=operator.name,
    )


def _location_out(address: schemas.Address) -> contract.Location:
    coords = None
    if address.geo is not None:
        coords = contract.Coords(
            latitude=f"{address.geo.lat:.6f}", longitude=f"{address.geo.lon:.6f}"
        )
    return contract.Location(
        address=contract.Address(
            city=address.settlement,
            city_code=address.settlement_kladr,
            city_fias_id=address.settlement_fias,
            district=address.district,
            street=address.street,
            street_code=address.street_kladr,
            street_fias_id=address.street_fias,
            house_number=address.house,
            house_code=address.house_kladr,
            house_fias_id=address.house_fias,
            building=address.building,
            flat=address.flat,
            porch=address.entrance,
            floor=address.floor,
            code=address.entry_code,
            road=address.road,
            distance_in_km=address.road_km,
            clarification=address.clarification or address.text,
            is_near=address.approximate,
        ),
        coords=coords,
    )


def _service_out(card: schemas.IncidentCard, words: Words) -> contract.DdsData03 | None:
    if card.service_type is None and not card.patients:
        return None
    service = card.service_type or card.incident_type
    caller = card.contact.caller if card.contact else None
    return contract.DdsData03(
        dds_type_str=service.text or service.code,
        is_consultation=card.consultation,
        caller_type_str=caller.relation if caller else None,
        ext_patient_person=[_person_out(person, words) for person in card.patients],
    )


def _person_out(person: schemas.Person, words: Words) -> contract.ExtPatientPerson:
    unit = words.units.out[person.age.unit] if person.age else "Y"
    return contract.ExtPatientPerson(
        id=person.id,
        call_reason_str=person.reason,
        last_name=person.family,
        first_name=person.given,
        middle_name=person.middle,
        gender=msgspec.convert(words.sexes.out.get(person.sex or ""), contract.Gender | None),
        move_ability=person.can_move,
        age=person.age.value if person.age else None,
        age_unit=msgspec.convert(unit, contract.AgeUnit),
        birthdate_iso_str=person.birth_date,
    )
