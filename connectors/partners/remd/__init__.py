"""The federal register of electronic medical documents (РЭМД)."""

from connectors.partners.remd.connector import RemdConnector, RemdSettings

__all__ = ["RemdConnector", "RemdSettings"]
