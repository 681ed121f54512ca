"""The insurance fund (ЕИР ТФОМС): whose policy it is, and registers of what was done for whom."""

from connectors.partners.tfoms.connector import TfomsConnector, TfomsSettings

__all__ = ["TfomsConnector", "TfomsSettings"]
