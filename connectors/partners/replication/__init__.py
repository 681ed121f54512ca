"""Replication: two buses exchange, a substation's and the central one; runs at the substation."""

from connectors.partners.replication.connector import ReplicationConnector, ReplicationSettings

__all__ = ["ReplicationConnector", "ReplicationSettings"]
