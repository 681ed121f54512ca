"""`smpbus demo`: the bus, its connectors and both partners on one machine, with a day of cards."""

from connectors.simulators.demo.command import demo

__all__ = ["demo"]
