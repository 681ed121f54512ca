"""What every connector stands on: the bus, the partner's HTTP, failures, settings, stopping."""

from connectors.runtime.connector import Connector
from connectors.runtime.ingress import Ingress
from connectors.runtime.partner import Answer, Partner, PartnerSettings

__all__ = ["Answer", "Connector", "Ingress", "Partner", "PartnerSettings"]
