"""РИАМС «ПроМед», by its services for outside ambulance software: the second dialect."""

from connectors.partners.rmis.riams.dialect import Riams, RiamsSettings

__all__ = ["Riams", "RiamsSettings"]
