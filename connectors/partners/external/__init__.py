"""Outside services (card platforms): they hand in calls by HTTP and follow them."""

from connectors.partners.external.connector import ExternalConnector, ExternalSettings

__all__ = ["ExternalConnector", "ExternalSettings"]
