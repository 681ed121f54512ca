"""System-112: cards come in over HTTP, reactions and cards go back."""

from connectors.partners.sys112.connector import Sys112Connector, Sys112Settings

__all__ = ["Sys112Connector", "Sys112Settings"]
