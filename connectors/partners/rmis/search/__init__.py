"""The search service for persons (SearchPersonService), by SOAP: for a region where it is asked who
somebody is."""

from connectors.partners.rmis.search.client import PersonSearch

__all__ = ["PersonSearch"]
