"""The federal centre that collects the cards of System-112 (ГИС «ЦССИ-112»)."""

from connectors.partners.cssi112.connector import CssiConnector, CssiSettings

__all__ = ["CssiConnector", "CssiSettings"]
