"""What every connector stands on: the bus, the partner's HTTP, failures, settings, stopping."""

from connectors.runtime.bus.connector import Connector
from connectors.runtime.bus.ingress import Ingress
from connectors.runtime.bus.settings import ConnectorSettings
from connectors.runtime.door.body import BadInput
from connectors.runtime.door.door import message_id
from connectors.runtime.door.served import Came, Served
from connectors.runtime.partner.partner import Answer, Partner, PartnerSettings
from connectors.runtime.repeats import digest_of

__all__ = [
    "Answer",
    "BadInput",
    "Came",
    "Connector",
    "ConnectorSettings",
    "Ingress",
    "Partner",
    "PartnerSettings",
    "Served",
    "digest_of",
    "message_id",
]
