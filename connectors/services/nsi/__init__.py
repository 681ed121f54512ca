"""НСИ, the federal register of code lists: a client for connectors that need codes."""

from connectors.services.nsi.client import CodeLists, NsiClient, NsiSettings

__all__ = ["CodeLists", "NsiClient", "NsiSettings"]
