"""The federal system for heart and vessel diseases (ВИМИС ССЗ)."""

from connectors.partners.vimis.connector import VimisConnector, VimisSettings

__all__ = ["VimisConnector", "VimisSettings"]
