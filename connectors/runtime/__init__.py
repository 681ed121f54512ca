"""What every connector stands on: the bus, the partner's HTTP, failures, settings, stopping."""

from connectors.runtime.bus.connector import Connector
from connectors.runtime.bus.ingress import Ingress
from connectors.runtime.partner.partner import Answer, Partner, PartnerSettings

__all__ = ["Answer", "Connector", "Ingress", "Partner", "PartnerSettings"]
