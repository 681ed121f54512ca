"""The register of medical workers (РМР): its workers come onto the bus, and are looked up."""

from connectors.partners.rmr.connector import RmrConnector, RmrSettings

__all__ = ["RmrConnector", "RmrSettings"]
