"""Connectors: one folder per partner system, all standing on `connectors.runtime`."""
