"""How the simulated ambulance puts a call of an outside service among those of System-112."""

from typing import Final

from proto import schemas
from proto.external import ExternalCall

NOBODY: Final = schemas.Operator(login="external")


def card_of(call: ExternalCall) -> schemas.IncidentCard:
    """Return a card of its own kind, which no System-112 knows."""
    return schemas.IncidentCard(
        id112=f"ext-{call.external}"[:200],
        system=call.client,
        ext_id=call.number,
        incident_type=call.reason,
        region="",
        description=call.description,
        danger=call.urgency == 1,
        address=call.address,
        contact=schemas.Contact(at=call.received_at, caller=call.caller),
        patients=call.patients,
        state="created",
        occurred_at=call.received_at,
        created_at=call.handed_in_at,
        created_by=NOBODY,
        changed_at=call.handed_in_at,
        changed_by=NOBODY,
    )
