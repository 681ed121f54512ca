"""`smpbus drill`: take a simulated partner away under load, and judge what the bus made of it."""

from connectors.simulators.drill.command import drill

__all__ = ["drill"]
