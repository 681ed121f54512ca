"""The hospitals' and clinics' system of the region (РМИС)."""

from connectors.partners.rmis.connector import RmisConnector, RmisSettings

__all__ = ["RmisConnector", "RmisSettings"]
