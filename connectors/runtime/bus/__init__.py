"""A connector on the bus: its process, its settings, what comes in and what goes out."""
