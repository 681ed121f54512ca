"""From the bus's words to those of ЦССИ-112. Pure."""

from typing import Any, Literal

from connectors.partners.cssi112 import contract
from proto import schemas

Edition = Literal["4.3", "5"]


def of_card(card: schemas.IncidentCard, terms: contract.Terms, edition: Edition) -> contract.Ukio:
    """Return the whole of a card."""
    contact = card.contact
    return contract.Ukio(
        global_id=card.id112,
        parent_global_id=card.repeat_of,
        str_card_state=terms.states.get(card.state),
        str_incident_type=card.incident_type.text or card.incident_type.code,
        dt_send=card.changed_at,
        dt_create=card.created_at,
        dt_update=card.changed_at,
        n_casualties=card.injured_number,
        b_human_threat=card.danger,
        b_chs=card.level > 0,
        str_call_source=terms.sources.get(contact.kind) if contact else None,
        b_wrong=False,
        b_child_play=False,
        call_content=_content(card, contact) if contact else None,
        address=_address(card),
        card03=_card03(card, terms, edition),
    )


def of_end(ended: schemas.IncidentCancelled, terms: contract.Terms) -> contract.Ukio:
    """Return what changes when System-112 ends the work on a card."""
    return contract.Ukio(
        global_id=ended.id112,
        str_card_state=terms.states.get(ended.kind),
        dt_send=ended.recorded_at,
        b_wrong=False,
        b_child_play=False,
    )


def of_status(
    status: schemas.StatusEvent, id112: str, terms: contract.Terms, service: str
) -> contract.Ukio | None:
    """Return what a status changes, None when the centre does not ask. `service` is the number of
    our dispatch service there."""
    step = terms.steps.get(status.code)
    if step is None:
        return None
    receptions, reactions = [], []
    if step == "reception":
        receptions.append(
            contract.ReceptionItem(
                reception_item_id=status.event_id,
                eos_class_type_id=contract.SERVICE,
                dt_confirm_message=status.occurred_at,
                b_success=True,
            )
        )
    else:
        reactions.append(_reaction(status, step, service))
    return contract.Ukio(
        global_id=id112,
        dt_send=status.recorded_at,
        b_wrong=False,
        b_child_play=False,
        reception_item=receptions,
        eos_item=reactions,
    )


def _reaction(status: schemas.StatusEvent, step: str, service: str) -> contract.EosItem:
    brigade = status.brigade
    resources = []
    if brigade is not None:
        resources.append(
            contract.EosResource(
                eos_resource_id=brigade.id,
                eos_class_type_id=contract.SERVICE,
                str_resource_unit_name=brigade.name,
            )
        )
    fields: dict[str, Any] = {
        "dtDepart": "dt_depart",
        "dtConfirmDepart": "dt_confirm_depart",
        "dtArrival": "dt_arrival",
        "dtComplete": "dt_complete",
        "dtCancel": "dt_cancel",
    }
    return contract.EosItem(
        assign_id=f"{status.call_id}/{brigade.id}" if brigade else status.call_id,
        dispatch_service=contract.DispatchService(
            dispatch_service_id=service, eos_class_type_id=contract.SERVICE
        ),
        eos_resources=resources,
        **{fields[step]: status.occurred_at},
    )


def _content(card: schemas.IncidentCard, contact: schemas.Contact) -> contract.CallContent:
    caller = contact.caller
    where = contact.address or card.address
    return contract.CallContent(
        call_content_id=contact.id or card.id112,
        str_name=caller.name if caller else None,
        str_cg_pn=caller.phone if caller else None,
        str_incident_description=card.description or card.incident_type.text or "-",
        app_loc_address=where.text or "-",
    )


def _address(card: schemas.IncidentCard) -> contract.Address:
    given = card.address
    district = given.district or card.region
    return contract.Address(
        address_id=card.id112,
        str_address=given.text or given.clarification or district,
        geo_latitude=given.geo.lat if given.geo else None,
        geo_longitude=given.geo.lon if given.geo else None,
        str_district=district,
        str_city=given.settlement or district,
        str_street=given.street,
        str_house=given.house,
        str_corps=given.building,
        str_entrance=None if given.entrance is None else str(given.entrance),
        n_floor=given.floor,
        str_room=given.flat,
        str_entrance_code=given.entry_code,
        str_road=given.road,
        n_km=given.road_km,
        b_near=given.approximate,
        str_place=given.clarification,
        str_city_kladr=given.settlement_kladr,
        str_street_kladr=given.street_kladr,
        str_city_fias=given.settlement_fias,
        str_street_fias=given.street_fias,
        str_house_fias=given.house_fias,
    )


def _card03(card: schemas.IncidentCard, terms: contract.Terms, edition: Edition) -> contract.Card03:
    if edition == "4.3":
        return contract.Card03(card03_id=card.id112, dt_create=card.created_at)
    kind = card.service_type or card.incident_type
    caller = card.contact.caller if card.contact else None
    return contract.Card03(
        card03_id=card.id112,
        dt_create=card.created_at,
        str_incident_type=kind.text or kind.code,
        str_who_called=caller.relation if caller else None,
        b_consultation=card.consultation,
        patient=[_patient(n, person, terms) for n, person in enumerate(card.patients, 1)],
    )


def _patient(number: int, person: schemas.Person, terms: contract.Terms) -> contract.Patient:
    age = person.age
    years = None if age is None else age.value if age.unit == "years" else 0
    return contract.Patient(
        patient_id=person.id or str(number),
        str_last_name=person.family,
        str_name=person.given,
        str_middle_name=person.middle,
        dt_date_birth=person.birth_date,
        i_age=years,
        str_gender=terms.genders.get(person.sex or ""),
        str_occasion=person.reason,
        str_ability_move_independently=person.can_move,
    )
