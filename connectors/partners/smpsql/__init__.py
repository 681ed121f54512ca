"""The ambulance system through tables of its own PostgreSQL: an outbox, an inbox, in its own
transactions."""

from connectors.partners.smpsql.connector import SmpSqlConnector, SmpSqlSettings

__all__ = ["SmpSqlConnector", "SmpSqlSettings"]
