"""The digital telephone exchange (АТС): calls, operators and groups come out, dialling goes in."""

from connectors.partners.ats.connector import AtsConnector, AtsSettings

__all__ = ["AtsConnector", "AtsSettings"]
