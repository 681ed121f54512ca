"""What is kept of one person, in all of the bus: found, told, erased."""

from connectors.person.command import person

__all__ = ["person"]
