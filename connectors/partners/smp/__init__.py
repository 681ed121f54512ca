"""The ambulance system (ИС СМП): cards and cancellations go in, tickets and statuses come out."""

from connectors.partners.smp.connector import SmpConnector, SmpSettings

__all__ = ["SmpConnector", "SmpSettings"]
